"""What /proc says of a process and of those it started: memory, descriptors, threads, who is a zombie."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessFacts:
    """One process, as it was when looked at."""

    pid: int
    command: tuple[str, ...]
    zombie: bool

    @property
    def is_harness(self) -> bool:
        """An agent's harness itself, not the sandbox's processes that were told to start it."""
        runs = self.command[:4]
        return (
            bool(runs) and "python" in Path(runs[0]).name and any("hive_agent" in word for word in runs[1:])
        )


def descendants(pid: int) -> list[ProcessFacts]:
    """Everything that `pid` started, and that those started; without itself."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children[parent].append(int(entry.name))
    found, todo = [], list(children[pid])
    while todo:
        each = todo.pop()
        todo += children[each]
        if (facts := _facts(each)) is not None:
            found.append(facts)
    return found


def memory_mb(pid: int) -> tuple[float, float]:
    """(RSS, PSS) in MB of 2**20 bytes; zeros for a process that has gone."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    rss, pss = (re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE) for name in ("Rss", "Pss"))
    if rss is None or pss is None:
        return 0.0, 0.0
    return round(int(rss[1]) / 1024, 1), round(int(pss[1]) / 1024, 1)


def descriptors(pid: int) -> int:
    """How many file descriptors it holds; 0 for a process that has gone."""
    try:
        return len(os.listdir(_PROC / str(pid) / "fd"))
    except OSError:
        return 0


def threads(pid: int) -> int:
    try:
        return len(os.listdir(_PROC / str(pid) / "task"))
    except OSError:
        return 0


def _stat(pid: int) -> list[str] | None:
    """The fields after the name, which may hold anything: state, parent, …"""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def _facts(pid: int) -> ProcessFacts | None:
    fields = _stat(pid)
    if fields is None:
        return None
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        command = []
    return ProcessFacts(pid, tuple(command), fields[0] == "Z")
