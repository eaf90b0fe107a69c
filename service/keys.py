"""Every key that tollwatch keeps in Redis, and who ends its life.

| key | holds | ends |
|---|---|---|
| `tollwatch:session:{id}` | a session: its events, its watch, its verdict (hash) | no end while open; retention after its last change |
| `tollwatch:ended` | sessions that wait for their first fetch, by latest end (sorted set) | the claim moves them to `due` |
| `tollwatch:due` | sessions by the time of their next work, or by the end of their lease | the conclusion removes them |
| `tollwatch:sessions` | all sessions by last change: the index of lists | housekeeping, after the retention |
| `tollwatch:analysis:{id}` | the last analysis, cleaned and compressed | retention after it was fetched |
| `tollwatch:alert:{id}` | an alert and what became of it (hash) | no end while it waits; retention after that |
| `tollwatch:outbox` | alerts by the time of their next post, or by the end of their lease | the poster removes them |
| `tollwatch:alerts` | all alerts by time of decision: the index of lists | housekeeping, after the retention |
| `arq:*` | arq's own: jobs that a live worker holds, each worker's queue and health | expiry, minutes |

Scores are milliseconds since 1970. All of these must be in one Redis (no Redis Cluster): the scripts
change several of them in one step.
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


def session_key(session_id: str) -> str:
    """The hash of one session."""
    return SESSION + session_id


def analysis_key(session_id: str) -> str:
    """The last analysis of one session."""
    return ANALYSIS + session_id


def alert_key(alert_id: str) -> str:
    """The hash of one alert."""
    return ALERT + alert_id
