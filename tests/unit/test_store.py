"""The store: group commit, durability, errors that name what to do, migrations."""

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, func, insert, select

from hive_core.store import Store, schema
from hive_core.store.migrate import MIGRATIONS
from hive_shared.errors import Conflict, NotAvailable, Unavailable
from tests.support.core_parts import before_commits, fill_the_disk, free_the_disk

HOSTS = select(schema.host.c.name).order_by(schema.host.c.name)


def add_host(name: str):  # type: ignore[no-untyped-def]
    def work(connection: Connection) -> str:
        connection.execute(insert(schema.host), {"name": name, "first_seen_at_ms": 1})
        return name

    return work


async def hosts(store: Store) -> list[str]:
    return await store.read(lambda connection: list(connection.execute(HOSTS).scalars()))


async def test_what_was_written_is_there_after_closing_and_opening_again(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    await store.write(add_host("one"))
    await store.close()

    store = await Store.open(f"sqlite:///{tmp_path}/broker.sqlite")
    assert await hosts(store) == ["one"]
    await store.close()


async def test_concurrent_writes_share_commits(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    commits: list[None] = []
    with before_commits(lambda: commits.append(None)):
        await asyncio.gather(*(store.write(add_host(f"h{number}")) for number in range(200)))

    assert len(await hosts(store)) == 200
    assert 1 <= len(commits) < 100
    await store.close()


async def test_it_is_told_how_each_write_ended_whoever_still_waits(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    told: list[str] = []

    def refuse(connection: Connection) -> str:
        raise Conflict("not today")

    def submit(work):  # type: ignore[no-untyped-def]
        return store.submit(work, committed=told.append, settled=lambda: told.append("settled"))

    kept, refused, given_up = submit(add_host("one")), submit(refuse), submit(add_host("two"))
    given_up.cancel()
    assert await kept == "one"
    with pytest.raises(Conflict):
        await refused
    assert told == ["one", "settled", "settled", "two", "settled"]
    assert await hosts(store) == ["one", "two"]
    await store.close()


async def test_patient_work_shares_the_commit_of_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.store.engine.PATIENCE_SECONDS", 3600.0)  # it ends with the next one
    store = await Store.open(tmp_path / "broker.sqlite")
    commits: list[int] = []
    with before_commits(lambda: commits.append(1)):
        patient = [store.submit(add_host(f"patient-{number}"), patient=True) for number in range(2)]
        await asyncio.sleep(0.05)  # time enough to be committed, were they not patient
        assert not any(each.done() for each in patient)
        await store.write(add_host("next"))
        await asyncio.gather(*patient)
    assert len(commits) == 1
    assert await hosts(store) == ["next", "patient-0", "patient-1"]
    await store.close()


async def test_patient_work_that_nobody_follows_is_committed_by_itself(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    assert await store.write(add_host("alone"), patient=True) == "alone"
    closing = store.submit(add_host("at the end"), patient=True)
    await store.close()
    assert await closing == "at the end"


async def test_a_failing_work_undoes_itself_and_nobody_else(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")

    def refuse(connection: Connection) -> None:
        add_host("half-done")(connection)
        raise Conflict("no")

    results = await asyncio.gather(
        store.write(add_host("before")),
        store.write(refuse),
        store.write(add_host("after")),
        return_exceptions=True,
    )

    assert isinstance(results[1], Conflict)
    assert await hosts(store) == ["after", "before"]
    await store.close()


async def test_a_work_that_breaks_a_rule_of_the_database_gets_that_error(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    await store.write(add_host("one"))
    with pytest.raises(Exception, match="UNIQUE"):
        await store.write(add_host("one"))
    await store.close()


async def test_committed_callbacks_run_in_commit_order_even_when_nobody_waits(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    order: list[str] = []
    writes = [
        asyncio.create_task(store.write(add_host(f"h{number:02}"), committed=order.append))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    await store.write(add_host("last"), committed=order.append)

    assert order == [f"h{number:02}" for number in range(20)] + ["last"]
    assert await hosts(store) == order
    await store.close()


async def test_a_callback_that_raises_harms_nobody(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")

    def broken(_: str) -> None:
        raise RuntimeError("a bug in a cache")

    first, second = await asyncio.gather(
        store.write(add_host("one"), committed=broken), store.write(add_host("two"))
    )
    assert (first, second) == ("one", "two")
    await store.close()


async def test_synchronous_is_full_when_any_write_of_the_batch_is_durable(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")

    def level(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    assert await store.write(level, durable=False) == 1
    assert await store.write(level, durable=True) == 2
    both = await asyncio.gather(store.write(level, durable=False), store.write(level, durable=True))
    assert both[1] == 2
    await store.close()


async def test_a_read_sees_one_state_and_cannot_write(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")
    loop = asyncio.get_running_loop()

    def count_twice(connection: Connection) -> tuple[int, int]:
        count = select(func.count()).select_from(schema.host)
        before = connection.execute(count).scalar_one()
        asyncio.run_coroutine_threadsafe(store.write(add_host("meanwhile")), loop).result(timeout=30)
        return before, connection.execute(count).scalar_one()

    assert await store.read(count_twice) == (0, 0)
    assert await hosts(store) == ["meanwhile"]
    with pytest.raises(Unavailable, match="readonly"):
        await store.read(add_host("never"))
    await store.close()


async def test_a_full_disk_refuses_writes_clearly_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    store = await Store.open(path)
    await store.write(add_host("accepted"))
    await fill_the_disk(store)
    told: list[str] = []
    large = "x" * 100_000

    results = await asyncio.gather(
        *(store.write(add_host(f"{number}{large}"), committed=told.append) for number in range(5)),
        return_exceptions=True,
    )

    for refused in results:
        assert isinstance(refused, Unavailable)
        assert str(path) in refused.message
        assert "full" in refused.message
    assert told == []
    assert await hosts(store) == ["accepted"]
    await free_the_disk(store)
    await store.write(add_host("later"))
    assert await hosts(store) == ["accepted", "later"]
    await store.close()


@pytest.mark.parametrize("others", [0, 3])
async def test_a_failing_commit_fails_every_waiter_of_its_batch(tmp_path: Path, others: int) -> None:
    """SQLite leaves a transaction open whose COMMIT it refuses, here because of a foreign key."""
    store = await Store.open(tmp_path / "broker.sqlite")

    def refused_at_the_end(connection: Connection) -> str:
        add_host("lost")(connection)
        for statement in (
            "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
            "CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
            "INSERT INTO child VALUES (7)",
        ):
            connection.exec_driver_sql(statement)
        return "lost"

    told: list[str] = []
    works = [refused_at_the_end, *(add_host(f"lost-{number}") for number in range(others))]
    begun, all_wait = threading.Event(), threading.Event()  # so that they are one batch
    first = store.submit(lambda connection: begun.set() or all_wait.wait(30))
    assert await asyncio.to_thread(begun.wait, 30)
    results = [store.submit(work, committed=told.append) for work in works]
    all_wait.set()
    assert await first

    for refused in await asyncio.gather(*results, return_exceptions=True):
        assert isinstance(refused, Unavailable)
        assert "FOREIGN KEY" in refused.message
    assert told == []
    assert await hosts(store) == []
    assert await store.write(add_host("kept"), committed=told.append) == "kept"
    assert await hosts(store) == told == ["kept"]
    await store.close()


async def test_a_transaction_that_sqlite_ended_by_itself_loses_the_whole_batch_and_says_so(
    tmp_path: Path,
) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")

    def broken(connection: Connection) -> None:
        connection.connection.driver_connection.execute("ROLLBACK")  # type: ignore[union-attr]
        raise sqlite3.OperationalError("database or disk is full")

    results = await asyncio.gather(
        store.write(add_host("one")),
        store.write(broken),
        store.write(add_host("two")),
        return_exceptions=True,
    )

    told_stored = [result for result in results if isinstance(result, str)]
    assert await hosts(store) == sorted(told_stored)
    assert isinstance(results[1], Unavailable)
    assert await store.write(add_host("three")) == "three"
    await store.close()


async def test_a_database_that_another_program_locks_is_unavailable_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.store.engine.BUSY_SECONDS", 0.05)
    path = tmp_path / "broker.sqlite"
    store = await Store.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Unavailable, match="locked"):
        await store.write(add_host("one"))
    assert await hosts(store) == []

    other.execute("ROLLBACK")
    other.close()
    assert await store.write(add_host("one")) == "one"
    await store.close()


async def test_closing_commits_what_was_queued_and_refuses_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    store = await Store.open(path)
    queued = [store.submit(add_host(f"h{number}")) for number in range(50)]
    await store.close()
    await store.close()

    assert len(await asyncio.gather(*queued)) == 50
    with pytest.raises(Unavailable, match="closed"):
        await store.write(add_host("late"))
    with pytest.raises(Unavailable, match="closed"):
        await hosts(store)


async def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "broker.sqlite"
    store = await Store.open(path)
    await store.write(add_host("one"))

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["broker.sqlite", "broker.sqlite-shm", "broker.sqlite-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()


async def test_the_database_runs_in_wal_mode_with_foreign_keys(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "broker.sqlite")

    def pragmas(connection: Connection) -> tuple[object, object]:
        return tuple(
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys")
        )  # type: ignore[return-value]

    assert await store.write(pragmas) == ("wal", 1)
    assert await store.read(pragmas) == ("wal", 1)
    await store.close()


# --- what cannot be opened ----------------------------------------------------


async def refusal(path: Path) -> str:
    with pytest.raises(Unavailable) as caught:
        await Store.open(path)
    assert str(path) in caught.value.message
    return caught.value.message


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    path.write_bytes(b"this is a letter, not a database. " * 100)

    assert "not a database" in await refusal(path)
    assert path.read_bytes().startswith(b"this is a letter")


async def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE song (title TEXT)")

    assert "not hyperhive's" in await refusal(path)


async def test_a_database_of_a_newer_hyperhive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    await (await Store.open(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9042'")

    message = await refusal(path)
    assert "newer" in message
    assert "9042" in message


async def test_a_database_that_lacks_a_table_or_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    await (await Store.open(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE question DROP COLUMN multi")
    assert "question lacks multi" in await refusal(path)

    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE message")
    assert "table message lacks" in await refusal(path)


async def test_a_database_with_overwritten_pages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    await (await Store.open(path)).close()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(bytes(content))

    assert "move it away" in await refusal(path)


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib").write_text("a file where a directory should be")
    assert "cannot be opened" in await refusal(tmp_path / "lib" / "broker.sqlite")


async def test_other_databases_are_not_available_yet() -> None:
    with pytest.raises(NotAvailable, match="postgresql"):
        await Store.open("postgresql://hive@localhost/hive")


# --- migrations ---------------------------------------------------------------


async def test_migrating_from_empty_gives_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    await (await Store.open(path)).close()

    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == schema.HEAD_REVISION


async def test_the_migrated_tables_have_the_same_indexes_and_ids_as_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    await (await Store.open(path)).close()
    created = create_engine("sqlite://")
    schema.metadata.create_all(created)

    def indexes(connection: Connection) -> set[tuple[str, str]]:
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql > ''"
        )
        return {(name, " ".join(sql.split()).replace('"', "")) for name, sql in rows}

    def autoincrement(connection: Connection) -> set[str]:
        rows = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
        return set(rows.scalars())

    with create_engine(f"sqlite:///{path}").connect() as migrated, created.connect() as wanted:
        assert indexes(migrated) == indexes(wanted)
        assert autoincrement(migrated) == autoincrement(wanted)
        assert "message" in autoincrement(migrated)


def test_the_newest_migration_is_the_one_that_the_schema_names() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.HEAD_REVISION


async def test_a_migration_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broker.sqlite"

    def fail(*_: object) -> None:
        raise Unavailable(f"{path}: the power went")

    monkeypatch.setattr("hive_core.store.migrate._check_tables", fail)
    with pytest.raises(Unavailable):
        await Store.open(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)

    monkeypatch.undo()
    store = await Store.open(path)
    assert await hosts(store) == []
    await store.close()


async def test_every_table_but_the_list_of_hosts_names_the_host() -> None:
    assert [name for name, table in schema.metadata.tables.items() if "host" not in table.c] == ["host"]
