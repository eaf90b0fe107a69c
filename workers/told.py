"""What a backtest says, as lines of JSON: the public format of `--format ndjson`.

Pure. One line for each session, in the order of the file, and after them one for each finding.
"""

from typing import Any, Final

import msgspec

from service.money import plain
from service.printable import json_safe
from service.records import Reason, moment
from workers.backtest import Judged
from workers.detection.finding import Finding

_encode: Final = msgspec.json.Encoder().encode
_PLACES: Final = 3


def session_line(judged: Judged) -> str:
    """One session. `anomalous` says that it would have been alerted, before cool-downs and caps."""
    grounds = judged.grounds
    return _line(
        {
            "session_id": judged.session_id,
            "anomalous": grounds.severity is not None,
            "severity": grounds.severity,
            "score": round(judged.score, _PLACES),
            "excess": plain(grounds.excess),
            "reasons": [_reason(reason) for reason in grounds.reasons],
        }
    )


def finding_line(finding: Finding) -> str:
    """One finding; `at` is when it would have been told, and `rung` is a budget's, in percent."""
    document = {
        "kind": finding.kind,
        "cohort": finding.cohort,
        "from": _iso(finding.from_ms),
        "to": _iso(finding.to_ms),
        "at": _iso(finding.at_ms),
        "score": round(finding.score, _PLACES),
        "excess": plain(finding.excess),
        "text": finding.text,
    }
    return _line(document | ({"rung": finding.rung} if finding.rung else {}))


def _reason(reason: Reason) -> dict[str, str]:
    return {
        "code": reason.code,
        "text": reason.text,
        "observed": plain(reason.observed),
        "expected": plain(reason.limit),
    }


def _line(document: dict[str, Any]) -> str:
    return json_safe(_encode(document).decode()) + "\n"


def _iso(at_ms: int) -> str:
    return moment(at_ms).isoformat(timespec="milliseconds")
