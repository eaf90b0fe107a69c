"""Every key that tollwatch keeps in Redis, and who ends its life.

`tollwatch:session:{id}` (hash): a session, its events, its watch, its verdict. No end while it is
    in `ended`, `due` or `dead`; the retention after its last change.
`tollwatch:ended` (sorted set): sessions that wait for their first fetch, by latest end. The claim
    moves them to `due`.
`tollwatch:due` (sorted set): sessions by the time of their next work, or by the end of their lease.
    The conclusion removes them.
`tollwatch:rechecks` (sorted set): finished sessions by the time of one more look at their cost.
    The claim moves them to `due`; a late event takes them off; housekeeping those that are gone,
    and all where the setting is off.
`tollwatch:sessions` (sorted set): all sessions by last change, the index of lists. Housekeeping.
`tollwatch:analysis:{id}` (string): the last analysis, cleaned and compressed. The retention.
`tollwatch:dead` (sorted set): dead letters by the time of their death. A retry, a drop or a late
    event takes them off; housekeeping drops them after the retention, and their sessions with them.
`tollwatch:dead:kinds` (hash): how many dead letters there are of each kind. Goes with `dead`.
`tollwatch:dead:since` (hash): since when there have been any of that kind. Goes with `dead`.
`tollwatch:raw:{id}` (string): what Telnyx answered when our code last broke on a session, scrubbed
    and compressed. A week.
`tollwatch:alert:{id}` (hash): an alert, a notice to the operators or a summary, and what became of
    it. No end while it waits; the retention after that. The end of its id says what it is: a
    severity, `notice` or `summary`.
`tollwatch:outbox` (sorted set): what Slack is to be told, the worst first, then the oldest.
    Posting, folding and summarizing remove it.
`tollwatch:folded` (sorted set): alerts that a cool-down holds back, by its end. Posting and
    summarizing remove them.
`tollwatch:aside` (sorted set): messages that Slack may have taken, and those that cannot be read,
    by the time when they are tried again. The claim moves them to the outbox.
`tollwatch:members:{id}` (list): the alerts in a summary, the worst first. The retention after its
    post.
`tollwatch:cause:{id}` (hash): the cool-down of one cause. It ends with that.
`tollwatch:slack` (hash): the channel: its lease, its troubles, its bucket. One, for ever.
`tollwatch:alerts` (sorted set): all of `alert:` by time of decision, the index of lists.
    Housekeeping.
`tollwatch:telnyx:{endpoint}` (hash): what may be asked of Telnyx now, see `service.gate`. A day
    after the last answer.
`tollwatch:telnyx:{endpoint}:suspects` (set): sessions that got no answer, while none did. A day.
`tollwatch:spend:{period}` (hash): what calls have cost in one currency in one hour, day or month
    of UTC (`USD:2026-03-14T16`), in millionths, a field for each scope, and which rungs of budgets
    were told. After the last change an hour stays for nine days, a day for forty, a month for a
    year.
`tollwatch:balance` (hash): the account's balance as last heard, and how far its fall was told. A
    month after the last answer.
`tollwatch:balance:lease` (string): that it was asked for. Ten minutes.
`tollwatch:baseline:{sheet}` (hash): what calls of one cohort have cost in four weeks, in counts
    (`account:741`: the cohort, the sheet's number). 57 days after the last call.
`tollwatch:strange:{cohort}` (hash): calls that were kept out of it, by cause. Two weeks after the
    last one.
`tollwatch:cohorts` (sorted set): the cohorts by the end of their last call. 57 days after the last
    call of all; one that gives way to another goes with its sheets.
`tollwatch:lesson:{id}` (string): what a session has taught, so that it teaches once and can be
    taken back. The retention, and no less than a backfill reaches.
`tollwatch:learned:{day}` (string): how many alerts there were on a day that rest on nothing but
    what was learned. Two days.
`tollwatch:feedback` (hash): what people said of sessions, mutes included. The retention after the
    last of it was said, or a mute ended; each is removed after its own.
`tollwatch:feedback:ends` (sorted set): when each of it is removed. Goes with `feedback`.
`tollwatch:reconcile` (hash): how far the search for webhooks that never came has got, a field for
    each list that is read. No end; it does not grow.
`tollwatch:reconcile:lease` (string): who searches now. Seconds.
`tollwatch:calls:minute:{minute}` (hash): how many calls began in that minute, or ended where that
    was not heard of, by series, see `service.counting`. Five hours.
`tollwatch:calls:day:{id}` (hash): the calls, the money and the bursts of a series, by hour; the id
    is day and series. Thirty days.
`tollwatch:calls:roster:{day}` (set): the series of a day. Thirty days.
`tollwatch:calls:numbers:{hour}` (hash): how often each number was called, under names that only the
    web processes can make. Two hours.
`tollwatch:calls:begun:{id}` (hash): where a call that has begun was counted, and for whom, until
    its first end takes that over; which of its legs and places were counted. A day, or four hours
    after that end.
`tollwatch:calls:takers` (hash): which assistant takes the calls of a connection, see
    `service.owning`. Thirty days after the last of them.
`tollwatch:calls:episodes` (hash): what is out of the ordinary now, and since when. Two days.
`tollwatch:calls:look` (string): who looked at the counts last. Seconds.
`tollwatch:backfill` (hash): how far learning from the past has got: the span, a field for each list
    that is read, how many sessions came to what. Its end; a week after it was broken off.
`tollwatch:backfill:lease` (string): who learns from the past now. Seconds.
`tollwatch:backfill:found` (sorted set): the sessions of the past that are still to be learned from,
    by end. Each is removed when it was; a week after it was broken off.
`tollwatch:backfill:call:{id}` (hash): what lists told of one of these. With its place in `found`.
`tollwatch:ready` (string): what readiness writes. A minute.
`tollwatch:mark` (string): what is written before replicas are waited for, see
    `service.replicas`. A minute.
`arq:*`: arq's own; jobs that a live worker holds, each worker's queue and health. Minutes.

Scores are milliseconds since 1970; those of the outbox hold the rank, too. All of these must be in
one Redis (no Redis Cluster): the scripts change several of them in one step.
"""

