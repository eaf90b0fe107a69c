"""Settings: every fault at once, each with its variable's name, none with its value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.connect import BadRedisUrl, check_redis_url, read_sentinel_url
from service.settings import Settings, SettingsError, WebSettings, WorkerSettings, variables

PUBLIC_KEY = "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU="
WEB = {"TELNYX_PUBLIC_KEY": PUBLIC_KEY}
WORKER = {"TELNYX_API_KEY": "KEY0123"}


def faults(settings: type[Settings], environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings.load(environ)
    return caught.value.faults


def test_the_defaults_are_the_documented_ones() -> None:
    """With only what is required, everything else has its documented default."""
    web, worker = WebSettings.load(WEB), WorkerSettings.load(WORKER)
    assert (web.port, web.admin_port, worker.admin_port) == (8080, 9090, 9091)
    assert (web.tolerance_seconds, web.max_body_bytes) == (300, 1_048_576)
    assert (worker.ages, worker.concurrency) == ((90, 300, 1800, 10800), 50)
    assert worker.reconcile_minutes == 30
    assert worker.api_url == "https://api.telnyx.com/v2"
    assert worker.slack_url is None
    assert web.redis_url.get_secret_value() == "redis://localhost:6379/0"


def test_each_process_reads_only_its_own_secrets() -> None:
    """The web process has no API key and no Slack URL, the worker no public key."""
    both = WEB | WORKER | {"SLACK_WEBHOOK_URL": "https://hooks.slack.test/x"}
    web, worker = WebSettings.load(both), WorkerSettings.load(both)
    assert not {"api_key", "slack_url"} & set(type(web).model_fields)
    assert "public_keys" not in type(worker).model_fields


def test_all_faults_are_named_at_once() -> None:
    """Every bad or missing variable has a line of its own."""
    environ = {
        "TELNYX_PUBLIC_KEY": "short",
        "REDIS_URL": "http://x",
        "TOLLWATCH_PORT": "http",
        "TOLLWATCH_MAX_BODY_BYTES": "-1",
        "TOLLWATCH_LOG_LEVEL": "loud",
    }
    lines = faults(WebSettings, environ)
    assert sorted(line.partition(":")[0] for line in lines) == sorted(environ)
    assert faults(WebSettings, {}) == ("TELNYX_PUBLIC_KEY: required, but not set",)


def test_no_fault_repeats_a_value() -> None:
    """What somebody typed into a secret is not printed back."""
    secret = "hunter2-hunter2"
    environ = dict.fromkeys(["REDIS_URL", "TELNYX_API_KEY", "SLACK_WEBHOOK_URL"], f"{secret} \x00é")
    environ |= {"TOLLWATCH_FETCH_AFTER_SECONDS": secret, "TOLLWATCH_MAX_SESSION_COST": secret}
    text = "\n".join(faults(WorkerSettings, environ))
    assert text.count("\n") == 4
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "ages", ["90,90", "300,90", "0,5", "-1", "1.5", "a", "90,,300", ",", "9" * 30, "1,999999999"]
)
def test_ages_must_be_positive_and_ascending(ages: str) -> None:
    """Anything but positive, strictly ascending whole seconds is a fault."""
    (line,) = faults(WorkerSettings, WORKER | {"TOLLWATCH_FETCH_AFTER_SECONDS": ages})
    assert line.startswith("TOLLWATCH_FETCH_AFTER_SECONDS: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TOLLWATCH_RECHECK_AFTER_SECONDS": "10800"}, "greater than 10800"),
        ({"TOLLWATCH_FETCH_AFTER_SECONDS": "60,86400"}, "greater than 86400"),
        (
            {"TOLLWATCH_RETENTION_DAYS": "2", "TOLLWATCH_RECHECK_AFTER_SECONDS": "172801"},
            "at most 172800",
        ),
        ({"TOLLWATCH_RECHECK_AFTER_SECONDS": "-1"}, "greater than or equal to 0"),
        ({"TOLLWATCH_RECHECK_AFTER_SECONDS": "1d"}, "valid integer"),
    ],
)
def test_the_last_look_comes_after_the_ages(changes: dict[str, str], words: str) -> None:
    """Also the default has to fit the ages and the retention; the variable is named."""
    (line,) = faults(WorkerSettings, WORKER | changes)
    assert line.startswith("TOLLWATCH_RECHECK_AFTER_SECONDS: ")
    assert words in line


def test_the_last_look_may_be_turned_off() -> None:
    """0 turns it off, whatever the ages; unset it is a day."""
    ages = {"TOLLWATCH_FETCH_AFTER_SECONDS": "60,604800"}
    off = WorkerSettings.load(WORKER | ages | {"TOLLWATCH_RECHECK_AFTER_SECONDS": "0"})
    assert off.recheck_after_seconds == 0
    assert WorkerSettings.load(WORKER).recheck_after_seconds == 86_400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOLLWATCH_ALERT_COOLDOWN_SECONDS", "-1"),
        ("TOLLWATCH_ALERT_COOLDOWN_SECONDS", "1h"),
        ("TOLLWATCH_ALERT_BURST", "0"),
        ("TOLLWATCH_ALERT_BURST", "1001"),
        ("TOLLWATCH_ALERTS_PER_HOUR", "0"),
        ("TOLLWATCH_ALERTS_PER_HOUR", "2.5"),
        ("TOLLWATCH_ALERTS_PER_HOUR", "3601"),
    ],
)
def test_a_cap_on_alerts_that_is_none_is_refused(name: str, value: str) -> None:
    """A cap of nothing would hide everything, one without bound would be none."""
    (line,) = faults(WorkerSettings, WORKER | {name: value})
    assert line.startswith(f"{name}: ")


def test_a_cool_down_may_be_turned_off() -> None:
    """0 seconds turn it off; unset it is an hour, with bursts of twenty and thirty an hour."""
    off = WorkerSettings.load(WORKER | {"TOLLWATCH_ALERT_COOLDOWN_SECONDS": "0"})
    assert off.alert_cooldown_seconds == 0
    usual = WorkerSettings.load(WORKER)
    assert (usual.alert_cooldown_seconds, usual.alert_burst, usual.alerts_per_hour) == (
        3600,
        20,
        30,
    )


@given(ages=st.lists(st.integers(1, 600_000), min_size=1, unique=True).map(sorted))
def test_any_ascending_ages_are_read(ages: list[int]) -> None:
    """Ascending ages are read as they stand, spaces or not."""
    environ = WORKER | {
        "TOLLWATCH_FETCH_AFTER_SECONDS": " , ".join(map(str, ages)),
        "TOLLWATCH_RECHECK_AFTER_SECONDS": "0",
    }
    assert WorkerSettings.load(environ).ages == tuple(ages)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    """NAME_FILE is read, without the line break that editors leave at the end."""
    path = tmp_path / "key"
    path.write_text("KEY-from-file\n")
    loaded = WorkerSettings.load({"TELNYX_API_KEY_FILE": str(path)})
    assert loaded.api_key.get_secret_value() == "KEY-from-file"


def test_a_bad_secret_file_is_one_fault_that_names_it(tmp_path: Path) -> None:
    """A file that is missing, or named beside the variable itself, is said once."""
    lines = faults(WorkerSettings, {"TELNYX_API_KEY_FILE": str(tmp_path / "none")})
    assert lines == ("TELNYX_API_KEY_FILE: cannot read the file: No such file or directory",)
    both = WORKER | {"TELNYX_API_KEY_FILE": "x"}
    (line,) = faults(WorkerSettings, both)
    assert "set too" in line


def test_an_empty_value_counts_as_unset() -> None:
    """A variable set to nothing has its default, and a required one is missing."""
    assert WebSettings.load(WEB | {"TOLLWATCH_PORT": " "}).port == 8080
    assert faults(WebSettings, {"TELNYX_PUBLIC_KEY": ""}) == faults(WebSettings, {})


def test_secrets_are_not_in_the_repr() -> None:
    """Printing the settings prints no secret."""
    environ = WORKER | {"REDIS_URL": "redis://:hunter2@h", "SLACK_WEBHOOK_URL": "https://h/hunter2"}
    shown = repr(WorkerSettings.load(environ))
    assert "hunter2" not in shown
    assert "KEY0123" not in shown


GOOD_URLS = [
    "redis://h",
    "redis://user:p%40ss@h:6380/3",
    "rediss://h:6379/0?ssl_cert_reqs=none",
    "unix:///run/redis.sock",
    "redis+sentinel://a:1,b:2/0?master=m",
    "rediss+sentinel://u:p@a/1?master=m&sentinel_password=x",
]
BAD_URLS = [
    "",
    "h:6379",
    "http://h",
    "redis://",
    "redis://h:port",
    "redis://h:99999999",
    "unix://",
    "redis+sentinel://a:1/0",
    "redis+sentinel:///0?master=m",
    "redis+sentinel://a:x/0?master=m",
    "redis+sentinel://a/b?master=m",
    "redis+sentinel://a/0?master=m&typo=1",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_good_redis_urls_are_accepted(url: str) -> None:
    """Each documented form is accepted."""
    check_redis_url(url)


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_redis_urls_are_said(url: str) -> None:
    """A URL of which no connection can be made is refused."""
    with pytest.raises(BadRedisUrl):
        check_redis_url(url)


def test_a_sentinel_url_is_read_whole() -> None:
    """Hosts, ports, master, database and unquoted credentials come out of a Sentinel URL."""
    url = read_sentinel_url("rediss+sentinel://u:p%40ss@a:1,[::1]:2,c/4?master=main")
    assert url.sentinels == (("a", 1), ("::1", 2), ("c", 26379))
    assert (url.master, url.db, url.tls) == ("main", 4, True)
    assert (url.username, url.password) == ("u", "p@ss")


def test_every_variable_has_a_description() -> None:
    """The README's table can be made of the code: each variable says what it does."""
    rows = variables()
    assert len({row.name for row in rows}) == len(rows) > 15
    assert all(row.description and (row.web or row.worker) for row in rows)
