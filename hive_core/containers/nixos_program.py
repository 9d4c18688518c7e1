"""Calls of the program `nixos-container`, with what it needs and against what it gets wrong.

It builds with the link `./.tmp` in its working directory, whatever container it is for: two calls in one
directory can install each other's system. So each has a fresh one, and one container has one call at a time.
"""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from hive_core.containers.command import run

log = logging.getLogger(__name__)

FLAKE_ATTRIBUTE = "default"
DESTROY_SECONDS = 120.0

# Nothing is fetched or built while evaluating, unless a lock names it (SECURITY 8); no lock is written here.
NIX_OPTIONS = (
    "--log-format", "raw-with-logs",  # "raw" leaves out what builders print
    "--option", "extra-experimental-features", "nix-command flakes",
    "--option", "allow-import-from-derivation", "false",
    "--option", "accept-flake-config", "false",
)  # fmt: skip


class NixosContainer:
    """The program, bounded in how often it runs at the same time."""

    def __init__(self, program: str, work: Path, *, parallel: int, timeout_seconds: float) -> None:
        self._program = program
        self._work = work
        self._timeout_seconds = timeout_seconds
        self._room = asyncio.Semaphore(parallel)
        self._locks: dict[str, asyncio.Lock] = {}

    def prepare(self) -> None:
        """An empty place for working directories: a daemon that was killed left some."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(mode=0o700, parents=True)

    async def create(self, container: str, flake: str) -> None:
        await self._install("create", container, flake)

    async def update(self, container: str, flake: str) -> None:
        """Also of a running container, which then switches to it without a restart."""
        await self._install("update", container, flake)

    async def destroy(self, container: str) -> None:
        await self._call(container, ["destroy", container], DESTROY_SECONDS)

    def environment(self) -> Mapping[str, str]:
        """What nix needs: a cache of its own, and the daemon, which alone may write the store."""
        home = self._work / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        return {"HOME": str(home), "NIX_REMOTE": "daemon"}

    @contextlib.asynccontextmanager
    async def room(self) -> AsyncIterator[Path]:
        """A fresh working directory, once there is room for one more program that builds."""
        async with self._room:
            directory = Path(tempfile.mkdtemp(dir=self._work))
            try:
                yield directory
            finally:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _install(self, verb: str, container: str, flake: str) -> None:
        # The flake is named each time: the program forgets the attribute, and would look for another.
        arguments = [verb, container, "--flake", f"{flake}#{FLAKE_ATTRIBUTE}", "--no-write-lock-file"]
        await self._call(container, [*arguments, *NIX_OPTIONS], self._timeout_seconds)

    async def _call(self, container: str, arguments: list[str], timeout_seconds: float) -> None:
        lock = self._locks.setdefault(container, asyncio.Lock())
        async with lock, self.room() as directory:
            await run(
                [self._program, *arguments],
                timeout_seconds=timeout_seconds,
                environment=self.environment(),
                directory=directory,
            )
