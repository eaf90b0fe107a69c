"""Sheets, evidence and lessons as Redis holds them: fields of a hash with integers in them.

Pure. Fields that differ share nothing, so their names are short: thousands of them may stand in one
hash. What a newer version may have added is passed over.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from service.packing import LESSONS, pack, unpack
from workers.detection.baseline import DAYS, Lesson, Sheet, weight_of
from workers.detection.lasting import Evidence

LONGEST_NAME: Final = 160
"""Longer names come from outside only; what has one is not learned."""
CALLS: Final = "n"
_DAY: Final = "d"
_TRAIT: Final = "."
_MEASURES: Final = {
    "total": "t",
    "per_minute": "m",
    "cost": "c",
    "cost_per_minute": "p",
    "events": "e",
    "events_per_minute": "f",
    "each": "h",
    "billed": "b",
}
_MEASURE_OF: Final = {short: name for name, short in _MEASURES.items()}
_TRAITS: Final = {"product": "p", "rate": "r", "model": "m", "country": "c", "free": "f"}
_TRAIT_OF: Final = {short: name for name, short in _TRAITS.items()}
_HOUR: Final = "h"
_BUCKET: Final = "b"


# --- sheets -------------------------------------------------------------------------------------


def fields_of(lesson: Lesson) -> Iterator[tuple[str, int]]:
    """What a lesson adds to each field of a sheet; calls and day come first."""
    weight = weight_of(lesson.day)
    yield CALLS, 1
    yield f"{_DAY}{lesson.day % DAYS}", 1
    for name, bucket in lesson.buckets:
        if len(name) <= LONGEST_NAME:
            yield f"{_shortened(name, _MEASURES)}:{bucket}", weight
    for trait in lesson.traits:
        if len(trait) <= LONGEST_NAME:
            yield f"{_TRAIT}{_shortened(trait, _TRAITS)}", 1


def read_sheet(number: int, fields: Mapping[bytes, bytes]) -> Sheet:
    """The sheet of that number, from its hash."""
    sheet = Sheet()
    for raw, value in fields.items():
        field, count = raw.decode(), int(value)
        if field.startswith(_TRAIT):
            sheet.traits[_whole(field[1:], _TRAIT_OF)] = count
        elif field == CALLS:
            sheet.calls = count
        elif ":" in field:
            name, _, bucket = field.rpartition(":")
            sheet.sketches.setdefault(_whole(name, _MEASURE_OF), {})[int(bucket)] = count
        elif field.startswith(_DAY):
            sheet.days[number * DAYS + int(field[1:])] = count
    return sheet


def _shortened(name: str, by_name: Mapping[str, str]) -> str:
    what, colon, of = name.partition(":")
    return f"{by_name.get(what, what)}{colon}{of}"


_whole = _shortened


# --- evidence -----------------------------------------------------------------------------------


def evidence_fields(hour: int, cause: str, bucket: int | None) -> list[str]:
    """The fields to which one more strange call adds one."""
    fields = [f"{_HOUR}{hour}:{cause}"]
    return fields if bucket is None else [*fields, f"{_BUCKET}{bucket}:{cause}"]


def read_evidence(fields: Mapping[bytes, bytes]) -> dict[str, Evidence]:
    """The evidence by cause, from its hash."""
    found: dict[str, Evidence] = {}
    for raw, value in fields.items():
        number, _, cause = raw.decode().partition(":")
        evidence = found.setdefault(cause, Evidence())
        counts = evidence.hours if number.startswith(_HOUR) else evidence.buckets
        counts[int(number[1:])] = int(value)
    return found


# --- what a session has taught --------------------------------------------------------------------


class Taught(msgspec.Struct, frozen=True):
    """A lesson, with what was strange about it: the cohorts, causes and fields of evidence."""

    ladder: tuple[str, ...]
    day: int
    buckets: dict[str, int]
    traits: tuple[str, ...]
    ended_ms: int
    causes: tuple[tuple[str, str], ...] = ()

    @property
    def lesson(self) -> Lesson:
        """The lesson alone."""
        return Lesson(self.ladder, self.day, tuple(self.buckets.items()), frozenset(self.traits))


def taught(lesson: Lesson, ended_ms: int, causes: Sequence[tuple[str, str]]) -> Taught:
    """What is remembered of a session, so that it can be taken back."""
    return Taught(
        ladder=lesson.ladder,
        day=lesson.day,
        buckets=dict(lesson.buckets),
        traits=tuple(sorted(lesson.traits)),
        ended_ms=ended_ms,
        causes=tuple(causes),
    )


def encode_taught(whole: Taught) -> bytes:
    """For storing."""
    return pack(msgspec.json.encode(whole), LESSONS)


def decode_taught(raw: bytes) -> Taught:
    """As stored. Raises ValueError on junk."""
    return _TAUGHT.decode(unpack(raw))


_TAUGHT: Final = msgspec.json.Decoder(Taught)


def flat(pairs: Iterable[tuple[str, int]]) -> bytes:
    """Pairs one after the other, as a script reads them."""
    return msgspec.msgpack.encode([each for pair in pairs for each in pair])