import re
from dataclasses import dataclass
from typing import Final

SESSION: Final = "tollwatch:session:"
ENDED: Final = "tollwatch:ended"
DUE: Final = "tollwatch:due"
RECHECKS: Final = "tollwatch:rechecks"
SESSIONS: Final = "tollwatch:sessions"
ANALYSIS: Final = "tollwatch:analysis:"
DEAD: Final = "tollwatch:dead"
DEAD_KINDS: Final = DEAD + ":kinds"
DEAD_SINCE: Final = DEAD + ":since"
RAW: Final = "tollwatch:raw:"
ALERT: Final = "tollwatch:alert:"
OUTBOX: Final = "tollwatch:outbox"
FOLDED: Final = "tollwatch:folded"
ASIDE: Final = "tollwatch:aside"
MEMBERS: Final = "tollwatch:members:"
CAUSE: Final = "tollwatch:cause:"
SLACK: Final = "tollwatch:slack"
ALERTS: Final = "tollwatch:alerts"
GATE: Final = "tollwatch:telnyx:"
SPEND: Final = "tollwatch:spend:"
BALANCE: Final = "tollwatch:balance"
BALANCE_LEASE: Final = "tollwatch:balance:lease"
BASELINE: Final = "tollwatch:baseline:"
STRANGE: Final = "tollwatch:strange:"
COHORTS: Final = "tollwatch:cohorts"
LESSON: Final = "tollwatch:lesson:"
LEARNED: Final = "tollwatch:learned:"
FEEDBACK: Final = "tollwatch:feedback"
FEEDBACK_ENDS: Final = FEEDBACK + ":ends"
RECONCILE: Final = "tollwatch:reconcile"
RECONCILE_LEASE: Final = "tollwatch:reconcile:lease"
CALLS_MINUTE: Final = "tollwatch:calls:minute:"
CALLS_DAY: Final = "tollwatch:calls:day:"
CALLS_ROSTER: Final = "tollwatch:calls:roster:"
CALLS_NUMBERS: Final = "tollwatch:calls:numbers:"
CALLS_BEGUN: Final = "tollwatch:calls:begun:"
CALLS_TAKERS: Final = "tollwatch:calls:takers"
CALLS_EPISODES: Final = "tollwatch:calls:episodes"
CALLS_LOOK: Final = "tollwatch:calls:look"
BACKFILL: Final = "tollwatch:backfill"
BACKFILL_LEASE: Final = BACKFILL + ":lease"
BACKFILL_FOUND: Final = BACKFILL + ":found"
BACKFILL_CALL: Final = BACKFILL + ":call:"
READY: Final = "tollwatch:ready"
MARK: Final = "tollwatch:mark"

_VARIES: Final = re.compile(r"\{\w+\}|\*")


@dataclass(frozen=True, slots=True)
class Family:
    """Keys that live and end alike; `name` is as in this module's text, `{id}` is what varies.

    Each key has a time to live of its own, but for those that are `owned` (somebody removes what is
    in them, and an empty one is gone), and for the ids that one of the sets in `held_by` lists.
    """

    name: str
    owned: bool = False
    held_by: tuple[str, ...] = ()

    def id_of(self, key: str) -> str | None:
        """The id in a key of this family ("" where it has none); None for any other key."""
        prefix, *rest = _VARIES.split(self.name)
        if not rest:
            return "" if key == self.name else None
        fits = key.startswith(prefix) and key.endswith(rest[0])
        return key[len(prefix) : len(key) - len(rest[0])] if fits else None


