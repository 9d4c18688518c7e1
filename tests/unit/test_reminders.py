"""Reminders to oneself: exactly once, whatever happens in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.reminders import BODY_PREFIX, PENDING_MAX
from hive_shared.errors import NotFound, TooMany
from hive_shared.wire import BODY_MAX_BYTES, Message, Recv, Remind
from tests.support.core_parts import ALICE, BOB, OPERATOR, FakeClock, Parts, failing_commits, running

GUARD_SECONDS = 30.0


@contextlib.asynccontextmanager
async def delivering(parts: Parts) -> AsyncIterator[None]:
    task = asyncio.create_task(parts.reminders.run(parts.broker))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_message(parts: Parts, who: str = "alice") -> Message:
    async with asyncio.timeout(GUARD_SECONDS):
        (message,) = (await parts.broker.recv(who, Recv(wait_seconds=GUARD_SECONDS), "c1")).messages
    return message


async def test_a_reminder_comes_to_ones_own_inbox(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts, delivering(parts):
        reminder = await parts.reminders.set(ALICE, Remind(body="stretch", after_seconds=0))
        assert reminder.due_at_ms == parts.clock.now_ms
        message = await next_message(parts)
        assert (message.sender, message.to, message.body) == ("alice", "alice", BODY_PREFIX + "stretch")


async def test_a_reminder_does_not_come_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.deadlines.LOOK_AT_CLOCK_SECONDS", 0.01)
    async with running(tmp_path / "b.sqlite") as parts, delivering(parts):
        await parts.reminders.set(ALICE, Remind(body="late", after_seconds=60))
        await parts.reminders.set(ALICE, Remind(body="early", at=parts.clock.now_ms / 1000 + 30))
        await asyncio.sleep(0.05)
        assert parts.told == []
        parts.clock.pass_seconds(30)
        assert (await next_message(parts)).body == BODY_PREFIX + "early"
        assert len(parts.told) == 1
        parts.clock.pass_seconds(30)
        assert (await next_message(parts)).body == BODY_PREFIX + "late"


async def test_an_earlier_reminder_is_not_held_up_by_a_later_one(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts, delivering(parts):
        await parts.reminders.set(ALICE, Remind(body="in a year", after_seconds=365 * 86_400))
        await asyncio.sleep(0.02)  # it sleeps until then
        await parts.reminders.set(ALICE, Remind(body="now", after_seconds=0))
        assert (await next_message(parts)).body == BODY_PREFIX + "now"


async def test_reminders_survive_a_restart_and_come_exactly_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", FakeClock()
    async with running(path, clock=clock) as parts:
        for number in range(5):
            await parts.reminders.set(ALICE, Remind(body=f"r{number}", after_seconds=10 + number))
    clock.pass_seconds(20)  # while the daemon was down
    for _ in range(2):
        async with running(path, clock=clock) as parts, delivering(parts):
            await parts.reminders.set(BOB, Remind(body="the last one due", after_seconds=0))
            await next_message(parts, "bob")
            everything = await parts.broker.recent(100)
    mine = [message.body for message in everything if message.to == "alice"]
    assert mine == [f"{BODY_PREFIX}r{number}" for number in range(5)]


async def test_a_reminder_that_cannot_be_stored_as_a_message_stays_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.deadlines.RETRY_SECONDS", 0.01)
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.reminders.set(ALICE, Remind(body="persistent", after_seconds=0))
        with failing_commits(times=3):
            async with delivering(parts):
                assert (await next_message(parts)).body == BODY_PREFIX + "persistent"
        assert len(await parts.broker.recent(10)) == 1


async def test_a_long_body_is_delivered_whole(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts, delivering(parts):
        await parts.reminders.set(ALICE, Remind(body="x" * BODY_MAX_BYTES, after_seconds=0))
        assert len((await next_message(parts)).body) == BODY_MAX_BYTES + len(BODY_PREFIX)


async def test_many_due_at_once_all_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive_core.reminders.DELIVER_MAX", 3)
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(10):
            await parts.reminders.set(ALICE, Remind(body=f"r{number}", after_seconds=0))
        async with delivering(parts):
            assert [(await next_message(parts)).body for _ in range(10)] == [
                f"{BODY_PREFIX}r{number}" for number in range(10)
            ]


async def test_a_purged_agents_reminders_are_dropped(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.reminders.set(ALICE, Remind(body="nobody is left", after_seconds=0))
        await parts.registry.forget("alice")
        await parts.reminders.set(BOB, Remind(body="still here", after_seconds=0))
        async with delivering(parts):
            await next_message(parts, "bob")
        assert [message.to for message in parts.told] == ["bob"]


async def test_one_agent_can_have_only_so_many_pending(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for _ in range(PENDING_MAX):
            await parts.reminders.set(ALICE, Remind(body="x", after_seconds=3600))
        with pytest.raises(TooMany, match="alice has 50"):
            await parts.reminders.set(ALICE, Remind(body="x", after_seconds=3600))
        await parts.reminders.set(BOB, Remind(body="x", after_seconds=3600))


async def test_an_agent_sees_and_cancels_its_own_ones_alone(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        first = await parts.reminders.set(ALICE, Remind(body="x" * 501, after_seconds=7200))
        sooner = await parts.reminders.set(ALICE, Remind(body="sooner", after_seconds=3600))
        other = await parts.reminders.set(BOB, Remind(body="bob's", after_seconds=3600))
        mine = await parts.reminders.of("alice")
        assert [view.id for view in mine] == [sooner.reminder_id, first.reminder_id]
        assert [(len(view.body), view.truncated) for view in mine] == [(6, False), (500, True)]
        with pytest.raises(NotFound, match="not pending for alice"):
            await parts.reminders.cancel(ALICE, other.reminder_id)
        cancelled = await parts.reminders.cancel(ALICE, sooner.reminder_id)
        assert (cancelled.closed, [view.id for view in await parts.reminders.of("alice")]) == (
            "cancelled",
            [first.reminder_id],
        )
        await parts.reminders.cancel(OPERATOR, other.reminder_id)
        with pytest.raises(NotFound):
            await parts.reminders.cancel(OPERATOR, other.reminder_id)
        assert [view.agent for view in await parts.reminders.pending()] == ["alice"]
        assert (await parts.audit.recent(1))[0].detail == "of bob"


async def test_whoever_shows_reminders_is_told_of_each_change(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        seen: list[tuple[str, str]] = []
        parts.reminders.subscribe(lambda view: seen.append((view.body, view.closed)))
        await parts.reminders.set(ALICE, Remind(body="taken back", after_seconds=60))
        await parts.reminders.cancel(ALICE, 1)
        await parts.reminders.set(ALICE, Remind(body="forgotten", after_seconds=60))
        await parts.reminders.forget("alice")
        await parts.reminders.set(BOB, Remind(body="delivered", after_seconds=0))
        async with delivering(parts):
            await next_message(parts, "bob")
        assert seen == [
            ("taken back", ""),
            ("taken back", "cancelled"),
            ("forgotten", ""),
            ("forgotten", "dropped"),
            ("delivered", ""),
            ("delivered", "delivered"),
        ]
