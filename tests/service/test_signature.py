"""The verifier, against literal vectors and a signer that shares no code with it."""

import base64
import hashlib
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from service.signature import (
    BadPublicKey,
    Claim,
    Refusal,
    read_claim,
    read_public_keys,
    verify,
)

# RFC 8032, section 7.1, test 3, is what the signer below is checked with. The webhook's vector was
# made once with OpenSSL over `1750000000|{"data":{"event_type":"call.hangup"}}`.
RFC_SEED = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
RFC_PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
RFC_SIGNATURE = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
BODY = b'{"data":{"event_type":"call.hangup"}}'
NOW = 1_750_000_000


class Signer:
    """An independent signer: the `cryptography` package, where the product uses PyNaCl."""

    def __init__(self, seed: bytes = RFC_SEED) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public_key(self) -> str:
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, body: bytes, timestamp: str) -> str:
        return base64.b64encode(self._key.sign(timestamp.encode() + b"|" + body)).decode()


SIGNER = Signer()
KEYS = read_public_keys(SIGNER.public_key)


def check(
    body: bytes = BODY,
    signatures: list[str] | None = None,
    timestamps: list[str] | None = None,
    keys: Sequence[VerifyKey] = KEYS,
) -> Refusal | None:
    stamps = [str(NOW)] if timestamps is None else timestamps
    given_signatures = [SIGNER.sign(BODY, str(NOW))] if signatures is None else signatures
    claim = read_claim(
        [given.encode() for given in given_signatures],
        [stamp.encode() for stamp in stamps],
        now=NOW,
        tolerance_seconds=300,
    )
    return verify(body, claim, keys) if isinstance(claim, Claim) else claim


def test_the_signer_is_ed25519() -> None:
    """The tests' signer reproduces the RFC's vector, so it can stand for Telnyx."""
    key = Ed25519PrivateKey.from_private_bytes(RFC_SEED)
    assert base64.b64decode(SIGNER.public_key).hex() == RFC_PUBLIC
    assert key.sign(bytes.fromhex("af82")).hex() == RFC_SIGNATURE


def test_a_literal_signature_is_believed() -> None:
    """A signature written down once, by another program, is believed."""
    assert check(signatures=[LITERAL]) is None


LITERAL = "kgwFokrJqQno5UIWmyiyiOOxdbNh8hMJImSKIVpDnF6AR2Q+8uatmys2CHrCt43TisTSmtK47PMLzcTmBzzDDA=="


def test_what_is_signed_is_timestamp_bar_body() -> None:
    """A signature over the body alone, or with a dot in between, is not believed."""
    key = Ed25519PrivateKey.from_private_bytes(RFC_SEED)
    for signed in (BODY, f"{NOW}.".encode() + BODY, BODY + f"|{NOW}".encode()):
        signature = base64.b64encode(key.sign(signed)).decode()
        assert check(signatures=[signature]) is Refusal.WRONG_SIGNATURE


@pytest.mark.parametrize("place", [0, 1])
def test_any_of_several_keys_is_enough(place: int) -> None:
    """While a key is rotated, webhooks signed with either are believed."""
    other = Signer(hashlib.sha256(b"other").digest()).public_key
    pair = [other, other]
    pair[place] = SIGNER.public_key
    assert check(keys=read_public_keys(",".join(pair))) is None


@pytest.mark.parametrize(
    ("age", "refusal"),
    [
        (0, None),
        (300, None),
        (-300, None),
        (301, Refusal.STALE_TIMESTAMP),
        (-301, Refusal.STALE_TIMESTAMP),
    ],
)
def test_the_tolerance_holds_on_both_sides(age: int, refusal: Refusal | None) -> None:
    """A timestamp of up to the tolerance before or after now is fresh, beyond it stale."""
    stamp = str(NOW - age)
    assert check(signatures=[SIGNER.sign(BODY, stamp)], timestamps=[stamp]) is refusal


@pytest.mark.parametrize(
    "stamp", ["nan", "inf", "", " ", "-1", "1e9", "9" * 400, "१२३", f"{NOW}.0", f" {NOW}", "0x10"]
)
def test_a_junk_timestamp_is_refused(stamp: str) -> None:
    """A timestamp that is no plain number is refused, even when it was signed that way."""
    signature = base64.b64encode(b"\0" * 64).decode()
    assert check(signatures=[signature], timestamps=[stamp]) is Refusal.UNREADABLE_TIMESTAMP


@pytest.mark.parametrize(
    "signature", ["", "!", "AAAA", "é", base64.b64encode(b"x" * 63).decode(), "A" * 100_000]
)
def test_a_junk_signature_is_refused(signature: str) -> None:
    """A signature that is not base64 of 64 bytes is refused."""
    assert check(signatures=[signature]) is Refusal.UNREADABLE_SIGNATURE


def test_a_missing_or_repeated_header_is_refused() -> None:
    """Neither a missing header nor one sent twice can slip through."""
    assert check(signatures=[]) is Refusal.NO_SIGNATURE
    assert check(timestamps=[]) is Refusal.NO_TIMESTAMP
    good = SIGNER.sign(BODY, str(NOW))
    assert check(signatures=[good, good]) is Refusal.REPEATED_HEADER
    assert check(timestamps=[str(NOW)] * 2) is Refusal.REPEATED_HEADER


def test_no_key_believes_nothing() -> None:
    """Without a key nothing is believed: there is no silent downgrade."""
    assert check(keys=()) is Refusal.WRONG_SIGNATURE


@given(place=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_body_is_noticed(place: int, bit: int) -> None:
    """Changing one bit of the body breaks the signature."""
    changed = bytearray(BODY)
    changed[place] ^= 1 << bit
    assert check(body=bytes(changed)) is Refusal.WRONG_SIGNATURE


@given(body=st.binary(max_size=200), signature=st.text(max_size=120), stamp=st.text(max_size=40))
def test_any_input_is_refused_and_nothing_raises(body: bytes, signature: str, stamp: str) -> None:
    """Whatever the three are, the answer is a refusal and never an exception."""
    assert check(body=body, signatures=[signature], timestamps=[stamp]) is not None


@pytest.mark.parametrize("text", ["", "abc", "AAAA", ",", f"{SIGNER.public_key},", "é" * 44])
def test_a_bad_public_key_is_said_without_repeating_it(text: str) -> None:
    """A configured key that is none is an error which does not print it."""
    with pytest.raises(BadPublicKey) as caught:
        read_public_keys(text)
    assert "key" in str(caught.value)
    assert not text or len(text) < 4 or text not in str(caught.value)
