"""Every key that tollwatch keeps in Redis, and who ends its life.

`tollwatch:session:{id}` (hash): a session, its events, its watch, its verdict. No end while it is
    open; the retention after its last change.
`tollwatch:ended` (sorted set): sessions that wait for their first fetch, by latest end. The claim
    moves them to `due`.
`tollwatch:due` (sorted set): sessions by the time of their next work, or by the end of their lease.
    The conclusion removes them.
`tollwatch:sessions` (sorted set): all sessions by last change, the index of lists. Housekeeping.
`tollwatch:analysis:{id}` (string): the last analysis, cleaned and compressed. The retention.
`tollwatch:alert:{id}` (hash): an alert and what became of it. No end while it waits; the retention
    after that.
`tollwatch:outbox` (sorted set): alerts by the time of their next post, or by the end of their
    lease. The poster removes them.
`tollwatch:alerts` (sorted set): all alerts by time of decision, the index of lists. Housekeeping.
`tollwatch:telnyx:{endpoint}` (hash): what may be asked of Telnyx now, see `service.gate`. A day
    after the last answer.
`tollwatch:telnyx:{endpoint}:suspects` (set): sessions that got no answer, while none did. A day.
`tollwatch:ready` (string): what readiness writes. A minute.
`tollwatch:mark` (string): what is written before replicas are waited for, see
    `service.replicas`. A minute.
`arq:*`: arq's own; jobs that a live worker holds, each worker's queue and health. Minutes.

Scores are milliseconds since 1970. All of these must be in one Redis (no Redis Cluster): the
scripts change several of them in one step.
"""

from typing import Final

SESSION: Final = "tollwatch:session:"
ENDED: Final = "tollwatch:ended"
DUE: Final = "tollwatch:due"
SESSIONS: Final = "tollwatch:sessions"
ANALYSIS: Final = "tollwatch:analysis:"
ALERT: Final = "tollwatch:alert:"
OUTBOX: Final = "tollwatch:outbox"
ALERTS: Final = "tollwatch:alerts"
GATE: Final = "tollwatch:telnyx:"
READY: Final = "tollwatch:ready"
MARK: Final = "tollwatch:mark"


def session_key(session_id: str) -> str:
    """The hash of one session."""
    return SESSION + session_id


def analysis_key(session_id: str) -> str:
    """The last analysis of one session."""
    return ANALYSIS + session_id


def alert_key(alert_id: str) -> str:
    """The hash of one alert."""
    return ALERT + alert_id


def gate_key(endpoint: str) -> str:
    """What may be asked of one of Telnyx's endpoints."""
    return GATE + endpoint


def suspects_key(gate: str) -> str:
    """Which sessions got no answer there, while none did."""
    return f"{gate}:suspects"
