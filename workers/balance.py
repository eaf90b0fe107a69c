"""The account's balance on the wire: `GET /v2/balance`.

https://developers.telnyx.com/api-reference/billing/get-user-balance-details
"""

from typing import Any, Final

import msgspec

from service.money import ZERO, money
from workers.analysis import Unreadable
from workers.detection.balance import Balance

_LONGEST_CURRENCY: Final = 8


def decode_balance(body: bytes) -> Balance:
    """The balance in an answer. Raises Unreadable where it states neither of its two amounts."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    data = document.get("data") if isinstance(document, dict) else None
    stated: dict[str, Any] = data if isinstance(data, dict) else {}
    balance = money(stated.get("balance"))
    available = money(stated.get("available_credit"))
    if available is None and balance is not None:
        available = balance + (money(stated.get("credit_limit")) or ZERO)
    if available is None:
        raise Unreadable("no balance in it")
    currency = stated.get("currency")
    is_code = isinstance(currency, str) and currency.isalpha() and currency.isascii()
    return Balance(
        available=available,
        balance=available if balance is None else balance,
        currency=str(currency)[:_LONGEST_CURRENCY] if is_code else "USD",
    )
