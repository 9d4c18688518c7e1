"""What the operator has sent at set times: once each, whatever happens to the daemon and the clock."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from hive_core.schedules import MISSED_COUNTED_MAX, SCHEDULES_MAX, Schedules
from hive_core.store import schema
from hive_shared.errors import BadRequest, Conflict, NotFound, TooMany
from hive_shared.wire import Ack, AddSchedule, Recv, SchedulePause, ScheduleView
from tests.support.core_parts import OPERATOR, FakeClock, Parts, running

GUARD_SECONDS = 60.0
HOUR = 3600
DAY = 24 * HOUR
TEN_PAST = 1_700_000_000_000 // (HOUR * 1000) * HOUR * 1000 + 600_000  # 2023-11-14 22:10 UTC


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at all the time: these tests move it by hand."""
    monkeypatch.setattr("hive_core.deadlines.LOOK_AT_CLOCK_SECONDS", 0.005)


@contextlib.asynccontextmanager
async def hive(path: Path, clock: FakeClock | None = None) -> AsyncIterator[tuple[Parts, Schedules]]:
    clock = clock or FakeClock(TEN_PAST)
    async with running(path, clock=clock) as parts:
        schedules = Schedules(parts.store, parts.broker, parts.audit, clock=clock)
        await schedules.open()
        task = asyncio.create_task(schedules.run())
        try:
            yield parts, schedules
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def hourly(**changes: Any) -> AddSchedule:
    return AddSchedule(**{"name": "alice", "cron": "0 * * * *", "body": "write a summary", **changes})


async def one(schedules: Schedules) -> ScheduleView:
    (view,) = await schedules.all()
    return view


async def handled(parts: Parts, schedules: Schedules) -> ScheduleView:
    """The schedule, once nothing is due any more by the hand-set clock."""
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            view = await one(schedules)
            if not view.next_runs_ms or view.next_runs_ms[0] > parts.clock.now_ms:
                await parts.audit.settled()  # what is committed has been told on the loop, too
                return view
            await asyncio.sleep(0.005)


async def take(parts: Parts, *, ack: bool = True) -> list[str]:
    await parts.audit.settled()
    got = (await parts.broker.recv("alice", Recv(max=100, wait_seconds=0), "c1")).messages
    if ack and got:
        await parts.broker.ack("alice", Ack(ids=[message.id for message in got]).ids)
    return [message.body for message in got]


