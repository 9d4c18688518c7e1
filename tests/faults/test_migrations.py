"""Up from every schema that was released, with a copy first; down only by going back to that copy."""

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from hive_core.store import Store, schema
from hive_core.store.migrate import MIGRATIONS, copy_before
from hive_shared.errors import Unavailable
from tests.support.core_parts import running

REVISIONS = sorted(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())
FORMER = [revision for revision in REVISIONS if revision != schema.HEAD_REVISION]


def made_by(path: Path, revision: str) -> None:
    """A database as the hyperhive of that migration left it, with an agent and messages to it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.exec_driver_sql("INSERT INTO host VALUES ('local', 1)")
        connection.exec_driver_sql(
            "INSERT INTO agent (name, host, role, port, kept, wanted, created_at_ms)"
            " VALUES ('bob', 'local', 'agent', 8101, 0, 'running', 1)"
        )
        for number in (1, 2, 3):
            connection.exec_driver_sql(
                "INSERT INTO message (host, sender, recipient, body, sent_at_ms, broadcast, deliveries,"
                " acked_at_ms, lease) VALUES ('local', 'alice', 'bob', ?, 5, 0, 0, ?, ?)",
                (f"body {number}", 9 if number == 2 else None, "local/c9" if number == 1 else None),
            )
    engine.dispose()


def revision_of(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.mark.parametrize("revision", FORMER)
async def test_every_former_database_is_brought_up_with_all_it_holds(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "b.sqlite"
    made_by(path, revision)
    async with running(path, agents=("bob",)) as parts:
        assert [(m.id, m.body) for m in await parts.take("bob")] == [(1, "body 1"), (3, "body 3")]
        assert await parts.send("bob") == 4
    assert revision_of(path) == schema.HEAD_REVISION


@pytest.mark.parametrize("revision", FORMER)
async def test_the_copy_from_before_is_whole_private_and_made_once(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "b.sqlite"
    made_by(path, revision)
    await (await Store.open(path)).close()
    copy = copy_before(path, revision)
    assert revision_of(copy) == revision
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT count(*) FROM message").fetchone() == (3,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = copy.stat().st_mtime_ns
    await (await Store.open(path)).close()
    assert copy.stat().st_mtime_ns == kept
    copy.rename(path)  # this is the way back
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert revision_of(path) == revision


async def test_a_new_database_and_one_of_today_leave_no_copy(tmp_path: Path) -> None:
    for _ in range(2):
        await (await Store.open(tmp_path / "b.sqlite")).close()
    assert [name for name in os.listdir(tmp_path) if "before" in name] == []


async def test_the_newest_two_copies_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    made_by(path, FORMER[0])
    older = [copy_before(path, revision) for revision in ("9003", "9002", "9001")]
    for age, copy in enumerate(older, start=1):  # the highest number is not the newest
        copy.write_bytes(b"a copy")
        os.utime(copy, ns=(0, age))
    other = path.with_name("other.sqlite.before-migration-of-0001")
    other.write_bytes(b"of another database")
    await (await Store.open(path)).close()
    kept = sorted(name for name in os.listdir(tmp_path) if name.startswith("b.sqlite.before"))
    assert kept == sorted([copy_before(path, FORMER[0]).name, older[-1].name])
    assert other.exists()


async def test_without_room_for_the_copy_nothing_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.sqlite"
    made_by(path, FORMER[0])

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hive_core.store.migrate._sync", full)
    with pytest.raises(Unavailable, match="No space left"):
        await Store.open(path)
    assert revision_of(path) == FORMER[0]
    assert [name for name in os.listdir(tmp_path) if "before" in name or "copying" in name] == []
    monkeypatch.undo()
    await (await Store.open(path)).close()
    assert revision_of(path) == schema.HEAD_REVISION


async def test_what_a_killed_copy_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    made_by(path, FORMER[-1])
    (tmp_path / "b.sqlite.copying").write_bytes(b"half a copy")
    await (await Store.open(path)).close()
    assert revision_of(copy_before(path, FORMER[-1])) == FORMER[-1]
    assert not (tmp_path / "b.sqlite.copying").exists()


async def test_a_downgrade_is_refused_and_says_where_to_go(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    await (await Store.open(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(Unavailable) as refused:
        await Store.open(path)
    assert "newer hyperhive (migration 9999" in refused.value.message
    assert "before-migration-of-" in refused.value.message
    assert path.read_bytes() == before
    assert [name for name in os.listdir(tmp_path) if "before" in name] == []