FAMILIES: Final = (
    Family(SESSION + "{id}", held_by=(ENDED, DUE, DEAD)),
    Family(ENDED, owned=True),
    Family(DUE, owned=True),
    Family(RECHECKS, owned=True),
    Family(SESSIONS, owned=True),
    Family(ANALYSIS + "{id}"),
    Family(DEAD, owned=True),
    Family(DEAD_KINDS, owned=True),
    Family(DEAD_SINCE, owned=True),
    Family(RAW + "{id}"),
    Family(ALERT + "{id}", held_by=(OUTBOX, FOLDED, ASIDE)),
    Family(OUTBOX, owned=True),
    Family(FOLDED, owned=True),
    Family(ASIDE, owned=True),
    Family(MEMBERS + "{id}", held_by=(OUTBOX, ASIDE)),
    Family(CAUSE + "{id}"),
    Family(SLACK, owned=True),
    Family(ALERTS, owned=True),
    Family(GATE + "{endpoint}"),
    Family(GATE + "{endpoint}:suspects"),
    Family(SPEND + "{period}"),
    Family(BALANCE),
    Family(BALANCE_LEASE),
    Family(BASELINE + "{sheet}"),
    Family(STRANGE + "{cohort}"),
    Family(COHORTS),
    Family(LESSON + "{id}"),
    Family(LEARNED + "{day}"),
    Family(FEEDBACK),
    Family(FEEDBACK_ENDS),
    Family(RECONCILE, owned=True),
    Family(RECONCILE_LEASE),
    Family(CALLS_MINUTE + "{minute}"),
    Family(CALLS_DAY + "{id}"),
    Family(CALLS_ROSTER + "{day}"),
    Family(CALLS_NUMBERS + "{hour}"),
    Family(CALLS_BEGUN + "{id}"),
    Family(CALLS_TAKERS),
    Family(CALLS_EPISODES),
    Family(CALLS_LOOK),
    Family(BACKFILL),
    Family(BACKFILL_LEASE),
    Family(BACKFILL_FOUND),
    Family(BACKFILL_CALL + "{id}"),
    Family(READY),
    Family(MARK),
    Family("arq:*"),
)
"""All of them, in the order of this module's text."""


def family_of(key: str) -> Family | None:
    """The family of a key, the one with the longest name that fits; None for a key of nobody."""
    fitting = [family for family in FAMILIES if family.id_of(key) is not None]
    return max(fitting, key=lambda family: len(family.name), default=None)


# How ids end that are not alerts': an alert's ends in its severity.
IS_NOTICE: Final = ":notice"
IS_SUMMARY: Final = ":summary"


def session_key(session_id: str) -> str:
    """The hash of one session."""
    return SESSION + session_id


def analysis_key(session_id: str) -> str:
    """The last analysis of one session."""
    return ANALYSIS + session_id


def raw_key(session_id: str) -> str:
    """What Telnyx answered when our code last broke on one session."""
    return RAW + session_id


def alert_key(alert_id: str) -> str:
    """The hash of one alert, notice or summary."""
    return ALERT + alert_id


def gate_key(endpoint: str) -> str:
    """What may be asked of one of Telnyx's endpoints."""
    return GATE + endpoint


def suspects_key(gate: str) -> str:
    """Which sessions got no answer there, while none did."""
    return f"{gate}:suspects"


def spend_key(currency: str, period: str) -> str:
    """What calls have cost in one hour, day or month."""
    return f"{SPEND}{currency}:{period}"


def sheet_key(cohort: str, number: int) -> str:
    """What calls of one cohort have cost in the four weeks of that number."""
    return f"{BASELINE}{cohort}:{number}"


def strange_key(cohort: str) -> str:
    """What was kept out of a cohort's sheets."""
    return STRANGE + cohort


def lesson_key(session_id: str) -> str:
    """What one session has taught."""
    return LESSON + session_id


def learned_key(day: str) -> str:
    """How many alerts there were on a day of UTC that rest on what was learned alone."""
    return LEARNED + day


def notice_id(id: str) -> str:
    """A notice's id among the alerts."""
    return id + IS_NOTICE


def begun_key(session_id: str) -> str:
    """Where a call that has begun was counted."""
    return CALLS_BEGUN + session_id


def backfill_call_key(session_id: str) -> str:
    """What lists told of one session of the past."""
    return BACKFILL_CALL + session_id
