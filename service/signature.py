"""Telnyx's webhook signature: Ed25519 over `{timestamp}|{raw body}`, checked over the raw bytes.

Source: Telnyx, "Webhook fundamentals"; the same two headers sign JSON envelopes and form-encoded
TeXML callbacks, so one verifier serves both. It works in two steps: what the headers say by
themselves is looked at before the body is read.
"""

import base64
import binascii
import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

SIGNATURE_HEADER: Final = b"telnyx-signature-ed25519"
TIMESTAMP_HEADER: Final = b"telnyx-timestamp"

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
# Enough for any time until the year 33658; a longer one is no time, and int() of it is work.
_TIMESTAMP: Final = re.compile(rb"[0-9]{1,12}")


class Refusal(enum.StrEnum):
    """Why a request was not believed: for the log and the metric, never for the answer."""

    NO_SIGNATURE = "no_signature"
    NO_TIMESTAMP = "no_timestamp"
    REPEATED_HEADER = "repeated_header"
    UNREADABLE_TIMESTAMP = "unreadable_timestamp"
    STALE_TIMESTAMP = "stale_timestamp"
    UNREADABLE_SIGNATURE = "unreadable_signature"
    WRONG_SIGNATURE = "wrong_signature"


class BadPublicKey(ValueError):
    """A configured public key is not base64 of 32 bytes. The message does not repeat it."""


def read_public_keys(text: str) -> tuple[VerifyKey, ...]:
    """One or several keys, by comma, as Telnyx's portal shows them. Raises BadPublicKey."""
    parts = [part.strip() for part in text.split(",")]
    return tuple(_read_key(part, place) for place, part in enumerate(parts, start=1))


def _read_key(text: str, place: int) -> VerifyKey:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadPublicKey(f"key {place} is not base64; copy it from Telnyx's portal") from error
    if len(raw) != _KEY_BYTES:
        raise BadPublicKey(f"key {place} has {len(raw)} bytes, an Ed25519 key has {_KEY_BYTES}")
    return VerifyKey(raw)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the two headers claim, in the right form and of the right time; no body was needed."""

    timestamp: bytes
    signature: bytes


def read_claim(
    signatures: Sequence[bytes],
    timestamps: Sequence[bytes],
    *,
    now: float,
    tolerance_seconds: int,
) -> Claim | Refusal:
    """The claim, or why it is not even worth looking at the body.

    `signatures` and `timestamps` are all values of the two headers; `now` is in unix seconds.
    """
    missing = _missing(signatures, timestamps)
    if missing:
        return missing
    timestamp = timestamps[0]
    if not _TIMESTAMP.fullmatch(timestamp):
        return Refusal.UNREADABLE_TIMESTAMP
    if abs(now - int(timestamp)) > tolerance_seconds:
        return Refusal.STALE_TIMESTAMP
    signature = _read_signature(signatures[0])
    if signature is None:
        return Refusal.UNREADABLE_SIGNATURE
    return Claim(timestamp, signature)


def verify(body: bytes, claim: Claim, keys: Sequence[VerifyKey]) -> Refusal | None:
    """None where the body is Telnyx's, or why it is not believed.

    Any one of `keys` suffices, so that a key can be rotated.
    """
    signed = claim.timestamp + b"|" + body
    believed = any(_fits(key, signed, claim.signature) for key in keys)
    return None if believed else Refusal.WRONG_SIGNATURE


def _missing(signatures: Sequence[bytes], timestamps: Sequence[bytes]) -> Refusal | None:
    if not signatures:
        return Refusal.NO_SIGNATURE
    if not timestamps:
        return Refusal.NO_TIMESTAMP
    if len(signatures) > 1 or len(timestamps) > 1:
        return Refusal.REPEATED_HEADER
    return None


def _read_signature(text: bytes) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == _SIGNATURE_BYTES else None


def _fits(key: VerifyKey, signed: bytes, signature: bytes) -> bool:
    try:
        key.verify(signed, signature)
    except CryptoError:
        return False
    return True
