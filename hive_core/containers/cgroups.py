"""Limits on memory, tasks and processor time of a container, where this machine lets us set them.

Two ways: a delegated cgroup v2 subtree (systemd's `Delegate=yes`), or the v1 hierarchies of memory, pids and
cpu. Groups are made below the one core itself runs in, so that limits on core hold for its agents too. Where
neither can be had, resource limits per process are what is left, and `words` says so.
"""

import contextlib
import errno
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hive_core.config import AgentLimits

log = logging.getLogger(__name__)

CPU_PERIOD_MICROSECONDS = 100_000
REMOVE_TRIES = 40
REMOVE_PAUSE_SECONDS = 0.025
_CONTROLLERS = ("memory", "pids", "cpu")


class NoCgroups(Exception):
    """Why limits cannot be set by cgroups here."""


class Limiter(Protocol):
    """Puts containers under limits."""

    words: str

    def prepare(self, container: str, limits: AgentLimits) -> list[Path]:
        """Make the container's groups; the `cgroup.procs` files its first process has to enter."""

    def rlimits(self, limits: AgentLimits) -> dict[str, int]:
        """Resource limits to set besides, by name without RLIMIT_."""

    def remove(self, container: str) -> None:
        """Kill what is left in the container's groups and remove them. May take a moment."""

    def out_of_memory(self, container: str) -> bool:
        """Whether the kernel killed something in it for want of memory."""

    def close(self) -> None:
        """Leave nothing behind; every container has ended."""


@dataclass(frozen=True)
class _Hierarchy:
    """One mounted hierarchy: where ours is, and which controllers act there."""

    base: Path
    controllers: frozenset[str]
    version: int

    def group(self, container: str) -> Path:
        return self.base / container


class CgroupLimiter:
    """Limits by cgroups."""

    def __init__(self, hierarchies: list[_Hierarchy], limits: AgentLimits) -> None:
        self._hierarchies = hierarchies
        self._controllers = frozenset().union(*(h.controllers for h in hierarchies))
        self.words = self._in_words(limits)
        for hierarchy in hierarchies:
            self._sweep(hierarchy)

    def prepare(self, container: str, limits: AgentLimits) -> list[Path]:
        entered = []
        for hierarchy in self._hierarchies:
            group = hierarchy.group(container)
            group.mkdir(exist_ok=True)
            _limit(hierarchy, group, limits)
            entered.append(group / "cgroup.procs")
        return entered

    def rlimits(self, limits: AgentLimits) -> dict[str, int]:
        return _always(limits)

    def remove(self, container: str) -> None:
        for hierarchy in self._hierarchies:
            _remove(hierarchy.group(container))

    def out_of_memory(self, container: str) -> bool:
        for hierarchy in self._hierarchies:
            name = "memory.events" if hierarchy.version == 2 else "memory.oom_control"
            for line in _lines(hierarchy.group(container) / name):
                key, _, value = line.partition(" ")
                if key == "oom_kill" and value != "0":
                    return True
        return False

    def close(self) -> None:
        for hierarchy in self._hierarchies:
            _remove(hierarchy.base)

    def _sweep(self, hierarchy: _Hierarchy) -> None:
        """Groups of a daemon that was killed: the lock says it is gone, and so are its containers."""
        for group in hierarchy.base.iterdir():
            if group.is_dir():
                _remove(group)

    def _in_words(self, limits: AgentLimits) -> str:
        said = []
        if "memory" in self._controllers:
            said.append(f"memory {limits.memory_max_bytes / 2**30:g} GiB")
        if "pids" in self._controllers:
            said.append(f"{limits.tasks_max} tasks")
        if "cpu" in self._controllers and limits.cpu_quota_percent:
            said.append(f"{limits.cpu_quota_percent} % of a core")
        version = self._hierarchies[0].version
        missing = {"memory", "pids"} - self._controllers
        gap = f"; not limited: {', '.join(sorted(missing))}" if missing else ""
        return f"{', '.join(said)} (cgroup v{version}){gap}"


