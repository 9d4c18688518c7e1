"""The disk under the broker's database: power cuts, full, read-only, damaged. What was answered is kept."""

import contextlib
import ctypes
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from hive_core.doctor import Verdict
from hive_core.invariants import examine
from hive_core.store import Store
from hive_core.store.engine import _Reading
from hive_shared.errors import HiveError, Unavailable
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support.core_parts import ALICE, Parts, build, running

SECTOR = 512
PAGE = 4096
WAL_HEADER = 32


# --- power cuts -----------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """The files as they are once all that was answered is on the disk, and what was answered."""

    database: bytes
    wal: bytes
    accepted: dict[int, str]
    acked: frozenset[int]


def moment(path: Path, accepted: dict[int, str], acked: set[int]) -> Moment:
    wal = path.with_name(path.name + "-wal")
    return Moment(path.read_bytes(), wal.read_bytes(), dict(accepted), frozenset(acked))


def mixed(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """Sectors that were to be written: each has, or has not; they were written in any order."""
    length = rng.choice([len(new), len(new), rng.randrange(len(old), len(new) + 1)])
    sectors = []
    for start in range(0, length, SECTOR):
        before, after = old[start : start + SECTOR], new[start : start + SECTOR]
        # What was never written is whatever the disk had there.
        never = before if start < len(old) else rng.choice([bytes(len(after)), rng.randbytes(len(after))])
        sectors.append(after if rng.random() < 0.7 else never.ljust(len(after), b"\0"))
    return b"".join(sectors)[:length]


def cut(before: Moment, after: Moment, rng: random.Random) -> tuple[bytes, bytes]:
    """(database, log) after a power cut somewhere between the two.

    A checkpoint waits for the log before it writes the database, and for the database before it begins the
    log anew: so where the database is being written, the log is all there.
    """
    begun_anew = before.wal[:WAL_HEADER] != after.wal[:WAL_HEADER]
    if begun_anew:
        return after.database, mixed(before.wal, after.wal.ljust(len(before.wal), b"\0"), rng)
    if before.database != after.database:
        return mixed(before.database, after.database, rng), after.wal
    return before.database, mixed(before.wal, after.wal, rng)


def in_database(path: Path) -> tuple[dict[int, str], set[int], str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT id, body, acked_at_ms FROM message").fetchall()
        found = database.execute("PRAGMA integrity_check").fetchone()[0]
    return {row[0]: row[1] for row in rows}, {row[0] for row in rows if row[2] is not None}, found


async def some_work(parts: Parts, rng: random.Random, accepted: dict[int, str], acked: set[int]) -> None:
    """Sends, turns, acks; the last of it is durable, and so is all before."""
    for _ in range(rng.randrange(1, 6)):
        body = rng.choice("abc") * rng.choice([5, 500, 9000])
        accepted[await parts.send("bob", body, ALICE)] = body
        if rng.random() < 0.6:
            ids = [message.id for message in await parts.take("bob", 2)]
            await parts.broker.ack("bob", ids)
            acked |= set(ids)
    if rng.random() < 0.3:
        await parts.store.write(lambda connection: None)
        with contextlib.closing(sqlite3.connect(parts.store.path)) as other:
            other.execute(f"PRAGMA wal_checkpoint({rng.choice(['PASSIVE', 'RESTART'])})").fetchall()
    body = "the last"
    accepted[await parts.send("bob", body, ALICE)] = body


async def everything(parts: Parts) -> list[int]:
    """The ids of all that bob can be given."""
    ids: list[int] = []
    while messages := await parts.take("bob", 100):
        ids += [message.id for message in messages]
    return ids


@pytest.mark.parametrize("seed", range(4))
async def test_a_power_cut_at_any_moment_loses_nothing_that_was_answered(tmp_path: Path, seed: int) -> None:
    rng, accepted, acked = random.Random(seed), {}, set()  # type: ignore[var-annotated]
    async with running(tmp_path / "b.sqlite") as parts:
        await some_work(parts, rng, accepted, acked)
        moments = [moment(parts.store.path, accepted, acked)]
        for _ in range(10):
            await some_work(parts, rng, accepted, acked)
            moments.append(moment(parts.store.path, accepted, acked))
    lost_something_unanswered = 0
    for number, (before, after) in enumerate(pairwise(moments)):
        for image in range(4):
            path = tmp_path / f"cut-{number}-{image}" / "b.sqlite"
            path.parent.mkdir()
            database, wal = cut(before, after, rng)
            path.write_bytes(database)
            path.with_name("b.sqlite-wal").write_bytes(wal)
            there, done, found = in_database(path)
            assert found == "ok"
            assert before.accepted.items() <= there.items() <= after.accepted.items()
            assert before.acked <= done <= after.acked
            lost_something_unanswered += there != after.accepted
            shutil.rmtree(path.parent)
    assert lost_something_unanswered, "no cut came in time to cost anything: this tested nothing"


async def test_after_a_power_cut_the_broker_delivers_what_was_not_acked_and_nothing_else(
    tmp_path: Path,
) -> None:
    rng, accepted, acked = random.Random(7), {}, set()  # type: ignore[var-annotated]
    async with running(tmp_path / "b.sqlite") as parts:
        for _ in range(5):
            await some_work(parts, rng, accepted, acked)
        await parts.take("bob", 1)  # in somebody's hand when the light goes out
        now = moment(parts.store.path, accepted, acked)
    path = tmp_path / "again" / "b.sqlite"
    path.parent.mkdir()
    path.write_bytes(now.database)
    path.with_name("b.sqlite-wal").write_bytes(now.wal)
    async with running(path) as parts:
        delivered = await everything(parts)
        assert delivered == sorted(set(now.accepted) - now.acked)
        number = await parts.send("bob")
        assert number not in now.accepted


# --- full, and read-only ----------------------------------------------------------


@dataclass
class Disk:
    """A disk of three MiB."""

    place: Path

    def read_only(self, yes: bool) -> None:
        flags = 32 | (1 if yes else 0)  # MS_REMOUNT, MS_RDONLY
        options = b"size=3m"
        done = ctypes.CDLL(None, use_errno=True).mount(
            b"tmpfs", os.fsencode(self.place), b"tmpfs", flags, options
        )
        assert done == 0, os.strerror(ctypes.get_errno())

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.place / "filled").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.place / "filled").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need(os.geteuid() == 0, "mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=3m")
    need(done == 0, "this machine does not let root mount")
    try:
        yield Disk(place)
    finally:
        libc.umount2(os.fsencode(place), 2)


