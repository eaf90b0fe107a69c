"""Runs a command of the image as Kubernetes and compose would be told to: hardened, by runc.

A user who is not root, a root that nobody can write to, no capabilities, no way to new ones,
containerd's and Docker's kind of system call filter, and the command as process 1.
"""

import itertools
import os
import platform
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.image.tools import WORK, Failed, run
from tests.world.processes import Process, Server, wait_until

_STATE: Final = WORK / "runc"
_BUNDLES: Final = WORK / "bundles"
_FILTER: Final = Path("/usr/share/containers/seccomp.json")
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}
_NAMESPACES: Final = ("pid", "ipc", "uts", "mount")
_MASKED: Final = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or directory of this machine inside the container."""

    source: Path
    destination: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container runs with; by default on this machine's network, with nothing writable."""

    user: int = 10_001
    group: int = 10_001
    memory_bytes: int | None = None
    mounts: Sequence[Mount] = ()
    temporary: Sequence[str] = ()
    """Directories in memory."""
    network: str | None = None
    """`own` for a network of its own, or the path of one that is there."""


class Container(Server):
    """One process of the image. Its environment is what is given here, and nothing else."""

    def __init__(
        self,
        name: str,
        root: Path,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        cwd: str = "/app",
        limits: Limits | None = None,
        url: str = "",
        admin_url: str = "",
    ) -> None:
        self.id = f"{name.replace(' ', '-')}-{os.getpid()}-{next(_numbers)}"
        self._bundle = _BUNDLES / self.id
        self._root = root
        self._inside = (list(command), dict(environ), cwd, limits or Limits())
        pid_file = self._bundle / "pid"
        arguments: list[str | Path] = [
            "run",
            "--bundle",
            self._bundle,
            "--pid-file",
            pid_file,
            self.id,
        ]
        whole: list[str | Path] = ["runc", "--root", _STATE, *arguments]
        super().__init__(name, whole, {}, url=url, admin_url=admin_url)

    def start(self) -> None:
        """Start it; it may be started again after its end."""
        self._bundle.mkdir(parents=True, exist_ok=True)
        (self._bundle / "pid").unlink(missing_ok=True)
        specification = describe(self._root, *self._inside)
        (self._bundle / "config.json").write_bytes(msgspec.json.encode(specification))
        super().start()

    @property
    def inner_pid(self) -> int:
        """The command's process id, as this machine counts."""
        path = self._bundle / "pid"

        def read() -> str:
            if not self.is_running:
                raise self.failure("before its process was there")
            return path.read_text() if path.exists() else ""

        return int(wait_until(read, description=f"the process id of {self.name}"))

    @property
    def network(self) -> str:
        """For the limits of another container that is to share its network."""
        return f"/proc/{self.inner_pid}/ns/net"

    def execute(self, command: Sequence[str]) -> int:
        """Run one more command inside, as a probe is; its exit code."""
        probe = Process(f"{self.name} probe", ["runc", "--root", _STATE, "exec", self.id, *command])
        probe.start()
        return probe.wait()

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the command itself, as a container runtime does."""
        os.kill(self.inner_pid, number)

    def cpu_seconds(self) -> float:
        """What the command has had of a processor so far."""
        fields = Path(f"/proc/{self.inner_pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / os.sysconf("SC_CLK_TCK")

    def status(self) -> dict[str, str]:
        """What the kernel says of the command: `/proc/PID/status`."""
        lines = Path(f"/proc/{self.inner_pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def describe(
    root: Path, command: list[str], environ: dict[str, str], cwd: str, limits: Limits
) -> dict[str, Any]:
    """The OCI runtime specification of a hardened container."""
    nothing: dict[str, list[str]] = {
        kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    namespaces: list[dict[str, str]] = [{"type": kind} for kind in _NAMESPACES]
    if limits.network:
        path = {} if limits.network == "own" else {"path": limits.network}
        namespaces.append({"type": "network", **path})
    memory = {"limit": limits.memory_bytes} if limits.memory_bytes else {}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": limits.user, "gid": limits.group},
            "args": command,
            "env": [f"{name}={value}" for name, value in environ.items()],
            "cwd": cwd,
            "capabilities": nothing,
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "container",
        "mounts": [*_system_mounts(), *_own_mounts(limits)],
        "linux": {
            "namespaces": namespaces,
            "resources": {"memory": memory},
            "seccomp": system_call_filter(),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def system_call_filter() -> dict[str, Any]:
    """The filter of Debian's container tools, for a process without capabilities.

    In the file rules may depend on capabilities and machines; the runtime wants them resolved.
    """
    machine, architectures = _ARCHITECTURES[platform.machine()]
    given: Any = msgspec.json.decode(_FILTER.read_bytes())
    rules = []
    for rule in given["syscalls"]:
        includes = rule.get("includes") or {}
        if includes.get("caps") or machine not in includes.get("arches", [machine]):
            continue
        kept = {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
        rules.append(kept)
    return {
        "defaultAction": given["defaultAction"],
        "defaultErrnoRet": given["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": rules,
    }


def remove_all() -> None:
    """End what a test run that was killed has left behind."""
    if _STATE.exists():
        for id in run("runc", "--root", _STATE, "list", "--quiet").split():
            run("runc", "--root", _STATE, "delete", "--force", id)
    shutil.rmtree(_BUNDLES, ignore_errors=True)


def _system_mounts() -> list[dict[str, Any]]:
    guarded = ["nosuid", "noexec", "nodev"]
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    return [
        _mount("/proc", "proc", "proc", guarded),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", terminals),
        _mount("/dev/shm", "tmpfs", "shm", [*guarded, "mode=1777", "size=65536k"]),  # noqa: S108
        _mount("/sys", "sysfs", "sysfs", [*guarded, "ro"]),
    ]


def _own_mounts(limits: Limits) -> list[dict[str, Any]]:
    owner = [f"uid={limits.user}", f"gid={limits.group}"]
    mounts = [_mount(path, "tmpfs", "tmpfs", ["nosuid", *owner]) for path in limits.temporary]
    for given in limits.mounts:
        if not given.source.exists():
            raise Failed(f"{given.source} cannot be mounted: it is not there")
        options = ["rbind", "rw" if given.writable else "ro"]
        mounts.append(_mount(given.destination, "bind", str(given.source), options))
    return mounts


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
