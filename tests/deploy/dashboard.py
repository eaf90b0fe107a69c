"""The Grafana dashboard, made from a table of its panels: `python -m tests.deploy.dashboard`."""

import json
from dataclasses import dataclass
from typing import Any, Final

from tests.deploy.monitoring import MONITORING

FILE: Final = MONITORING / "dashboard.json"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 6
_HEIGHT: Final = 7
_IN_A_ROW: Final = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: each target is a PromQL expression and its legend. `NS` stands for the namespace."""

    title: str
    unit: str
    targets: tuple[tuple[str, str], ...]


def _rate(metric: str, by: str) -> tuple[str, str]:
    return f"sum by ({by}) (rate({metric}{{NS}}[$__rate_interval]))", f"{{{{{by}}}}}"


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    inner = f"sum by (le) (rate({metric}_bucket{{NS}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {inner})", f"{q:.0%}") for q in (0.5, 0.95, 0.99))


def _latest(metric: str, by: str) -> tuple[str, str]:
    return f"max by ({by}) ({metric}{{NS}})", f"{{{{{by}}}}}"


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Is it working?": (
        Panel("Webhooks by outcome", "reqps", (_rate("tollwatch_webhooks_total", "outcome"),)),
        Panel("Attempts at sessions", "ops", (_rate("tollwatch_attempts_total", "outcome"),)),
        Panel("Sessions ended", "ops", (_rate("tollwatch_sessions_ended_total", "state"),)),
        Panel("Waiting or leased", "short", (_latest("tollwatch_pending", "line"),)),
        Panel("Overdue", "short", (_latest("tollwatch_overdue", "line"),)),
        Panel("Oldest overdue", "s", (_latest("tollwatch_oldest_overdue_seconds", "line"),)),
        Panel("From decision to Slack", "s", _quantiles("tollwatch_alert_dwell_seconds")),
        Panel("Dead letters", "short", (_latest("tollwatch_dead_letters", "kind"),)),
    ),
    "Vendors": (
        Panel("Questions to Telnyx", "reqps", (_rate("tollwatch_fetches_total", "meaning"),)),
        Panel("Telnyx's latency", "s", _quantiles("tollwatch_fetch_seconds")),
        Panel(
            "Telnyx's limit: left (-1: none)",
            "short",
            (("min(tollwatch_telnyx_permits_left{NS})", "left"),),
        ),
        Panel("Telnyx's outage", "s", (_latest("tollwatch_telnyx_outage_seconds", "kind"),)),
        Panel("Posts to Slack", "reqps", (_rate("tollwatch_posts_total", "outcome"),)),
        Panel("Slack's latency", "s", _quantiles("tollwatch_post_seconds")),
        Panel("Fates of alerts", "ops", (_rate("tollwatch_alert_fates_total", "fate"),)),
        Panel(
            "Messages that Slack may be sent",
            "short",
            (("min(tollwatch_slack_tokens{NS})", "tokens"),),
        ),
    ),
    "Detection": (
        Panel("Alerts decided", "ops", (_rate("tollwatch_alerts_decided_total", "severity"),)),
        Panel("Anomalies by reason", "ops", (_rate("tollwatch_reasons_total", "code"),)),
        Panel("Surges, fraud and drops", "ops", (_rate("tollwatch_findings_total", "kind"),)),
        Panel("Lessons", "ops", (_rate("tollwatch_lessons_total", "outcome"),)),
        Panel("Cohorts", "short", (("max(tollwatch_cohorts{NS})", "cohorts"),)),
        Panel(
            "Not told: planned, or one too many",
            "ops",
            (
                ("sum(rate(tollwatch_alerts_muted_total{NS}[$__rate_interval]))", "planned"),
                ("sum(rate(tollwatch_alerts_capped_total{NS}[$__rate_interval]))", "too many"),
            ),
        ),
        Panel("From a call's end to its verdict", "s", _quantiles("tollwatch_verdict_age_seconds")),
        Panel("Second looks", "ops", (_rate("tollwatch_rechecks_total", "outcome"),)),
    ),
    "Processes": (
        Panel("Memory", "bytes", (_latest("process_resident_memory_bytes", "pod"),)),
        Panel("CPU", "short", (_rate("process_cpu_seconds_total", "pod"),)),
        Panel("Ready: Redis takes writes", "short", (_latest("tollwatch_ready", "pod"),)),
        Panel("Errors of Redis", "ops", (_rate("tollwatch_redis_errors_total", "pod"),)),
        Panel("Acknowledging a webhook", "s", _quantiles("tollwatch_acknowledge_seconds")),
        Panel("Of which Redis", "s", _quantiles("tollwatch_record_seconds")),
        Panel("From due until taken up", "s", _quantiles("tollwatch_dwell_seconds")),
        Panel("Sessions at work", "short", (_latest("tollwatch_sessions_held", "pod"),)),
    ),
}


def expressions() -> list[str]:
    """The PromQL of all panels, Grafana's variables replaced by what they may stand for."""
    panels = (panel for row in ROWS.values() for panel in row)
    found = (expression for panel in panels for expression, _ in panel.targets)
    return [e.replace("NS", "").replace("$__rate_interval", "5m") for e in found]


def build() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_row(len(panels) + 1, title, top))
        for place, panel in enumerate(row):
            down, right = divmod(place, _IN_A_ROW)
            at = {"x": right * _WIDTH, "y": top + 1 + down * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_graph(len(panels) + 1, panel, at))
        top += 1 + -(-len(row) // _IN_A_ROW) * _HEIGHT
    return {
        "uid": "tollwatch",
        "title": "tollwatch",
        "tags": ["tollwatch"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source(), _namespace()]},
        "panels": panels,
    }


def text() -> str:
    """The file."""
    return json.dumps(build(), indent=1) + "\n"


def _row(id: int, title: str, top: int) -> dict[str, Any]:
    at = {"x": 0, "y": top, "w": _WIDTH * _IN_A_ROW, "h": 1}
    return {
        "id": id,
        "type": "row",
        "title": title,
        "gridPos": at,
        "collapsed": False,
        "panels": [],
    }


def _graph(id: int, panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    return {
        "id": id,
        "type": "timeseries",
        "title": panel.title,
        "gridPos": at,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": expression.replace("NS", 'namespace="$namespace"'),
                "legendFormat": legend,
            }
            for number, (expression, legend) in enumerate(panel.targets)
        ],
    }


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }


def _namespace() -> dict[str, Any]:
    return {
        "name": "namespace",
        "type": "query",
        "datasource": _SOURCE,
        "query": "label_values(tollwatch_build_info, namespace)",
        "refresh": 2,
    }


if __name__ == "__main__":
    FILE.write_text(text())
