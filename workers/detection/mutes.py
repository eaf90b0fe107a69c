"""What is planned, and therefore not told: which mute applies to which call or finding.

Pure. A mute is somebody's word that calls of an assistant, a connection or the whole account are
meant to be dear, or many, or none, for a while. It silences all that is told of them, a ceiling
that somebody set, too; a budget goes on: money that is planned is spent as well.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from service.records import Call, moment
from workers.detection.cohort import ACCOUNT
from workers.detection.finding import Finding

_NEVER_MUTED: Final = frozenset({"budget", "balance"})
NOBODY: Final[Mapping[str, str]] = {}


class Mute(msgspec.Struct, omit_defaults=True, frozen=True):
    """From one moment to before another, in milliseconds since 1970."""

    cohort: str
    """`account`, or the id of an assistant or a connection."""
    from_ms: int
    until_ms: int
    by: str
    note: str = ""

    def covers(self, ids: Iterable[str | None]) -> bool:
        """Whether it is about one of these assistants or connections."""
        return self.cohort == ACCOUNT or self.cohort in ids


def mute_of_call(mutes: Iterable[Mute], call: Call) -> Mute | None:
    """What mutes a call: it has ended within the time. The one that ends last."""
    if call.end_ms is None:
        return None
    ids = (call.assistant_id, call.connection_id)
    fitting = [m for m in mutes if m.from_ms <= call.end_ms < m.until_ms and m.covers(ids)]
    return _longest(fitting)


def mute_of_finding(
    mutes: Iterable[Mute], finding: Finding, takers: Mapping[str, str] = NOBODY
) -> Mute | None:
    """What mutes a finding: some of the time that it is about was planned.

    `takers` says by connection who takes its calls, "" for one of several. A mute of an assistant
    is one of the connections whose calls it alone takes, and one of all these is one of it, where
    none is left by which it may have others.
    """
    if finding.kind in _NEVER_MUTED:
        return None
    meanwhile = [m for m in mutes if m.from_ms <= finding.to_ms and finding.from_ms < m.until_ms]
    fitting = [m for m in meanwhile if m.covers((finding.cohort, takers.get(finding.cohort)))]
    connections = {connection for connection, taker in takers.items() if taker == finding.cohort}
    theirs = [mute for mute in meanwhile if mute.cohort in connections]
    if "" not in takers.values() and connections == {mute.cohort for mute in theirs}:
        fitting += theirs
    return _longest(fitting)


def _longest(mutes: Iterable[Mute]) -> Mute | None:
    return max(mutes, key=lambda mute: mute.until_ms, default=None)


def words_of(mute: Mute) -> str:
    """By whom it is muted, and how long, for the remarks of a verdict."""
    note = f": {mute.note}" if mute.note else ""
    until = f"{moment(mute.until_ms):%Y-%m-%d %H:%M} UTC"
    return f"no alert: planned by {mute.by}, who muted {mute.cohort} until {until}{note}"
