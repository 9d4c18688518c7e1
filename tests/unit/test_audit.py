"""The audit table only grows."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, update

from hive_core.audit import TEXT_MAX_CHARACTERS
from hive_core.principals import Principal
from hive_core.store import schema
from tests.support.core_parts import OPERATOR, running


async def test_entries_say_who_did_what_and_when(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.audit.record(Principal.operator("session ab12"), "kill", "alice", "ok")
        await parts.audit.record(OPERATOR, "destroy", "hm1nd", "refused: conflict", "a hive has a manager")
        first, second = await parts.audit.recent(2)

        assert (first.principal, first.action, first.subject, first.outcome, first.at_ms) == (
            "operator (session ab12)",
            "kill",
            "alice",
            "ok",
            parts.clock.now_ms,
        )
        assert (second.outcome, second.detail) == ("refused: conflict", "a hive has a manager")
        assert await parts.audit.recent(1) == [second]


@pytest.mark.parametrize("change", [delete(schema.audit), update(schema.audit).values(principal="nobody")])
async def test_nothing_changes_or_deletes_an_entry(tmp_path: Path, change: object) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path) as parts:
        await parts.audit.record(OPERATOR, "kill", "alice", "ok")
        before = await parts.audit.recent(10)

        def tamper(connection: Connection) -> None:
            connection.execute(change)  # type: ignore[call-overload]

        with pytest.raises(Exception, match="append-only"):
            await parts.store.write(tamper)
        assert await parts.audit.recent(10) == before
    with sqlite3.connect(path) as database, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute("DELETE FROM audit")


async def test_an_entry_of_a_transaction_goes_with_it(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:

        def work(connection: Connection) -> None:
            parts.audit.insert(connection, OPERATOR, "spawn", "carol")
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            await parts.store.write(work)
        assert await parts.audit.recent(10) == []


async def test_no_entry_grows_without_bound(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.audit.record(OPERATOR, "send", "s" * 10_000, "ok", "d" * 10_000)
        (entry,) = await parts.audit.recent(1)
        assert len(entry.subject) == len(entry.detail) == TEXT_MAX_CHARACTERS
