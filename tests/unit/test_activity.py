"""What the dashboard tells of the audit: who did what, as it is committed."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hive_core.activity import LOOKED_BACK, SHOWN, Activity
from hive_core.feed import Feed, Subscription
from hive_core.principals import Principal
from tests.conftest import PROJECT
from tests.support.core_parts import OPERATOR, Parts, running

ANN = Principal.operator("session aa11")
MANAGER = Principal.manager("socket")
ALICE = Principal.agent("alice", "socket")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with running(tmp_path / "b.sqlite") as running_parts:
        yield running_parts


@contextlib.asynccontextmanager
async def told(parts: Parts) -> AsyncIterator[tuple[Activity, Subscription]]:
    feed = Feed()
    activity = Activity(parts.audit, feed)
    await activity.open()
    task = asyncio.create_task(activity.run())
    with feed.subscribe() as subscription:
        yield activity, subscription
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_people_and_the_manager_are_told_of_and_chatter_is_not(parts: Parts) -> None:
    async with told(parts) as (activity, _):
        await parts.audit.record(ANN, "kill", "bob", "ok")
        await parts.audit.record(ALICE, "send", "bob", "ok", "message 4")
        await parts.audit.record(ANN, "send", "bob", "ok", "message 5")
        await parts.audit.record(MANAGER, "restart", "bob", "ok")
        await parts.audit.record(MANAGER, "restart", "bob", "refused: conflict")
        await parts.audit.record(ANN, "destroy", "hm1nd", "refused: conflict", "a hive has a manager")
        await parts.audit.record(Principal.system("watch"), "crash", "bob", "crashed", "out of memory")
        shown = await activity.recent(10)
        assert [(entry.principal, entry.action, entry.outcome) for entry in shown] == [
            ("operator (session aa11)", "kill", "ok"),
            ("operator (session aa11)", "send", "ok"),
            ("hm1nd (socket)", "restart", "ok"),
            ("operator (session aa11)", "destroy", "refused: conflict"),
            ("system (watch)", "crash", "crashed"),
        ]
        assert await activity.recent(2) == shown[-2:]
        assert await activity.recent(2, before=shown[-2].id) == shown[1:3]


async def test_an_entry_is_published_when_it_is_committed_and_never_when_it_was_undone(parts: Parts) -> None:
    await parts.audit.record(ANN, "start", "old", "ok")
    async with told(parts) as (activity, subscription), asyncio.timeout(60):

        def undone(connection: Connection) -> None:
            parts.audit.insert(connection, OPERATOR, "approve", "approval 1")
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            await parts.store.write(undone)
        await parts.store.write(lambda connection: parts.audit.insert(connection, ANN, "deny", "approval 2"))
        event = await anext(subscription)
        assert (event.kind, event.data["action"], event.data["subject"]) == ("activity", "deny", "approval 2")
        assert event.data == (await activity.recent(1))[0].model_dump(mode="json")


async def test_many_at_once_are_all_told_in_order(parts: Parts) -> None:
    async with told(parts) as (_, subscription), asyncio.timeout(60):
        await asyncio.gather(*(parts.audit.record(ANN, "start", f"a{n}", "ok") for n in range(250)))
        seen = [await anext(subscription) for _ in range(250)]
        assert [event.data["id"] for event in seen] == sorted({event.data["id"] for event in seen})
        assert {event.data["subject"] for event in seen} == {f"a{n}" for n in range(250)}


async def test_it_looks_back_a_bounded_way(parts: Parts) -> None:
    async with told(parts) as (activity, _):
        await parts.audit.record(ANN, "kill", "bob", "ok")

        def chatter(connection: Connection) -> None:
            for number in range(LOOKED_BACK):
                parts.audit.insert(connection, ALICE, "send", "bob", "ok", f"message {number}")

        await parts.store.write(chatter)
        assert await activity.recent(10) == []


def test_every_action_that_is_told_has_words_on_the_page() -> None:
    page = (PROJECT / "assets" / "js" / "activity.js").read_text()
    words = page[page.index("const DONE = {") : page.index("\n};")]
    assert set(re.findall(r'^  "?([\w /-]+?)"?: "', words, re.MULTILINE)) >= SHOWN
