"""What the alert rules and the dashboard name is there in running processes, from the start."""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping

import promql_parser as promql
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy import dashboard
from tests.deploy.monitoring import every_rule, grouped_by, monitors, recorded, selectors
from tests.flow.stage import Outside, Stage, open_stage

pytestmark = pytest.mark.anyio

# What Prometheus itself adds to what it scrapes of a pod.
_OF_THE_TARGET = {"namespace", "pod", "job"}
Exposed = Mapping[str, list[dict[str, str]]]
_RULES = [rule["expr"] for rule in every_rule()]


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """Processes that have been asked nothing yet: what they show they have declared."""
    async with open_stage(outside, ages="1") as stage:
        yield stage


@pytest.fixture(scope="module")
async def exposed(stage: Stage) -> Exposed:
    """The labels of all samples on both `/metrics`, by name."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for server in (stage.web, stage.worker):
        text = (await stage.client.get(f"{server.admin_url}/metrics")).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name].append(sample.labels)
    return found


@pytest.mark.parametrize("expression", [*_RULES, *dashboard.expressions()])
async def test_what_is_asked_for_is_there(exposed: Exposed, expression: str) -> None:
    """Each metric exists before anything has happened, with each value of a label asked for."""
    for name, matchers in selectors(expression):
        if name != "up" and name not in recorded():
            assert exposed.get(name), f"no process shows {name}"
            wanting = _wanting(exposed[name], matchers)
            assert not wanting, f"{name} has no {wanting}"


@pytest.mark.parametrize("expression", [*_RULES, *dashboard.expressions()])
async def test_what_is_grouped_by_is_a_label(exposed: Exposed, expression: str) -> None:
    """Each label that results are grouped by is one of a metric's, or of the scraped pod's."""
    labels = {
        label
        for name, _ in selectors(expression)
        for sample in exposed.get(name, [])
        for label in sample
    }
    assert grouped_by(expression) <= labels | _OF_THE_TARGET


async def test_jobs_that_rules_name_are_the_monitors() -> None:
    """Prometheus names a job by namespace and monitor: the rules' pattern fits each of them."""
    names = {f"tollwatch/{monitor['metadata']['name']}" for monitor in monitors()}
    patterns = {
        matchers["job"][1]
        for rule in _RULES
        for _, matchers in selectors(rule)
        if "job" in matchers
    }
    assert patterns
    assert all(re.fullmatch(pattern, name) for pattern in patterns for name in names)


async def test_readiness_is_a_metric_and_follows_redis(stage: Stage) -> None:
    """Each scrape asks Redis: 1 while it takes writes, 0 while it is away, without any probe."""
    servers = (stage.web, stage.worker)
    assert [await stage.metric(server, "tollwatch_ready") for server in servers] == [1, 1]
    stage.valkey.stop()
    try:
        away = [await stage.metric(server, "tollwatch_ready") for server in servers]
    finally:
        stage.valkey.start()
    assert away == [0, 0]


async def test_slacks_latency_is_measured(stage: Stage) -> None:
    """Each post to Slack leaves one measurement."""
    call = stage.past("dear_destination")
    await stage.hang_up(call)
    await stage.ended(call)
    await stage.told(call)
    assert await stage.metric(stage.worker, "tollwatch_post_seconds_count") == 1


def _wanting(
    samples: list[dict[str, str]], matchers: Mapping[str, tuple[promql.MatchOp, str]]
) -> list[str]:
    """The values that are asked for, but shown by no sample."""
    return [
        f"{label}={value}"
        for label, (_, values) in matchers.items()
        if label not in _OF_THE_TARGET
        for value in values.split("|")
        if not any(sample.get(label) == value for sample in samples)
    ]
