"""The starter of processes and of Valkey, on toy processes: what tests and `make demo` rely on."""

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.world import local
from tests.world.processes import (
    Process,
    ProcessFailed,
    Server,
    clean_environ,
    free_port,
    wait_until,
    wait_until_async,
    web,
    worker,
)
from tests.world.valkey import Sentinel, Valkey

_READY = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    answers = iter([503, 200])
    def do_GET(self):
        self.send_response(next(self.answers))
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_SLEEP = "import time; print('up'); time.sleep(60)"


def _python(code: str, *arguments: str, **environ: str) -> Process:
    return Process("toy", [sys.executable, "-c", code, *arguments], environ)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed process whose parent is gone stays in the table until its new parent looks.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


def _ask(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(4096).decode()


class TestProcess:
    """Any command, started and watched."""

    def test_collects_both_outputs_in_order_and_the_exit_code(self) -> None:
        """Stdout and stderr come as one list of lines, complete once the end was waited for."""
        code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
        process = _python(code)
        process.start()
        assert process.wait() == 3
        assert process.lines == ["out", "err"]

    def test_reads_json_log_lines(self) -> None:
        """Log lines are read as fields, all else is left out."""
        lines = ['{"event": "up", "n": 1}', "not json", "{broken", "[1]"]
        process = _python(f"for line in {lines!r}: print(line)")
        process.start()
        process.wait()
        assert process.events == [{"event": "up", "n": 1}]

    def test_tells_each_line(self) -> None:
        """`on_line` gets every line as it comes."""
        told: list[str] = []
        command = [sys.executable, "-c", "print(1); print(2)"]
        with Process("toy", command, on_line=told.append) as process:
            process.wait()
        assert told == ["1", "2"]

    def test_passes_on_nothing_but_what_was_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A setting in the developer's shell does not reach the process; coverage's do."""
        monkeypatch.setenv("TOLLWATCH_POLICY", "mine.yaml")
        monkeypatch.setenv("COVERAGE_PROCESS_START", "some.toml")
        environ = clean_environ({"REDIS_URL": "redis://elsewhere"})
        assert "TOLLWATCH_POLICY" not in environ
        assert environ["COVERAGE_PROCESS_START"] == "some.toml"
        assert environ["REDIS_URL"] == "redis://elsewhere"

    def test_waits_until_it_is_ready(self) -> None:
        """A 503 is not ready, a 200 is."""
        port = free_port()
        with _python(_READY, str(port)) as process:
            process.wait_ready(f"http://127.0.0.1:{port}/readyz")
            assert process.is_running

    def test_says_why_it_ended_before_it_was_ready(self) -> None:
        """A process that dies early is reported at once, with its exit code and last lines."""
        process = _python("import sys; sys.exit('TELNYX_API_KEY: missing')")
        with process, pytest.raises(ProcessFailed) as caught:
            process.wait_ready(f"http://127.0.0.1:{free_port()}/readyz")
        assert "exit code 1 before it was ready" in str(caught.value)
        assert "TELNYX_API_KEY: missing" in str(caught.value)

    def test_says_what_it_got_instead_of_readiness(self) -> None:
        """One that never gets ready is reported with what it answered."""
        with _python(_SLEEP) as process, pytest.raises(ProcessFailed, match="ConnectError"):
            process.wait_ready("http://127.0.0.1:1/readyz", timeout_seconds=0.05)

    def test_terminates_gently(self) -> None:
        """SIGTERM comes first, so that the process can clean up."""
        code = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit('cleaned up'))\n"
            "print('up', flush=True); time.sleep(60)"
        )
        with _python(code) as process:
            wait_until(lambda: process.lines, description="its first line")
            assert process.terminate() == 1
        assert process.lines[-1] == "cleaned up"

    def test_kills_what_does_not_want_to_end(self) -> None:
        """A process that ignores SIGTERM, or is stopped, is gone all the same."""
        code = (
            "import signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('up', flush=True); time.sleep(60)"
        )
        with _python(code) as process:
            wait_until(lambda: process.lines, description="its first line")
            process.send_signal(signal.SIGSTOP)
            assert process.terminate(timeout_seconds=0.05) == -signal.SIGKILL

    def test_starts_again(self) -> None:
        """After its end the same process can be started once more, but not while it runs."""
        with _python(_SLEEP) as process:
            first = process.pid
            with pytest.raises(ProcessFailed, match="runs already"):
                process.start()
            assert process.kill() == -signal.SIGKILL
            process.start()
            assert process.pid != first

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent")
    def test_does_not_outlive_us(self) -> None:
        """When we are killed without a chance to clean up, our children go as well."""
        parent = _python(
            "import sys, time\n"
            "from tests.world.processes import Process\n"
            "child = Process('child', [sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "child.start(); print(child.pid, flush=True); time.sleep(60)"
        )
        with parent:
            wait_until(lambda: parent.lines, description="the child's pid")
            child = int(parent.lines[0])
            assert _is_alive(child)
            parent.kill()
            wait_until(lambda: not _is_alive(child), description="the child's end")


class TestServers:
    """Web and worker, told what the contract names."""

    def test_web_gets_what_the_contract_names_and_no_secret_of_the_worker(self) -> None:
        """The web process is told its key and its ports, and no Telnyx API key or Slack URL."""
        server = web(redis_url="redis://r", public_key="key", settings={"TOLLWATCH_HOST": "::1"})
        assert server.environ["TELNYX_PUBLIC_KEY"] == "key"
        assert server.environ["TOLLWATCH_HOST"] == "::1"
        assert server.url.endswith(server.environ["TOLLWATCH_PORT"])
        assert server.admin_url.endswith(server.environ["TOLLWATCH_ADMIN_PORT"])
        assert not {"TELNYX_API_KEY", "SLACK_WEBHOOK_URL"} & set(server.environ)

    def test_worker_gets_what_the_contract_names_and_no_public_key(self) -> None:
        """The worker is told where Telnyx and Slack are."""
        server: Server = worker(redis_url="redis://r", api_url="http://t", api_key="k")
        assert server.environ["TELNYX_API_URL"] == "http://t"
        assert server.environ["TELNYX_API_KEY"] == "k"
        assert server.environ["SLACK_WEBHOOK_URL"] == ""
        assert "TELNYX_PUBLIC_KEY" not in server.environ

    def test_ports_are_never_handed_out_twice(self) -> None:
        """Two servers that are about to start do not get the same port."""
        ports = [free_port() for _ in range(50)]
        assert len(set(ports)) == len(ports)


class TestWaitUntil:
    """Waiting without sleeping."""

    def test_returns_the_first_true_answer(self) -> None:
        """What the condition found is handed on."""
        answers = iter([0, "", "there"])
        assert wait_until(lambda: next(answers), description="an answer") == "there"

    def test_names_what_did_not_happen(self) -> None:
        """The error says in words what was waited for."""
        with pytest.raises(TimeoutError, match="not within 0 s: a miracle"):
            wait_until(lambda: False, description="a miracle", timeout_seconds=0)

    def test_takes_coroutines_in_its_asynchronous_form(self) -> None:
        """The condition may be a function or a coroutine function."""

        async def answer() -> str:
            return "there"

        async def both() -> tuple[str, str]:
            plain = await wait_until_async(lambda: "here", description="a value")
            return plain, await wait_until_async(answer, description="a coroutine")

        assert asyncio.run(both()) == ("here", "there")


class TestValkey:
    """A real server, broken on purpose."""

    def test_keeps_nothing_without_a_directory_and_leaves_nothing(self) -> None:
        """By default it is a scratch server whose files go with it."""
        with Valkey() as valkey:
            directory = _ask(valkey.port, "CONFIG GET dir").split("\r\n")[-2]
            assert _ask(valkey.port, "SET k v") == "+OK\r\n"
            assert "noeviction" in _ask(valkey.port, "CONFIG GET maxmemory-policy")
            valkey.restart()
            assert _ask(valkey.port, "GET k") == "$-1\r\n"
        assert not valkey.is_running
        assert not Path(directory).exists()

    def test_keeps_its_data_when_it_is_killed(self, tmp_path: Path) -> None:
        """With a data directory a kill loses nothing that was acknowledged; the port stays."""
        with Valkey(tmp_path) as valkey:
            _ask(valkey.port, "SET k v")
            url = valkey.url
            valkey.kill()
            assert not valkey.is_running
            valkey.start()
            assert valkey.url == url
            assert _ask(valkey.port, "GET k") == "$1\r\nv\r\n"
        with Valkey(tmp_path) as again:
            assert _ask(again.port, "GET k") == "$1\r\nv\r\n"

    def test_keeps_others_off_its_data(self, tmp_path: Path) -> None:
        """Two servers on one append-only file would destroy it."""
        with Valkey(tmp_path), pytest.raises(ProcessFailed, match="another server uses the data"):
            Valkey(tmp_path).start()

    def test_says_what_the_server_complains_of(self) -> None:
        """A server that refuses its options is reported with its own words."""
        with pytest.raises(ProcessFailed, match="Bad directive"):
            Valkey(options={"no-such-option": "1"}).start()

    def test_takes_the_port_that_it_is_told(self) -> None:
        """A port in use is an error where that very port was asked for."""
        with Valkey() as valkey, pytest.raises(ProcessFailed, match="already in use"):
            Valkey(port=valkey.port).start()

    def test_can_stop_answering(self) -> None:
        """A paused server accepts connections and says nothing, as a hung machine does."""
        with Valkey() as valkey:
            with valkey.paused(), socket.create_connection(("127.0.0.1", valkey.port)) as paused:
                paused.sendall(b"PING\r\n")
                paused.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    paused.recv(64)
            assert _ask(valkey.port, "PING") == "+PONG\r\n"

    def test_has_replicas_and_a_sentinel(self) -> None:
        """A replica is ready when it has everything; a sentinel makes it the master."""
        with Valkey(persistent=True) as master:
            master.obey("SET k v")
            with Valkey(replica_of=master) as replica, Sentinel(master) as sentinel:
                assert replica.ask("GET k") == b"$1\r\nv\r\n"
                assert sentinel.master_port == master.port
                wait_until(sentinel.knows_replica, description="a replica that could be the master")
                master.kill()
                wait_until(
                    lambda: sentinel.master_port == replica.port,
                    description="the failover",
                    timeout_seconds=30,
                )
                replica.obey("SET k w")
                sentinel.restart()
                assert sentinel.master_port == replica.port

    def test_says_what_is_refused(self) -> None:
        """A command that fails is an error, with the server's own words."""
        with Valkey() as valkey, pytest.raises(ProcessFailed, match="unknown command"):
            valkey.obey("NONSENSE")

    def test_a_lone_master_has_no_heir(self) -> None:
        """Without a replica a sentinel knows of none."""
        with Valkey() as master, Sentinel(master) as sentinel:
            assert not sentinel.knows_replica()


class TestLocal:
    """`make run`: settings from a file, and processes that live and end together."""

    def test_the_environment_goes_above_the_file(self, tmp_path: Path) -> None:
        """What is set for this run wins; what is set to nothing does not hide the file's value."""
        env_file = tmp_path / ".env"
        env_file.write_text("A=file\nB='file'  # why\nC=file\nD=\nexport E=file\n")
        environ = local.read_environ(env_file, {"A": "real", "B": "", "F": "real"})
        assert environ == {"A": "real", "B": "file", "C": "file", "E": "file", "F": "real"}

    def test_works_without_a_file(self, tmp_path: Path) -> None:
        """The environment alone will do."""
        assert local.read_environ(tmp_path / ".env", {"A": "real"}) == {"A": "real"}

    def test_a_secret_in_a_file_counts(self) -> None:
        """REDIS_URL_FILE is as good as REDIS_URL: no embedded server then."""
        assert local.has({"REDIS_URL_FILE": "/run/secrets/redis"}, "REDIS_URL")
        assert not local.has({"REDIS_URL": ""}, "REDIS_URL")

    def test_web_and_worker_do_not_want_the_same_port(self) -> None:
        """One TOLLWATCH_ADMIN_PORT is meant for one process; here there are two."""
        for_web, for_worker = local.settings_of_both({"TOLLWATCH_ADMIN_PORT": "7000"})
        assert for_web["TOLLWATCH_ADMIN_PORT"] == "7000"
        assert for_worker["TOLLWATCH_ADMIN_PORT"] == "7001"
        assert "TOLLWATCH_ADMIN_PORT" not in local.settings_of_both({})[1]

    def test_one_end_ends_all(self) -> None:
        """When one fails the other is stopped, and the failure's exit code is the answer."""
        lasting, failing = _python(_SLEEP), _python("import sys; sys.exit(3)")
        assert local.Group([lasting, failing]).run() == 3
        assert not lasting.is_running

    def test_an_early_end_is_a_failure(self) -> None:
        """A process that ends without an error has ended all the same."""
        assert local.Group([_python(_SLEEP), _python("pass")]).run() == 1

    def test_the_end_of_what_is_watched_ends_all(self) -> None:
        """A Redis that is gone leaves nothing to do; its signal is told as a shell tells it."""
        lasting, watched = _python(_SLEEP), _python(_SLEEP)
        watched.start()
        watched.kill()
        said: list[str] = []
        group = local.Group([lasting], watched=[watched], say=said.append)
        assert group.run() == 128 + signal.SIGKILL
        assert said == ["toy ended with exit code -9"]

    def test_all_may_say_what_they_miss(self) -> None:
        """Bad settings of one do not stop the other from naming its own."""
        code = "import sys, time; time.sleep(float(sys.argv[1])); print('missing'); sys.exit(2)"
        early, late = _python(code, "0"), _python(code, "0.2")
        assert local.Group([late, early]).run() == 2
        assert early.lines == late.lines == ["missing"]

    def test_asked_twice_it_stops_at_once(self) -> None:
        """A second Ctrl-C does not wait for anybody."""
        stubborn = _python(
            "import signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('up', flush=True); time.sleep(60)"
        )
        group = local.Group([stubborn])

        def stop_twice() -> None:
            wait_until(lambda: stubborn.lines, description="its first line")
            group.stop()
            group.stop()

        stopper = threading.Thread(target=stop_twice)
        stopper.start()
        assert group.run() == 128 + signal.SIGKILL
        stopper.join()
