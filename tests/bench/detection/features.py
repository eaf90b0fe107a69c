"""What the alternatives see of a session: nine measures, as anybody would take them from a line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

FEATURES: Final = (
    "total",
    "per_minute",
    "inference_count",
    "inference_per_minute",
    "inference_each",
    "sip_rate",
    "assistant_rate",
    "speech_per_minute",
    "billed_ratio",
)
"""In the order of a session's `values`: money in USD, rates per billed minute."""

_SECONDS: Final = ("call_sec", "duration_sec")


@dataclass(frozen=True, slots=True)
class Session:
    """One line of the file, measured. Times are seconds of unix time."""

    id: str
    cohort: str
    """The assistant; of other calls the connection."""
    started: float
    ended: float
    answered: bool
    values: tuple[float, ...]

    @property
    def total(self) -> float:
        """What Telnyx says that it cost, in USD."""
        return self.values[0]


def read(line: Mapping[str, Any]) -> Session:
    """Measures a decoded line."""
    webhook, analysis = line["webhook"], line["analysis"]
    started, ended = (_seconds(line[name]) for name in ("started_at", "ended_at"))
    events = list(_walk(analysis["root"]))
    return Session(
        id=analysis["session_id"],
        cohort=webhook.get("assistant_id") or webhook["connection_id"],
        started=started,
        ended=ended,
        answered=any(_real_seconds(event["record"]) for event in events),
        values=_values(float(analysis["cost"]["total"]), ended - started, events),
    )


def _values(total: float, seconds: float, events: list[dict[str, Any]]) -> tuple[float, ...]:
    minutes = max(1.0, seconds / 60)
    costs: dict[str, float] = {}
    billed: dict[str, float] = {}
    inferences = 0
    ratio = 1.0
    for event in events:
        record = event["record"]
        product = record["record_type"]
        costs[product] = costs.get(product, 0.0) + float(event["cost"]["event_cost"])
        inferences += product == "inference"
        if record.get("billed_sec"):
            billed[product] = billed.get(product, 0.0) + record["billed_sec"] / 60
            real = _real_seconds(record)
            if real:
                ratio = max(ratio, record["billed_sec"] / (60 * -(-real // 60)))
    inference = costs.get("inference", 0.0)
    return (
        total,
        total / minutes,
        float(inferences),
        inferences / minutes,
        inference / inferences if inferences else 0.0,
        _per_minute("sip-trunking", costs, billed),
        _per_minute("ai-voice-assistant", costs, billed),
        costs.get("text-to-speech", 0.0) / minutes,
        ratio,
    )


def _per_minute(product: str, costs: Mapping[str, float], billed: Mapping[str, float]) -> float:
    minutes = billed.get(product, 0.0)
    return costs[product] / minutes if minutes else 0.0


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _walk(child)


def _real_seconds(record: Mapping[str, Any]) -> int:
    return max(int(record.get(name) or 0) for name in _SECONDS)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
