"""Statements that are compiled once say the same as those that SQLAlchemy executes."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, insert, literal_column, select

from hive_core.store import Store
from hive_core.store.prepared import Prepared
from hive_core.store.schema import audit as table
from hive_shared.errors import Unavailable

COLUMNS = [column.name for column in table.columns if column.name != "id"]
LATER = (
    select(table)
    .where(table.c.at_ms > bindparam("after"), table.c.outcome == "ok")
    .where(table.c.action.in_([literal_column("'send'"), literal_column("'approve'")]))
    .order_by(table.c.id.desc())
    .limit(bindparam("max"))
)


def entry(number: int) -> dict[str, object]:
    action = ("send", "approve", "deny")[number % 3]
    said = {"host": "local", "principal": "operator", "subject": "alice", "detail": "", "outcome": "ok"}
    return {**said, "action": action, "at_ms": number}


async def filled(tmp_path: Path) -> Store:
    store = await Store.open(tmp_path / "b.sqlite")
    adding = Prepared(insert(table), COLUMNS)

    def work(connection: Connection) -> None:
        for number in range(9):
            adding.run(connection, entry(number))

    await store.write(work)
    return store


async def test_its_rows_are_those_of_sqlalchemy(tmp_path: Path) -> None:
    store, query = await filled(tmp_path), Prepared(LATER)
    ours = await store.read(lambda connection: query.rows(connection, after=2, max=3))
    theirs = await store.read(lambda connection: connection.execute(LATER, {"after": 2, "max": 3}).all())
    assert [row._mapping for row in ours] == [row._mapping for row in theirs]
    assert [(row.at_ms, row.action) for row in ours] == [(7, "approve"), (6, "send"), (4, "approve")]
    await store.close()


async def test_a_value_that_is_missing_is_named(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    with pytest.raises(KeyError, match="after"):
        await store.read(lambda connection: Prepared(LATER).rows(connection, max=3))
    await store.close()


async def test_what_it_began_by_itself_ends_with_the_read(tmp_path: Path) -> None:
    """The thread keeps its connection: a transaction left open would show the past to the next one."""
    store, query = await filled(tmp_path), Prepared(LATER)
    for number in range(20, 26, 3):
        await store.write(lambda connection, n=number: connection.execute(insert(table), entry(n - 1)))
        newest = await store.read(lambda connection: query.rows(connection, after=0, max=1))
        assert newest[0].at_ms == number - 1
    await store.close()


async def test_a_read_after_one_that_failed_has_a_new_connection(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    seen: list[object] = []

    def fail(connection: Connection) -> None:
        seen.append(connection)
        connection.exec_driver_sql("SELECT 1 FROM nowhere")

    def count(connection: Connection) -> int:
        return len(Prepared(select(table)).rows(connection))

    for _ in range(4):  # both threads meet it
        with pytest.raises(Unavailable, match="no such table"):
            await store.read(fail)
        assert await store.read(count) == 9
    assert len(set(map(id, seen))) == 4  # kept, so that no two have the same id
    await store.close()


async def test_a_read_that_refuses_keeps_its_connection_usable(tmp_path: Path) -> None:
    store = await filled(tmp_path)

    def refuse(connection: Connection) -> None:
        connection.execute(select(table)).all()
        raise LookupError("not there")

    for _ in range(4):
        with pytest.raises(LookupError):
            await store.read(refuse)
    assert len(await store.read(lambda connection: Prepared(select(table)).rows(connection))) == 9
    await store.close()