async def test_a_full_disk_refuses_every_kind_of_write_and_costs_nothing_that_was_answered(
    disk: Disk,
) -> None:
    path = disk.place / "b.sqlite"
    parts = await build(path)
    accepted = [await parts.send("bob", "x" * 1000) for _ in range(20)]
    acked = [message.id for message in await parts.take("bob", 5)]
    await parts.broker.ack("bob", acked)
    disk.fill()
    refused = 0
    for _ in range(400):  # what the log still has room for goes in
        try:
            accepted.append(await parts.send("bob", "y" * 20_000))
        except Unavailable:
            refused += 1
            if refused == 3:
                break
    assert refused == 3
    for write in (
        lambda: parts.broker.notify("bob", "n" * 20_000),
        lambda: parts.registry.add("carol" * 4, "agent", 9999),
        lambda: parts.audit.record(ALICE, "send", "s", "ok", "d" * 20_000),
    ):
        with pytest.raises(HiveError):
            await write()
    assert parts.registry.get("carol" * 4) is None
    disk.free()
    accepted.append(await parts.send("bob", "goes on"))
    await parts.store.close()

    async with running(path) as again:
        delivered = await everything(again)
        assert delivered == sorted(set(accepted) - set(acked))
    assert in_database(path)[2] == "ok"


async def test_a_disk_that_turns_read_only_refuses_until_it_can_be_written(disk: Disk) -> None:
    path = disk.place / "b.sqlite"
    parts = await build(path)
    first = await parts.send("bob")
    await parts.store.close()
    disk.read_only(True)
    with pytest.raises(Unavailable) as refused:
        await Store.open(path)
    assert str(path) in refused.value.message
    assert "read-only" in refused.value.message.lower() or "readonly" in refused.value.message.lower()
    disk.read_only(False)
    async with running(path) as again:
        assert [message.id for message in await again.take("bob")] == [first]


# --- damaged ----------------------------------------------------------------------


def damage(path: Path, number: int, offset: int = 0, length: int = PAGE) -> None:
    """Overwrite a page, from its beginning or within."""
    with path.open("r+b") as file:
        file.seek(number * PAGE + offset)
        file.write(b"\x5a" * length)


async def with_history(path: Path) -> None:
    async with running(path) as parts:
        for _ in range(30):
            await parts.send("bob", "z" * 2000)


def page_of(path: Path, name: str) -> int:
    """The root page of a table or index, counted from 0."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        row = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return int(row[0]) - 1


@pytest.mark.parametrize("what", ["message", "approval", "ix_message_deliverable", "audit", "last page"])
async def test_a_damaged_page_is_found_at_the_start_and_refused_with_the_way_back(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "b.sqlite"
    await with_history(path)
    number = path.stat().st_size // PAGE - 1 if what == "last page" else page_of(path, what)
    damage(path, number)
    before = path.read_bytes()
    with pytest.raises(Unavailable) as refused:
        await Store.open(path)
    assert str(path) in refused.value.message
    assert "hive-c0re restore" in refused.value.message
    assert path.read_bytes() == before


async def test_what_is_damaged_while_the_daemon_runs_is_told_once_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    await with_history(path)
    async with running(path) as parts:
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        damage(path, page_of(path, "message"))
        parts.store._reading = _Reading(path)  # so that its cache has not what the file had
        with pytest.raises(Unavailable, match="malformed"):
            await parts.broker.recent(100)
        found = await parts.store.damaged
        assert "hive-c0re restore" in found.message


async def test_doctor_finds_a_damaged_page(tmp_path: Path) -> None:
    paths = HostPaths.under(tmp_path)
    await with_history(paths.database)
    assert not [f for f in examine(paths) if f.name == "database" and f.verdict is Verdict.BROKEN]
    damage(paths.database, page_of(paths.database, "audit"))
    (finding,) = [f for f in examine(paths) if f.name == "database"]
    assert finding.verdict is Verdict.BROKEN
    assert "hive-c0re restore" in finding.get
