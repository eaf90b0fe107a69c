"""What the operators are told about the service itself: when, and in which words.

Pure. A notice's id says which trouble it is about, so that whoever finds that trouble may tell of
it, and it is told once.
"""

from typing import Final

from service.dead import Count
from service.gate import Heard, Outage
from service.records import Notice, moment

# One that comes and goes is one trouble to people.
_QUIET_MS: Final = 3_600_000

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
