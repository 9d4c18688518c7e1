"""Builds of configurations: bounded in number, time and what they print (SPEC section 6).

A build happens in a directory of core's own and touches no container. Its log is kept by the approval's
number: its beginning on disk as it grows, its end once it has ended.
"""

import asyncio
import json
import logging
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast

from hive_core.containers.base import BuildFailed, ContainerRuntime, System
from hive_core.feed import Feed
from hive_core.operations import OperationKind, operation
from hive_core.terminal_text import clean_line
from hive_core.untrusted import delete_tree, write_file
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths
from hive_shared.redact import LineRedactor

log = logging.getLogger(__name__)

LOG_MAX_BYTES: Final = 2**20  # of one build: half for its beginning, half for its end
LINE_MAX_CHARACTERS: Final = 4000
FOLLOW_BATCH_LINES: Final = 500
FEED_EVERY_SECONDS: Final = 0.25
FEED_MAX_LINES: Final = 200  # of one event
LOGS_KEPT: Final = 500
TOLD_LINES: Final = 15  # of a failed build's log, to the manager

_LOG_NAME: Final = re.compile(r"[0-9]+\.log")


class Trees(Protocol):
    """Where the files of a commit come from."""

    async def export(self, agent: str, sha: str, directory: Path) -> None: ...