async def test_the_operators_words_come_at_their_time_and_again(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        made = await schedules.add(OPERATOR, hourly(cron=" 0  * * * * "))
        assert (made.cron, made.means, made.last_outcome) == ("0 * * * *", "At the start of every hour", "")
        assert [(at - TEN_PAST) // 60_000 for at in made.next_runs_ms] == [50, 110, 170]
        parts.clock.pass_seconds(49 * 60)
        await handled(parts, schedules)
        assert parts.told == []
        parts.clock.pass_seconds(60)
        sent = await handled(parts, schedules)
        (message,) = parts.told
        assert (message.sender, message.to, message.body) == (
            "operator",
            "alice",
            "[schedule 1] write a summary",
        )
        assert (sent.last_outcome, sent.last_message_id, sent.last_at_ms) == (
            "sent",
            message.id,
            parts.clock.now_ms,
        )
        assert await take(parts) == ["[schedule 1] write a summary"]
        parts.clock.pass_seconds(HOUR)
        await handled(parts, schedules)
        assert await take(parts) == ["[schedule 1] write a summary"]
        said = [entry for entry in await parts.audit.recent(20) if entry.action == "send"]
        assert {entry.principal for entry in said} == {"operator (schedule 1)"}


async def test_runs_that_were_missed_while_the_daemon_was_down_are_one(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", FakeClock(TEN_PAST)
    async with hive(path, clock) as (_, schedules):
        await schedules.add(OPERATOR, hourly(timezone="Europe/Berlin"))
    clock.pass_seconds(4 * HOUR)
    for messages in (
        ["[schedule 1, due 2023-11-15 03:00 Europe/Berlin, 3 runs were missed before] write a summary"],
        [],
    ):
        async with hive(path, clock) as (parts, schedules):
            await handled(parts, schedules)
            assert await take(parts) == messages


async def test_a_run_that_is_late_says_when_it_was_due(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        parts.clock.pass_seconds(55 * 60)
        await handled(parts, schedules)
        assert await take(parts) == ["[schedule 1, due 2023-11-14 23:00 UTC] write a summary"]


async def test_very_many_missed_runs_are_not_all_counted(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly(cron="* * * * *"))
        parts.clock.pass_seconds(30 * DAY)
        await handled(parts, schedules)
        told = f"at least {MISSED_COUNTED_MAX - 1} runs were missed before"
        assert await take(parts) == [f"[schedule 1, {told}] write a summary"]


async def test_while_the_agent_has_the_last_message_further_runs_are_skipped(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        parts.clock.pass_seconds(50 * 60)
        first = await handled(parts, schedules)
        for skipped in (1, 2):
            parts.clock.pass_seconds(HOUR)
            view = await handled(parts, schedules)
            assert (view.last_outcome, view.missed) == ("skipped", skipped)
            assert (view.last_message_id, len(parts.told)) == (first.last_message_id, 1)
            await take(parts, ack=False)  # in its hand, and not done with
        await parts.broker.ack("alice", [first.last_message_id or 0])
        parts.clock.pass_seconds(HOUR)
        view = await handled(parts, schedules)
        assert (view.last_outcome, view.missed) == ("sent", 0)
        assert await take(parts) == ["[schedule 1, 2 runs were missed before] write a summary"]


async def test_a_clock_set_forward_makes_what_it_passed_one_run(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        parts.clock.now_ms += 3 * HOUR * 1000
        await handled(parts, schedules)
        assert len(await take(parts)) == 1


async def test_a_clock_set_back_repeats_nothing(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        parts.clock.pass_seconds(HOUR)
        await handled(parts, schedules)
        await take(parts)
        parts.clock.now_ms -= 2 * HOUR * 1000
        for _ in range(3):  # the same hour again, and the one before
            parts.clock.pass_seconds(HOUR)
            await handled(parts, schedules)
        assert len(parts.told) == 2  # at its time, and at the first hour that had not been yet


async def test_a_clock_that_was_far_ahead_does_not_silence_a_schedule(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        parts.clock.now_ms += 3650 * DAY * 1000
        await handled(parts, schedules)
        await take(parts)
        parts.clock.now_ms -= 3650 * DAY * 1000
        async with asyncio.timeout(GUARD_SECONDS):
            while (await one(schedules)).next_runs_ms[0] > parts.clock.now_ms + DAY * 1000:
                await asyncio.sleep(0.005)
        assert (await one(schedules)).next_runs_ms[0] == TEN_PAST + 50 * 60_000
        parts.clock.pass_seconds(50 * 60)
        await handled(parts, schedules)
        assert await take(parts) == ["[schedule 1] write a summary"]


async def test_a_message_and_the_next_time_are_stored_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "b.sqlite", FakeClock(TEN_PAST)
    async with hive(path, clock) as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        monkeypatch.setattr("hive_core.schedules._set", _failing)
        clock.pass_seconds(HOUR)
        async with asyncio.timeout(GUARD_SECONDS):
            while "the disk is full" not in caplog.text:
                await asyncio.sleep(0.005)
        assert parts.told == []
    monkeypatch.undo()
    async with hive(path, clock) as (parts, schedules):
        await handled(parts, schedules)
        assert len(await take(parts)) == 1
        assert len(await parts.broker.recent(10)) == 1


def _failing(*_: object, **__: object) -> None:
    raise Conflict("the disk is full")


async def test_a_paused_one_sends_nothing_and_makes_nothing_up(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        paused = await schedules.pause(OPERATOR, 1)
        assert (paused.paused, paused.next_runs_ms) == (SchedulePause.OPERATOR, [])
        parts.clock.pass_seconds(5 * HOUR)
        resumed = await schedules.resume(OPERATOR, 1)
        assert (resumed.paused, resumed.missed) == ("", 0)
        assert resumed.next_runs_ms[0] > parts.clock.now_ms
        assert await schedules.resume(OPERATOR, 1) == resumed
        assert parts.told == []


async def test_run_now_sends_at_once_and_changes_no_times(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        made = await schedules.add(OPERATOR, hourly())
        ran = await schedules.run_now(OPERATOR, 1)
        assert await take(parts) == ["[schedule 1, run by hand] write a summary"]
        assert (ran.next_runs_ms, ran.last_outcome) == (made.next_runs_ms, "sent")
        await schedules.pause(OPERATOR, 1)
        assert (await schedules.run_now(OPERATOR, 1)).paused == SchedulePause.OPERATOR
        assert len(await take(parts)) == 1


async def test_what_is_removed_is_gone(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        seen: list[tuple[int, bool]] = []
        schedules.subscribe(lambda view: seen.append((view.id, view.removed)))
        await schedules.add(OPERATOR, hourly())
        assert (await schedules.remove(OPERATOR, 1)).removed
        parts.clock.pass_seconds(HOUR)
        assert (await schedules.all(), parts.told, seen) == ([], [], [(1, False), (1, True)])
        for change in (schedules.remove, schedules.pause, schedules.resume, schedules.run_now):
            with pytest.raises(NotFound, match="schedule 1 does not exist"):
                await change(OPERATOR, 1)


@pytest.mark.parametrize("told", [True, False])
async def test_a_purged_agents_schedule_is_paused_and_says_so(tmp_path: Path, told: bool) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        await parts.registry.forget("alice")
        if told:
            await schedules.forget("alice")
        parts.clock.pass_seconds(HOUR)
        assert (await handled(parts, schedules)).paused == SchedulePause.PURGED
        assert parts.told == []
        for change in (schedules.resume, schedules.run_now):
            with pytest.raises(Conflict, match="agent alice does not exist any more"):
                await change(OPERATOR, 1)
        await parts.registry.add("alice", "agent", 8123)
        assert (await one(schedules)).paused == SchedulePause.PURGED  # a namesake gets nothing by itself
        assert (await schedules.resume(OPERATOR, 1)).paused == ""


async def test_a_purge_that_a_crash_cut_short_is_noticed_at_the_next_start(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", FakeClock(TEN_PAST)
    async with hive(path, clock) as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        await schedules.pause(OPERATOR, 1)
        await parts.registry.forget("alice")
    async with running(path, agents=(), clock=clock) as parts:
        schedules = Schedules(parts.store, parts.broker, parts.audit, clock=clock)
        await schedules.open()
        assert (await one(schedules)).paused == SchedulePause.PURGED


async def test_one_that_cannot_be_read_any_more_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly(body="broken"))
        await schedules.add(OPERATOR, hourly(body="sound"))
        gone = update(schema.schedule).where(schema.schedule.c.id == 1).values(timezone="Mars/Olympus")
        await parts.store.write(lambda connection: connection.execute(gone))
        assert (await schedules.all())[0].means == ""
        parts.clock.pass_seconds(HOUR)
        async with asyncio.timeout(GUARD_SECONDS):
            while (await schedules.all())[0].paused != SchedulePause.BROKEN:
                await asyncio.sleep(0.005)
        assert await take(parts) == ["[schedule 2, due 2023-11-14 23:00 UTC] sound"]
        with pytest.raises(BadRequest, match="timezone"):
            await schedules.resume(OPERATOR, 1)


async def test_wrong_schedules_are_refused_by_field(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, schedules):
        for changes, field in (
            ({"cron": "0 99 * * *"}, "cron"),
            ({"timezone": "Nowhere/Land"}, "timezone"),
            ({"cron": "0 0 */20 * 1L"}, "cron"),  # on no day of the next fifty years
        ):
            with pytest.raises(BadRequest) as refused:
                await schedules.add(OPERATOR, hourly(**changes))
            assert refused.value.field == field
        assert await schedules.all() == []


async def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SCHEDULES_MAX == 100
    monkeypatch.setattr("hive_core.schedules.SCHEDULES_MAX", 2)
    async with hive(tmp_path / "b.sqlite") as (_, schedules):
        for _ in range(2):
            await schedules.add(OPERATOR, hourly())
        with pytest.raises(TooMany, match="there are 2 schedules"):
            await schedules.add(OPERATOR, hourly())


async def test_a_preview_stores_nothing(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, schedules):
        seen = await schedules.preview("30 22 * * *", "UTC")
        assert (seen.means, seen.next_runs_ms[0]) == ("At 22:30 every day", TEN_PAST + 20 * 60_000)
        assert await schedules.all() == []


async def test_every_change_is_audited_with_who(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, schedules):
        await schedules.add(OPERATOR, hourly())
        for change in (schedules.pause, schedules.resume, schedules.run_now, schedules.remove):
            await change(OPERATOR, 1)
        entries = [(entry.action, entry.principal) for entry in await parts.audit.recent(20)]
        by_hand = ["add_schedule", "pause_schedule", "resume_schedule", "run_schedule", "remove_schedule"]
        assert [action for action, who in entries if who == "operator (host socket)"] == by_hand