class ProcessLimiter:
    """Limits by resource limits: each process for itself, never a container as a whole."""

    def __init__(self, limits: AgentLimits, why: str) -> None:
        self.words = (
            f"memory {limits.memory_max_bytes / 2**30:g} GiB for each process, not for the container; "
            f"tasks not limited ({why})"
        )

    def prepare(self, container: str, limits: AgentLimits) -> list[Path]:
        return []

    def rlimits(self, limits: AgentLimits) -> dict[str, int]:
        # Not address space: a JavaScript engine reserves far more of it than it ever uses.
        return _always(limits) | {"DATA": limits.memory_max_bytes}

    def remove(self, container: str) -> None:
        return None

    def out_of_memory(self, container: str) -> bool:
        return False

    def close(self) -> None:
        return None


def find_limiter(state_root: Path, limits: AgentLimits) -> Limiter:
    """The best way to limit containers of the hive at `state_root` on this machine, tried for real."""
    label = "hyperhive-" + hashlib.sha256(os.fsencode(state_root)).hexdigest()[:10]
    reasons = []
    ways: list[Callable[[str, AgentLimits], list[_Hierarchy]]] = [_version_2, _version_1]
    for way in ways:
        try:
            return CgroupLimiter(way(label, limits), limits)
        except NoCgroups as error:
            reasons.append(str(error))
    log.debug("no cgroups: %s", "; ".join(reasons))
    return ProcessLimiter(limits, "no cgroup here that core may divide")


# --- version 2 --------------------------------------------------------------


def _version_2(label: str, limits: AgentLimits) -> list[_Hierarchy]:
    mount = next((m for m in _mounts() if m.kind == "cgroup2"), None)
    if mount is None:
        raise NoCgroups("no cgroup v2")
    own = mount.directory(_own_path(""))
    controllers = {"memory", "pids", "cpu"} & set(_words(own / "cgroup.controllers"))
    if not {"memory", "pids"} & controllers:
        raise NoCgroups("cgroup v2 has no memory or pids controller here")
    try:
        _delegate(own, controllers)
        return [_tried(_Hierarchy(own / label, frozenset(controllers), 2), limits, delegate=controllers)]
    except OSError as error:
        raise NoCgroups(f"cgroup v2: {own}: {error.strerror}") from None


def _delegate(own: Path, wanted: set[str]) -> None:
    """Hand controllers down. A group with processes of its own cannot: core moves to a leaf first."""
    if wanted <= set(_words(own / "cgroup.subtree_control")):
        return
    others = [pid for pid in _words(own / "cgroup.procs") if int(pid) != os.getpid()]
    if (own / "cgroup.type").exists():  # the root of the hierarchy has none, and may keep its processes
        if others:
            raise NoCgroups("cgroup v2: core's group is not its own; run it as a service with Delegate=yes")
        leaf = own / "core"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
    (own / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))


# --- version 1 --------------------------------------------------------------


def _version_1(label: str, limits: AgentLimits) -> list[_Hierarchy]:
    mounts = [m for m in _mounts() if m.kind == "cgroup"]
    found: dict[Path, set[str]] = {}
    for controller in _CONTROLLERS:
        mount = next((m for m in mounts if controller in m.options), None)
        if mount is not None:
            base = mount.directory(_own_path(controller)) / label
            found.setdefault(base, set()).add(controller)
    hierarchies = []
    reasons = []
    for base, controllers in found.items():
        try:
            hierarchies.append(_tried(_Hierarchy(base, frozenset(controllers), 1), limits))
        except OSError as error:
            reasons.append(f"cgroup v1 {'+'.join(sorted(controllers))}: {error.strerror}")
    if not {"memory", "pids"} & {c for h in hierarchies for c in h.controllers}:
        raise NoCgroups("; ".join(reasons) or "no cgroup v1")
    return hierarchies