class BuildLog:
    """What one build prints. `line` may be called from any thread, all else from the loop."""

    def __init__(
        self, path: Path | None = None, publish: Callable[[int, list[str]], None] | None = None
    ) -> None:
        self._path = path
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._redactor = LineRedactor()
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_bytes = 0
        self._tail_bytes = 0
        self._left_out = 0
        self._count = 0  # of all lines there ever were
        self._fed = 0  # lines that the feed has
        self._feed_due: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._broken = False
        self._begun = False
        self.ended = False

    def line(self, text: str) -> None:
        """Add what was printed: one line, or several."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._take(text)
        else:
            self._loop.call_soon_threadsafe(self._take, text)

    def note(self, text: str) -> None:
        """A line of core itself."""
        self._take(f"--- {text}")

    def lines(self) -> list[str]:
        """Everything that is kept, oldest first."""
        return [*self._head, *self._middle(), *self._tail]

    def last(self, lines: int) -> list[str]:
        return self.lines()[-lines:]

    async def follow(self) -> AsyncIterator[str]:
        """Every line so far and every new one until the log ends; a slow reader is told what it missed."""
        given = 0
        while True:
            batch, given = self._since(given)
            for line in batch:
                yield line
            if batch:
                continue
            if self.ended:
                return
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        """No line comes any more: the end of a long log goes to the disk."""
        if self.ended:
            return
        self.ended = True
        self._feed_now()
        if self._tail:
            self._write("".join(f"{line}\n" for line in (*self._middle(), *self._tail)))
        self._changed.set()

    def _take(self, text: str) -> None:
        if self.ended:
            return
        for raw in text.splitlines() or [""]:
            line = self._redactor.clean_text(raw)
            self._add(clean_line(line.expandtabs(8)[:LINE_MAX_CHARACTERS]))
        self._changed.set()
        if self._publish is not None and self._feed_due is None:
            self._feed_due = self._loop.call_later(FEED_EVERY_SECONDS, self._feed_now)

    def _add(self, line: str) -> None:
        size = len(line.encode("utf-8", "replace")) + 1
        self._count += 1
        if not self._tail and self._head_bytes + size <= LOG_MAX_BYTES // 2:
            self._head.append(line)
            self._head_bytes += size
            self._write(f"{line}\n")
            return
        self._tail.append(line)
        self._tail_bytes += size
        while self._tail_bytes > LOG_MAX_BYTES // 2:
            self._tail_bytes -= len(self._tail.popleft().encode("utf-8", "replace")) + 1
            self._left_out += 1

    def _middle(self) -> list[str]:
        return [f"--- {self._left_out} lines are left out here"] if self._left_out else []

    def _since(self, given: int) -> tuple[list[str], int]:
        """Some lines after the first `given` ones, and how many are given then."""
        if given < len(self._head):
            batch = self._head[given : given + FOLLOW_BATCH_LINES]
            return batch, given + len(batch)
        first = self._count - len(self._tail)
        missed = max(0, first - given)
        start = max(given, first) - first
        batch = [
            self._tail[index] for index in range(start, min(start + FOLLOW_BATCH_LINES, len(self._tail)))
        ]
        told = [f"--- {missed} lines came too fast to be shown"] if missed else []
        return [*told, *batch], first + start + len(batch)

    def _feed_now(self) -> None:
        """The beginning of a log goes to the feed; what is beyond, a page asks for when it has ended."""
        if self._feed_due is not None:
            self._feed_due.cancel()
            self._feed_due = None
        lines = self._head[self._fed :]
        if self._publish is None or not lines:
            return
        # A page that is told of later lines than it knows asks for all of them.
        first = self._fed + max(0, len(lines) - FEED_MAX_LINES)
        self._fed += len(lines)
        self._publish(first, lines[-FEED_MAX_LINES:])

    def _write(self, text: str) -> None:
        """The first line replaces the log of an earlier try. A full disk costs the log, never the build."""
        if self._path is None or self._broken:
            return
        try:
            with self._path.open("a" if self._begun else "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            self._begun = True
        except OSError as error:
            self._broken = True
            log.error("build log %s: %s; the rest of it is lost", self._path, error.strerror)


class Builds:
    """Runs builds, a few at a time, and keeps their logs and what they gave until that is in place."""

    def __init__(
        self,
        paths: HostPaths,
        runtime: ContainerRuntime,
        trees: Trees,
        feed: Feed,
        *,
        parallel: int,
        timeout_seconds: float,
    ) -> None:
        self._paths = paths
        self._runtime = runtime
        self._trees = trees
        self._feed = feed
        self._room = asyncio.Semaphore(parallel)
        self._timeout_seconds = timeout_seconds
        self._logs: dict[int, BuildLog] = {}

    def prepare(self) -> None:
        """At start: the directory, without the logs of long ago."""
        self._paths.builds.mkdir(mode=0o700, parents=True, exist_ok=True)
        logs = [path for path in self._paths.builds.iterdir() if _LOG_NAME.fullmatch(path.name)]
        for path in sorted(logs, key=lambda path: int(path.stem[:18]))[:-LOGS_KEPT]:
            path.unlink(missing_ok=True)

    def sweep(self, unfinished: Collection[str]) -> None:
        """At start: what a crash left of work that nobody takes up again."""
        for place in self._paths.builds.iterdir():
            if place.suffix != ".log" and place.name not in unfinished:
                self.forget(place.name)

    async def build(self, agent: str, sha: str, build_log: BuildLog, work: str) -> System:
        """What building `agent`'s commit `sha` gives; raises `BuildFailed`, or what reading the commit does.

        `work` names the directory: an approval's number, or what else is alone in building it.
        """
        if self._room.locked():
            build_log.note("other builds are under way; this one waits for its turn")
        async with self._room:
            build_log.note(f"building {sha[:12]} for {agent}")
            tree = self._place(work) / "tree"
            await asyncio.to_thread(delete_tree, tree)
            tree.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._trees.export(agent, sha, tree)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    with operation(OperationKind.BUILD, "configuration", agent=agent, commit=sha[:12]):
                        system = await self._runtime.build(agent, tree, build_log.line)
            except TimeoutError:
                raise BuildFailed(
                    f"the build took longer than {self._timeout_seconds:g} seconds, the limit that "
                    "build_timeout_seconds sets"
                ) from None
            finally:
                await asyncio.to_thread(delete_tree, tree)
            build_log.note("built")
            return system

    # --- what a build gave, until it is in place ------------------------------

    def keep(self, work: str, what: str, value: Mapping[str, Any]) -> None:
        """Remember a target beyond a crash."""
        place = self._place(work)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(place, f"{what}.json", json.dumps(value).encode())

    def kept(self, work: str, what: str) -> dict[str, Any] | None:
        """What was remembered, None if nothing was."""
        path = self._place(work) / f"{what}.json"
        try:
            return cast(dict[str, Any], json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except ValueError:
            raise HiveError(f"{path} is damaged") from None

    def forget(self, work: str) -> None:
        for what in delete_tree(self._place(work)):
            log.warning("not deleted: %s", what)

    def _place(self, work: str) -> Path:
        return self._paths.builds / work

    # --- logs -----------------------------------------------------------------

    def log_of(self, approval_id: int) -> BuildLog:
        """The live log of an approval that is not resolved; it begins with the first who asks."""
        present = self._logs.get(approval_id)
        if present is None:

            def publish(first: int, lines: list[str]) -> None:
                data: Mapping[str, Any] = {"approval_id": approval_id, "first": first, "lines": lines}
                self._feed.publish("build_log", dict(data))

            present = self._logs[approval_id] = BuildLog(self._paths.build_log(approval_id), publish)
        return present

    def end_log(self, approval_id: int) -> None:
        ended = self._logs.pop(approval_id, None)
        if ended is not None:
            ended.end()

    def close(self) -> None:
        """End every live log: the daemon stops."""
        for approval_id in list(self._logs):
            self.end_log(approval_id)

    def read_log(self, approval_id: int) -> list[str]:
        """The lines there are, from memory while it is built and else from the disk; [] if there are none."""
        live = self._logs.get(approval_id)
        if live is not None:
            return live.lines()
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self._paths.build_log(approval_id), flags), "rb") as file:
                text = file.read(2 * LOG_MAX_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [clean_line(line) for line in text.split("\n")[:-1]]
