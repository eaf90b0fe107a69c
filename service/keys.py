"""Every key that tollwatch keeps in Redis, and who ends its life.

`tollwatch:session:{id}` (hash): a session, its events, its watch, its verdict. No end while it is
    open; the retention after its last change.
`tollwatch:ended` (sorted set): sessions that wait for their first fetch, by latest end. The claim
    moves them to `due`.
`tollwatch:due` (sorted set): sessions by the time of their next work, or by the end of their lease.
    The conclusion removes them.
`tollwatch:sessions` (sorted set): all sessions by last change, the index of lists. Housekeeping.
`tollwatch:analysis:{id}` (string): the last analysis, cleaned and compressed. The retention.
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
`tollwatch:ready` (string): what readiness writes. A minute.
`arq:*`: arq's own; jobs that a live worker holds, each worker's queue and health. Minutes.

Scores are milliseconds since 1970; those of the outbox hold the rank, too. All of these must be in
one Redis (no Redis Cluster): the scripts change several of them in one step.
"""

from typing import Final

SESSION: Final = "tollwatch:session:"
ENDED: Final = "tollwatch:ended"
DUE: Final = "tollwatch:due"
SESSIONS: Final = "tollwatch:sessions"
ANALYSIS: Final = "tollwatch:analysis:"
ALERT: Final = "tollwatch:alert:"
OUTBOX: Final = "tollwatch:outbox"
FOLDED: Final = "tollwatch:folded"
ASIDE: Final = "tollwatch:aside"
MEMBERS: Final = "tollwatch:members:"
CAUSE: Final = "tollwatch:cause:"
SLACK: Final = "tollwatch:slack"
ALERTS: Final = "tollwatch:alerts"
GATE: Final = "tollwatch:telnyx:"

# How ids end that are not alerts': an alert's ends in its severity.
IS_NOTICE: Final = ":notice"
IS_SUMMARY: Final = ":summary"


def session_key(session_id: str) -> str:
    """The hash of one session."""
    return SESSION + session_id


def analysis_key(session_id: str) -> str:
    """The last analysis of one session."""
    return ANALYSIS + session_id


def alert_key(alert_id: str) -> str:
    """The hash of one alert, notice or summary."""
    return ALERT + alert_id


def gate_key(endpoint: str) -> str:
    """What may be asked of one of Telnyx's endpoints."""
    return GATE + endpoint


def suspects_key(gate: str) -> str:
    """Which sessions got no answer there, while none did."""
    return f"{gate}:suspects"


def notice_id(id: str) -> str:
    """A notice's id among the alerts."""
    return id + IS_NOTICE
