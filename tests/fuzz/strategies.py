"""What strangers and a broken Telnyx might send: requests as values, conversations as bytes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, AnyStr, Final
from urllib.parse import urlencode

from hypothesis import strategies as st

from tests.world.signing import Signer

PATH: Final = "/webhooks/telnyx"
STRANGER: Final = Signer(666)

_KINDS: Final = (
    "call.hangup",
    "call.conversation.ended",
    "conference.ended",
    "call.analyzed",
    "call.cost",
    "call.initiated",
    "CALL.HANGUP",
    "a\nb",
)
_NASTY: Final = (
    "",
    "\x00",
    "\r\nX-Evil: 1",
    '\n{"event":"forged"}',
    "\x1b[2J\x1b]0;owned\x07",
    "\u202e\u2028\x85",
    "<!channel>",
    "${jndi:ldap://x}",
    "{}",
    "*\r\n$1\r\n",
    "' OR 1=1 --",
    "../../etc/passwd",
    "NaN",
    "1E+9999999",
    "-0",
    "9999-12-31T23:59:59+23:59",
    "0001-01-01T00:00:00Z",
    "\ud83d\ude00" * 3,
    "😀😀",
)


@st.composite
def _long(draw: st.DrawFn, *pieces: AnyStr, most: int = 6000) -> AnyStr:
    """One of the pieces, very often."""
    piece = draw(st.sampled_from(pieces))
    return piece * (1 + draw(st.integers(100, most)) // len(piece))


@st.composite
def _texts(draw: st.DrawFn) -> str:
    return draw(st.sampled_from(_NASTY) | st.text(max_size=30) | _long("9", "x", "😀"))


# Composites, since Hypothesis prints others with all that they are made of.
_TEXT: Final = _texts()
_SCALAR: Final = (
    _TEXT
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)


@st.composite
def _any_json(draw: st.DrawFn, depth: int = 3) -> Any:
    if depth == 0:
        return draw(_SCALAR)
    inner = _any_json(depth - 1)
    lists, objects = st.lists(inner, max_size=2), st.dictionaries(_TEXT, inner, max_size=2)
    return draw(_SCALAR | lists | objects)


_ANY_JSON: Final = _any_json()
_FIELDS: Final = (
    "call_session_id",
    "call_leg_id",
    "connection_id",
    "from",
    "to",
    "start_time",
    "occurred_at",
    "duration_sec",
    "direction",
    "hangup_cause",
    "assistant_id",
    "cost_parts",
    "total_cost",
    "cost",
    "llm_model",
)
_FORM_FIELDS: Final = (
    "CallStatus",
    "CallbackSource",
    "CallSessionId",
    "CallLegId",
    "From",
    "To",
    "Direction",
    "CallDuration",
    "EndTime",
    "CallInitiatedAt",
)
_STATUSES: Final = ("completed", "busy", "analyzed", "conversation_ended", "ringing")


def _json_bytes(value: Any) -> bytes:
    # Half surrogate pairs become escapes, as anybody can send them.
    return json.dumps(value).encode()


def _envelope(event: dict[str, Any], *, wrapped: bool) -> dict[str, Any]:
    return {"data": event} if wrapped else event


_SESSION_IDS: Final = st.sampled_from(["s-1", "s-2", "\x7f", "<!here>", "*", "{a}", "0"]) | _TEXT
_PAYLOADS: Final = st.builds(
    lambda session_id, more: {**more, "call_session_id": session_id},
    _SESSION_IDS,
    st.dictionaries(st.sampled_from(_FIELDS), _ANY_JSON, max_size=4),
)
_ENVELOPES: Final = st.builds(
    lambda kind, identity, payload, wrapped, more: _envelope(
        {"event_type": kind, "id": identity, "payload": payload, **more}, wrapped=wrapped
    ),
    st.sampled_from(_KINDS) | _ANY_JSON,
    _SCALAR,
    _PAYLOADS | _PAYLOADS | _ANY_JSON,
    st.booleans(),
    st.dictionaries(st.sampled_from(["occurred_at", "record_type"]), _SCALAR, max_size=2),
)
_FORMS: Final = st.dictionaries(
    st.sampled_from(_FORM_FIELDS), _TEXT | st.sampled_from(_STATUSES), max_size=8
).map(lambda fields: urlencode(fields, errors="surrogatepass").encode())
BODIES: Final = st.one_of(
    _ENVELOPES.map(_json_bytes),
    _ENVELOPES.map(_json_bytes),
    _ANY_JSON.map(_json_bytes),
    _FORMS,
    st.binary(max_size=200),
    _long(b"[", b'{"data":', b"a=b&", b"\xff", most=20_000),
)
CONTENT_TYPES: Final = st.sampled_from(
    [
        "application/json",
        "application/json",
        "application/json",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "APPLICATION/JSON;;;",
        "text/plain",
        "",
        ";",
    ]
)


@dataclass(frozen=True)
class Wish:
    """A request, to be signed by somebody when it is sent."""

    body: bytes
    content_type: str
    method: str = "POST"
    path: str = PATH
    more: tuple[tuple[bytes, bytes], ...] = ()


_HEADER_NAMES: Final = st.sampled_from(
    [
        b"telnyx-timestamp",
        b"telnyx-signature-ed25519",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"x-forwarded-for",
        b"host",
        b"cookie",
    ]
)
_HEADER_VALUES: Final = st.sampled_from(
    [b"", b"0", b"-1", b"9" * 30, b"1e3", b"chunked", b"close", b"nan", b"\xff\xfe", b"A" * 88]
) | st.binary(max_size=40)
WISHES: Final = st.builds(
    Wish,
    body=BODIES,
    content_type=CONTENT_TYPES,
    method=st.sampled_from(["POST"] * 8 + ["GET", "HEAD", "PUT", "OPTIONS", "BREW"]),
    path=st.sampled_from([PATH] * 8 + ["/", PATH + "/", "//", PATH + "\x00", "/é", "/%00"]),
    more=st.lists(st.tuples(_HEADER_NAMES, _HEADER_VALUES), max_size=2).map(tuple),
)


# --- bytes on a connection ------------------------------------------------------------------------

_LINE_ENDS: Final = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\r\n", b"\x00\r\n"])
_METHODS: Final = st.sampled_from(
    [b"POST"] * 6
    + [b"GET", b"HEAD", b"CONNECT", b"PRI", b"OPTIONS", b"post", b"P\x00ST", b"SOURCE", b"M-SEARCH"]
) | st.binary(max_size=8)
_TARGETS: Final = (
    st.sampled_from(
        [PATH.encode()] * 6
        + [
            b"/",
            b"*",
            b"//",
            b"",
            b"http://x" + PATH.encode(),
            PATH.encode() + b"?a=%00",
            b"/%77ebhooks/telnyx",
            b"/\xff",
            b"x:443",
            b"http://[::1",
            b"?",
            b"/ /",
        ]
    )
    | st.binary(max_size=20)
    | _long(b"/a", most=20_000)
)
_VERSIONS: Final = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b"", b"ICE/1.0"]
)
_LINES: Final = st.one_of(
    st.builds(lambda n, v: n + b": " + v, _HEADER_NAMES, _HEADER_VALUES),
    st.sampled_from(
        [
            b"Host: x",
            b" folded",
            b"\tfolded",
            b": no name",
            b"no colon",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding : chunked",
            b"Content-Length: 5",
            b"Content-Length: 5, 5",
            b"Content-Length: +5",
            b"Content-Length: 99999999999999999999",
            b"Expect: 100-continue",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Upgrade: h2c",
            b"Connection: keep-alive, Upgrade",
            b"X: \x00",
            b"X: a\rb",
        ]
    ),
    st.binary(max_size=30),
    _long(b"a", b"a: b", b"a: b\r\n", most=20_000),
)
_CHUNKS: Final = (
    st.sampled_from(
        [
            b"",
            b"5\r\nhello\r\n",
            b"5;ext=1\r\nhello\r\n",
            b"0\r\n\r\n",
            b"0\r\nTrailer: 1\r\n\r\n",
            b"-1\r\n",
            b"ffffffffffffffff\r\n",
            b"fffffffffffffffff\r\n",
            b"zz\r\n",
            b"5\nhello\n",
            b"5\r\nhel",
        ]
    )
    | st.binary(max_size=60)
    | _long(b"1", b"x", b"0\r\n", b"1\r\nx\r\n", most=70_000)
)


def _request(method: bytes, target: bytes, version: bytes, lines: list[bytes], end: bytes) -> bytes:
    return end.join([method + b" " + target + b" " + version, *lines, b"", b""])


_BROKEN: Final = st.builds(
    lambda head, chunks: head + b"".join(chunks),
    st.builds(_request, _METHODS, _TARGETS, _VERSIONS, st.lists(_LINES, max_size=5), _LINE_ENDS),
    st.lists(_CHUNKS, max_size=3),
)


@dataclass(frozen=True)
class Damage:
    """A sound request by `by`, with a part of it replaced."""

    by: str
    begin: float
    length: int
    by_what: bytes
    times: int

    def of(self, sound: bytes) -> bytes:
        """The damaged bytes, several times over."""
        begin = int(self.begin * len(sound))
        damaged = sound[:begin] + self.by_what + sound[begin + self.length :]
        return damaged * self.times


_DAMAGES: Final = st.builds(
    Damage,
    by=st.sampled_from(["telnyx", "stranger", "nobody"]),
    begin=st.floats(0, 1),
    length=st.integers(0, 60),
    by_what=st.sampled_from([b"", b"", b"\x00", b"\r\n\r\n", b"\n", b"\xff" * 4])
    | st.binary(max_size=10),
    times=st.sampled_from([1, 1, 1, 2, 5, 40]),
)


@dataclass(frozen=True)
class Conversation:
    """What is sent on one connection, in how many pieces, and how it is left."""

    says: bytes | Damage
    cuts: tuple[float, ...]
    leaves: str
    """`waits` for an answer first, `half` closes, `closes`, or `resets`."""

    def pieces(self, sound: Callable[[str], bytes]) -> list[bytes]:
        """The bytes, cut; `sound` makes a sound request by somebody."""
        said = self.says.of(sound(self.says.by)) if isinstance(self.says, Damage) else self.says
        places = [0, *sorted(int(cut * len(said)) for cut in self.cuts), len(said)]
        return [said[a:b] for a, b in pairwise(places)]


CONVERSATIONS: Final = st.builds(
    Conversation,
    says=st.one_of(
        _BROKEN,
        _BROKEN,
        _DAMAGES,
        _DAMAGES,
        st.binary(max_size=200),
        st.lists(_BROKEN, min_size=2, max_size=3).map(b"".join),
    ),
    cuts=st.lists(st.floats(0, 1), max_size=2).map(tuple),
    leaves=st.sampled_from(["waits", "waits", "half", "closes", "resets"]),
)
