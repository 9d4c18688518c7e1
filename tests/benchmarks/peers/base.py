"""What the benchmark asks of a queue: send durably, wait for a message, take a batch, acknowledge it."""

import asyncio
import os
import pwd
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

BATCH = 100
START_SECONDS = 30.0


class NotHere(Exception):
    """The peer's program or its Python client is not on this machine; says which, and where it comes from."""


class Producer(ABC):
    """One sender, with a connection of its own."""

    @abstractmethod
    async def send(self, body: str) -> None:
        """Returns when the message is as durable as the peer makes it."""

    @abstractmethod
    async def close(self) -> None: ...


class Consumer(ABC):
    """The one receiver."""

    @abstractmethod
    async def take(self) -> int:
        """Wait for messages, and take up to `BATCH`; how many. They are not acknowledged yet."""

    @abstractmethod
    async def ack(self) -> None:
        """What was taken is done with, durably."""

    @abstractmethod
    async def close(self) -> None: ...


class Peer(ABC):
    """A queue, in a process of its own where it is a server."""

    name: str
    durability: str  # of one accepted message, in words for the table

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    async def start(self) -> None:
        """Raises `NotHere`."""

    @abstractmethod
    async def producer(self) -> Producer: ...

    @abstractmethod
    async def consumer(self) -> Consumer: ...

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    async def _run(
        self,
        *command: str | Path,
        ready: Callable[[], bool],
        user: str | None = None,
        within: Path | None = None,
    ) -> None:
        """Start the server, and wait until `ready` says that it answers."""
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                cwd=within or self.directory,
            )
        async with asyncio.timeout(START_SECONDS):
            while not ready():
                if self._process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended: {(self.directory / 'log').read_text()[-800:]}")
                await asyncio.sleep(0.02)


def program(name: str, package: str, *, beside: Path | None = None) -> str:
    """Where `name` is; raises `NotHere`, which says where to get it."""
    found = shutil.which(name) or (shutil.which(name, path=str(beside)) if beside else None)
    if found is None:
        raise NotHere(f"{name} is not here (apt install {package})")
    return found


def unprivileged(directory: Path, name: str) -> str | None:
    """Whom a server that refuses root runs as, now the owner of `directory`; None when not root."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam(name)
    os.chown(directory, user.pw_uid, user.pw_gid)
    return name
