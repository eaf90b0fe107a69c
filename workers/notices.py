"""What the operators are told about the service itself: when, and in which words.

Pure. A notice's id says which trouble it is about, so that whoever finds that trouble may tell of
it, and it is told once.
"""

from collections.abc import Sequence
from typing import Final

from service.dead import Count
from service.gate import Heard, Outage
from service.records import Notice, moment
from workers.detection.deviation import Deviation
from workers.detection.explain import change_in_words
from workers.detection.lasting import Change
from workers.detection.measure import TOTAL, Measured
from workers.detection.traits import UNKNOWN_RATE

# One that comes and goes is one trouble to people.
_QUIET_MS: Final = 3_600_000
_MOST_CHANGES: Final = 4

_ADVICE: Final = {
    Heard.REFUSED: (
        "Check TELNYX_API_KEY: it may have been revoked, or lack access to session analyses",
        "Check the account's balance: Telnyx disables an account out of funds",
    ),
    Heard.DOWN: (
        "Check Telnyx's status page, and that the workers reach TELNYX_API_URL",
        "`tollwatch check` tries it from where it runs",
    ),
}
_WORDS: Final = {
    Heard.REFUSED: "Telnyx refuses every request",
    Heard.DOWN: "Telnyx does not answer",
}


def outage_notice(outage: Outage, *, waiting: int, now_ms: int, after_ms: int) -> Notice | None:
    """What to tell of an outage that has lasted for `after_ms`; None where that is nothing (yet).

    `waiting` is how many sessions are overdue.
    """
    told_of_another = outage.told_ms is not None and now_ms - outage.told_ms < _QUIET_MS
    if now_ms - outage.since_ms < after_ms or told_of_another:
        return None
    kind = Heard.DOWN if outage.kind is Heard.DOWN else Heard.REFUSED
    sessions = "1 session waits" if waiting == 1 else f"{waiting:,} sessions wait"
    return Notice(
        id=f"telnyx:{outage.since_ms}",
        kind=f"telnyx_{kind}",
        at_ms=now_ms,
        text=f"{_WORDS[kind]} since {moment(outage.since_ms):%H:%M} UTC; {sessions}",
        details=(
            f"Telnyx's last answer: {outage.reason}" if outage.reason else "There was no answer",
            *_ADVICE[kind],
            "Nothing is lost and no try is used up: the sessions are worked off when it is over",
        ),
    )


def dead_letter_notice(count: Count) -> Notice:
    """That there are dead letters of a kind: one message for as long as there are any."""
    some = "1 dead letter" if count.number == 1 else f"{count.number} dead letters"
    return Notice(
        id=f"dead:{count.kind}:{count.since_ms}",
        kind="dead_letter",
        at_ms=count.since_ms,
        text=f"{some} of the kind {count.kind}: their cost is watched no more",
        details=(
            f"What happened: tollwatch dead list --reason {count.kind}",
            f"Once that is mended: tollwatch dead retry --reason {count.kind}",
            "No more of this kind is told until none is left",
        ),
    )


def most_alerts_notice(most: int, *, now_ms: int) -> Notice | None:
    """That there have been as many alerts as a day may have; None where none are wanted."""
    if not most:
        return None
    day = f"{moment(now_ms):%Y-%m-%d}"
    return Notice(
        id=f"most_alerts:{day}",
        kind="most_alerts",
        at_ms=now_ms,
        text=f"The most alerts a day that rest on what was learned ({most:,}) have been made: no "
        f"more of them are on {day} (UTC)",
        details=(
            "All are kept with their reasons: tollwatch sessions --state verdict --limit 200",
            "Ceilings, billing faults and whatever else does not rest on it are told as ever",
            "The policy's most_alerts_per_day and false_alerts_per_1000_normal_calls set how many",
        ),
    )


def new_normal_notice(
    changes: Sequence[tuple[Change, Deviation]], measured: Measured, currency: str, *, now_ms: int
) -> Notice:
    """That what was strange has become usual: one message for all that changed together.

    Each change comes with its latest case, at which the evidence was enough.
    """
    ordered = sorted(changes, key=_tells_most)
    change, leading = ordered[0]
    # A price that changes for many is one change.
    whose = "" if leading.code == UNKNOWN_RATE else f"{change.cohort}:"
    calls = f"{change.calls:,} calls since {moment(change.since_ms):%Y-%m-%d %H:%M} UTC"
    said = [change_in_words(deviation, measured, currency) for _, deviation in ordered]
    return Notice(
        id=f"new_normal:{whose}{change.cause}",
        kind="new_normal",
        at_ms=now_ms,
        text=f"{said[0]}: {calls}",
        details=(
            *(f"With it: {words}" for words in said[1 : _MOST_CHANGES + 1]),
            "Such calls are no longer told, and teach what is usual",
            f"What has been learned: tollwatch baseline '{change.cohort}'",
        ),
    )


def _tells_most(changed: tuple[Change, Deviation]) -> tuple[bool, bool, float]:
    """A price explains the rest, and the whole cost comes before its parts."""
    _, deviation = changed
    is_price, is_total = deviation.code == UNKNOWN_RATE, deviation.name == TOTAL
    return not is_price, not is_total, -abs(deviation.excess)
