"""Signs webhooks as Telnyx does: Ed25519 over `{timestamp}|{raw body}`, both headers included.

https://developers.telnyx.com/ (Receiving webhooks): the key is one per account, base64 of 32 bytes.
"""

import base64
import hashlib
from typing import Final

from nacl.signing import SigningKey

SIGNATURE_HEADER: Final = "telnyx-signature-ed25519"
TIMESTAMP_HEADER: Final = "telnyx-timestamp"


class Signer:
    """An account's signing key. The seed is 32 bytes, or a number from which they are made."""

    def __init__(self, seed: bytes | int = 0) -> None:
        if isinstance(seed, int):
            seed = hashlib.sha256(f"tollwatch simulated account {seed}".encode()).digest()
        self._key = SigningKey(seed)

    @property
    def public_key(self) -> str:
        """The account's public key in base64, as Telnyx's portal shows it."""
        return base64.b64encode(bytes(self._key.verify_key)).decode()

    def sign(self, body: bytes, timestamp: str) -> str:
        """The signature in base64. The timestamp is signed as the text that it is."""
        signed = self._key.sign(timestamp.encode() + b"|" + body)
        return base64.b64encode(signed.signature).decode()

    def headers(self, body: bytes, *, at: float) -> dict[str, str]:
        """Both headers for a body that is sent at `at`, in seconds since 1970."""
        timestamp = str(int(at))
        return {SIGNATURE_HEADER: self.sign(body, timestamp), TIMESTAMP_HEADER: timestamp}
