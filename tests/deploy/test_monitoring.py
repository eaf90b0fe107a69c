"""deploy/monitoring and deploy/runbook.md agree with each other and with the command line."""

import json
import re
import shlex
from collections import Counter, defaultdict
from typing import Any

import pytest
import typer
import yaml

from tests.deploy import dashboard
from tests.deploy.monitoring import (
    MONITORING,
    RUNBOOK,
    alerts,
    every_rule,
    monitors,
    recorded,
    selectors,
)
from tests.deploy.readme import TEXT
from workers.cli import app

_HEADINGS = ("What it means", "What is lost if nothing is done", "Look at", "Do")
_ENTRIES = dict(
    re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
)
_COMMANDS = sorted(
    {
        " ".join(command.split())
        for command in re.findall(r"(?:`|-- )(tollwatch (?!…)[^`\n]+)", RUNBOOK.read_text() + TEXT)
    }
)


def test_every_alert_has_a_runbook_entry_and_every_entry_an_alert() -> None:
    """Whoever is woken finds what to do, and nothing is there that no alert leads to."""
    assert sorted(_ENTRIES) == sorted(alerts())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_all_that_somebody_needs(name: str) -> None:
    """Severity, summary, description with the value, and the way to its runbook entry."""
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "$value" in annotations["description"]
    assert annotations["runbook_url"] == f"deploy/runbook.md#{name.lower()}"


@pytest.mark.parametrize("name", _ENTRIES)
def test_a_runbook_entry_is_whole(name: str) -> None:
    """Each entry says what it means, what is lost, what to look at and what to do."""
    assert tuple(re.findall(r"^- \*\*([^*]+):\*\*", _ENTRIES[name], re.MULTILINE)) == _HEADINGS


def test_links_within_the_runbook_lead_somewhere() -> None:
    """An entry that names another one names one that is there."""
    links = set(re.findall(r"\]\(#(\w+)\)", RUNBOOK.read_text()))
    assert links
    assert links <= {name.lower() for name in _ENTRIES}


@pytest.mark.parametrize("command", _COMMANDS)
def test_commands_exist(command: str) -> None:
    """The command line's own parser takes every `tollwatch …` of the runbook and the README."""
    _, *words = shlex.split(command)
    found: Any = typer.main.get_command(app)
    context: Any = None
    while hasattr(found, "commands"):
        assert words, f"{command} names no command"
        assert words[0] in found.commands, command
        context = found.context_class(found, info_name=found.name, parent=context)
        found = found.commands[words.pop(0)]
    if words != ["…"]:
        found.parse_args(found.context_class(found, parent=context), _filled(words))


def _filled(words: list[str]) -> list[str]:
    """The words, with a file that exists where one is asked for."""
    return [str(RUNBOOK) if word == "FILE" else word for word in words]


def test_every_alert_is_tested_firing_and_quiet() -> None:
    """For each alert promtool's tests expect it at one time and its absence at another."""
    seen: dict[str, Counter[bool]] = defaultdict(Counter)
    for file in (MONITORING / "tests").glob("*.yaml"):
        for group in yaml.safe_load(file.read_text())["tests"]:
            for check in group["promql_expr_test"]:
                (name,) = re.findall(r'alertname="(\w+)"', check["expr"])
                seen[name][bool(check["exp_samples"])] += 1
    assert {name for name, kinds in seen.items() if kinds[True] and kinds[False]} == set(alerts())
    assert set(seen) == set(alerts())


def test_what_is_recorded_is_used() -> None:
    """Every recording rule is named by another rule, and none is missing."""
    named = {name for rule in every_rule() for name, _ in selectors(rule["expr"])}
    assert {name for name in named if ":" in name} == recorded()


def test_the_dashboard_is_what_its_table_makes() -> None:
    """`python -m tests.deploy.dashboard` would change nothing."""
    assert dashboard.FILE.read_text() == dashboard.text()


def test_no_panel_covers_another() -> None:
    """Panels have ids of their own, and each place holds one."""
    panels = json.loads(dashboard.FILE.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = Counter(
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )
    assert max(places.values()) == 1
    assert max(x for x, _ in places) < 24


def test_each_component_has_a_monitor() -> None:
    """Web and worker pods are scraped on their admin port, which no Service has."""
    found = {
        monitor["metadata"]["name"]: (
            monitor["spec"]["selector"]["matchLabels"],
            [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]],
        )
        for monitor in monitors()
    }
    assert found == {
        f"tollwatch-{component}": (
            {"app.kubernetes.io/name": "tollwatch", "app.kubernetes.io/component": component},
            ["admin"],
        )
        for component in ("web", "worker")
    }