# --- both -------------------------------------------------------------------


def _tried(hierarchy: _Hierarchy, limits: AgentLimits, delegate: set[str] | None = None) -> _Hierarchy:
    """Make our group and one container's in it, as a trial; raises `OSError`."""
    hierarchy.base.mkdir(exist_ok=True)
    if delegate:
        (hierarchy.base / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(delegate)))
    trial = hierarchy.group("trial")
    trial.mkdir(exist_ok=True)
    try:
        _limit(hierarchy, trial, limits)
    finally:
        trial.rmdir()
    return hierarchy


def _limit(hierarchy: _Hierarchy, group: Path, limits: AgentLimits) -> None:
    write = _write_2 if hierarchy.version == 2 else _write_1
    for controller in hierarchy.controllers:
        write(controller, group, limits)


def _write_2(controller: str, group: Path, limits: AgentLimits) -> None:
    if controller == "memory":
        (group / "memory.max").write_text(str(limits.memory_max_bytes))
        with contextlib.suppress(OSError):  # a kernel without swap accounting
            (group / "memory.swap.max").write_text("0")
    elif controller == "pids":
        (group / "pids.max").write_text(str(limits.tasks_max))
    elif limits.cpu_quota_percent:
        quota = limits.cpu_quota_percent * CPU_PERIOD_MICROSECONDS // 100
        (group / "cpu.max").write_text(f"{quota} {CPU_PERIOD_MICROSECONDS}")


def _write_1(controller: str, group: Path, limits: AgentLimits) -> None:
    if controller == "memory":
        # The sum with swap must never be below memory alone: lift it, set memory, then set it.
        swap = group / "memory.memsw.limit_in_bytes"
        with contextlib.suppress(OSError):
            swap.write_text("-1")
        (group / "memory.limit_in_bytes").write_text(str(limits.memory_max_bytes))
        with contextlib.suppress(OSError):  # a kernel without swap accounting
            swap.write_text(str(limits.memory_max_bytes))
    elif controller == "pids":
        (group / "pids.max").write_text(str(limits.tasks_max))
    elif limits.cpu_quota_percent:
        (group / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_MICROSECONDS))
        quota = limits.cpu_quota_percent * CPU_PERIOD_MICROSECONDS // 100
        (group / "cpu.cfs_quota_us").write_text(str(quota))


def _remove(group: Path) -> None:
    """Kill every process in it, then remove it; the kernel needs a moment between the two."""
    for _ in range(REMOVE_TRIES):
        for pid in _words(group / "cgroup.procs"):
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                log.warning("cgroup %s stays: %s", group, error.strerror)
                return
            time.sleep(REMOVE_PAUSE_SECONDS)
        else:
            return
    log.warning("cgroup %s stays: its processes do not end", group)


@dataclass(frozen=True)
class _Mount:
    root: str
    point: Path
    kind: str
    options: frozenset[str]

    def directory(self, own: str) -> Path:
        """Where group `own` is seen through this mount, which may show only a part of the hierarchy."""
        if own.startswith(self.root.rstrip("/") + "/") or own == self.root:
            own = own[len(self.root.rstrip("/")) :]
        return self.point / own.lstrip("/")


def _mounts() -> list[_Mount]:
    mounts = []
    for line in _lines(Path("/proc/self/mountinfo")):
        before, _, after = line.partition(" - ")
        place, source = before.split(), after.split()
        if len(place) > 4 and len(source) > 2 and source[0].startswith("cgroup"):
            mounts.append(_Mount(place[3], Path(place[4]), source[0], frozenset(source[2].split(","))))
    return mounts


def _own_path(controller: str) -> str:
    """The group we are in, of a v1 controller, or of v2 for an empty name."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return "/"


def _always(limits: AgentLimits) -> dict[str, int]:
    return {"NOFILE": limits.open_files, "CORE": 0}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
