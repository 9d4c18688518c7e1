"""A disk that is full while a real daemon makes and removes agents; and one that is read-only."""

import asyncio
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.errors import HiveError
from tests.conftest import need
from tests.faults.test_killed_at_steps import Core, gone, holds, nursery, received
from tests.support.hive import eventually

__all__ = ["nursery"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

DETACH = 2
SIZE = b"size=24m"


class Disk:
    """Twenty-four MiB, with a hive on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self) -> bool:
        return bool(self._libc.mount(b"tmpfs", os.fsencode(self.place), b"tmpfs", 0, SIZE) == 0)

    def read_only(self) -> None:
        flags = 32 | 1  # MS_REMOUNT, MS_RDONLY
        done = self._libc.mount(b"tmpfs", os.fsencode(self.place), b"tmpfs", flags, SIZE)
        assert done == 0, os.strerror(ctypes.get_errno())

    def unmount(self) -> None:
        self._libc.umount2(os.fsencode(self.place), DETACH)

    def fill(self, spare_bytes: int) -> None:
        """All but so much."""
        with (self.place / "filled").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        filled = (self.place / "filled").stat().st_size
        os.truncate(self.place / "filled", max(0, filled - spare_bytes))

    def free(self) -> None:
        (self.place / "filled").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need(os.geteuid() == 0, "mounting a small disk needs root")
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    need(disk.mount(), "this machine does not let root mount")
    yield disk
    disk.unmount()


@pytest.fixture
def core(disk: Disk, nursery: subprocess.Popen[bytes]) -> Iterator[Core]:
    log = disk.place.parent / "core.log"  # not on the disk that is full
    log.touch()
    (disk.place / "hive.log").symlink_to(log)
    core = Core(disk.place / "hive", nursery)
    yield core
    core.kill_all()


async def names(core: Core) -> list[str]:
    return [agent.name for agent in (await core.call(wire.ListAgents())).agents]


async def stands(core: Core, name: str) -> bool:
    agents = (await core.call(wire.ListAgents())).agents
    return any(a.name == name and a.state is wire.AgentState.RUNNING for a in agents)


async def tried(core: Core, request: wire.Request) -> bool:  # type: ignore[type-arg]
    """Whether it was done; a refusal has words."""
    try:
        await core.call(request)
    except HiveError as error:
        assert error.message
        return False
    return True


@pytest.mark.parametrize("spare_kib", [0, 64, 512])
async def test_a_spawn_on_a_full_disk_is_finished_once_there_is_room(
    core: Core, disk: Disk, spare_kib: int
) -> None:
    await core.start()
    await core.call(wire.Spawn(name="alice"))
    kept = (await core.call(wire.Send(to="alice", body="dear"))).ids
    disk.fill(spare_kib * 1024)
    done = await tried(core, wire.Spawn(name="bob"))
    disk.free()
    if not done and "bob" not in await names(core):
        # What was begun goes on by itself, and whoever asks again waits for that; else it begins now.
        async with asyncio.timeout(60):
            await tried(core, wire.Spawn(name="bob"))
    await eventually(lambda: stands(core, "bob"), "bob stands", every_seconds=0.1)
    assert [message.id for message in await received(core)] == kept
    await core.call(wire.Send(to="bob", body="hello"))
    await eventually(lambda: holds(core), "the invariants hold", every_seconds=0.1)


async def test_a_removal_on_a_full_disk_keeps_the_state(core: Core, disk: Disk) -> None:
    await core.start()
    await core.call(wire.Spawn(name="alice"))
    (core.paths.state("alice") / "notes.md").write_text("dear")
    kept = (await core.call(wire.Send(to="alice", body="waits"))).ids
    disk.fill(0)
    await tried(core, wire.Destroy(name="alice"))
    disk.free()
    if "alice" in await names(core):
        await core.call(wire.Destroy(name="alice"))
    assert (core.paths.state("alice") / "notes.md").read_text() == "dear"
    await core.call(wire.Spawn(name="alice"))
    assert [message.id for message in await received(core)] == kept
    await eventually(lambda: holds(core), "the invariants hold", every_seconds=0.1)


async def test_a_daemon_on_a_read_only_disk_says_so_and_changes_nothing(core: Core, disk: Disk) -> None:
    await core.start()
    await core.call(wire.Spawn(name="alice"))
    core.kill_all()
    await gone(core.pid)
    disk.read_only()
    command = [sys.executable, "-m", "hive_core.cli", "--root", str(core.root)]
    served = await asyncio.to_thread(subprocess.run, [*command, "serve"], capture_output=True, timeout=90)
    assert served.returncode not in (0, None)
    assert b"ead-only" in served.stderr
    assert str(core.root).encode() in served.stderr
    assert b"Traceback" not in served.stderr
    target = core.root / "backup"
    made = await asyncio.to_thread(subprocess.run, [*command, "backup", str(target)], capture_output=True)
    assert made.returncode != 0
    assert b"ead-only" in made.stderr
    assert b"Traceback" not in made.stderr
