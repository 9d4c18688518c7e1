"""The wall clock set forward, back, and right again: nothing ends before its time or waits for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hive_agent.session import wait_until_ms
from hive_core.cli_words import age
from hive_core.permissions import ASKED_MAX, Permissions
from hive_core.questions import Questions
from hive_core.reminders import Reminders
from hive_core.retention import Retention
from hive_core.web.auth import CODE_MS, LoginCodes
from hive_core.web.failures import PER_ADDRESS, FailureLimit
from hive_core.web.sessions import DAY_MS, Sessions
from hive_shared.wire import AskOperator, AskPermission, Remind
from tests.support.core_parts import ALICE, FakeClock, Parts, running
from tests.support.hive import eventually

pytestmark = pytest.mark.timeout(120)

HOUR, YEAR = 3600.0, 365 * 86_400.0
TTL = 600.0


class Clock(FakeClock):
    """Can be set, which the steady one does not see."""

    def set_by(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    def steady(self) -> int:
        return int(self.now_seconds * 1000)


@dataclass
class Asked:
    """Questions or permission requests that have ten minutes."""

    clock: Clock
    ask: Callable[[], Awaitable[int]]
    open: Callable[[], Awaitable[list[Any]]]
    looks: list[int]
    wake: Callable[[], None]

    async def numbers(self) -> list[int]:
        """Those that are open, once the clocks have been looked at twice from now on."""
        seen = len(self.looks)

        def looked() -> bool:
            self.wake()  # where nothing waits it sleeps for ever
            return len(self.looks) > seen + 2

        await eventually(looked, "it looks at the clock", every_seconds=0.01)
        return [view.id for view in await self.open()]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive_core.deadlines.LOOK_AT_CLOCK_SECONDS", 0.01)


@contextlib.asynccontextmanager
async def asking(parts: Parts, clock: Clock, what: str) -> AsyncIterator[Asked]:
    looks: list[int] = []

    def looked() -> int:
        looks.append(clock.now_ms)
        return clock.now_ms

    if what == "questions":
        queue: Any = Questions(parts.store, parts.broker, parts.audit, clock=looked, steady=clock.steady)

        async def ask() -> int:
            return (await queue.ask(ALICE, AskOperator(question="tea?", ttl_seconds=TTL))).id  # type: ignore[no-any-return]
    else:
        queue = Permissions(parts.store, parts.audit, clock=looked, steady=clock.steady)

        async def ask() -> int:
            return (await queue.ask(ALICE, a_call(len(looks)))).id  # type: ignore[no-any-return]

    running_it = asyncio.create_task(queue.run())
    try:
        yield Asked(clock, ask, queue.open, looks, queue._deadlines.changed)
    finally:
        running_it.cancel()
        await asyncio.gather(running_it, return_exceptions=True)


def a_call(number: int) -> AskPermission:
    fields = {"key": f"{number:064x}", "session": "a" * 32, "message_id": 1, "tool": "Bash", "input": "{}"}
    return AskPermission(**fields, ttl_seconds=TTL)


@pytest.mark.parametrize("what", ["questions", "permissions"])
@pytest.mark.parametrize("seconds", [-HOUR, -YEAR, HOUR, YEAR])
async def test_who_is_asked_has_the_time_that_was_given_however_the_clock_is_set(
    tmp_path: Path, often: None, what: str, seconds: float
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts, asking(parts, clock, what) as asked:
        first = await asked.ask()
        await asked.numbers()
        clock.set_by(seconds)
        assert await asked.numbers() == [first], "it ended early, or was shown no more"
        second = await asked.ask()
        assert await asked.numbers() == [first, second]
        clock.set_by(-seconds)
        assert await asked.numbers() == [first, second]
        clock.pass_seconds(TTL - 1)
        assert await asked.numbers() == [first, second]
        clock.pass_seconds(2)
        assert await asked.numbers() == [], "it waits longer than it was to"


@pytest.mark.parametrize("what", ["questions", "permissions"])
async def test_what_was_asked_by_a_clock_that_was_ahead_ends_though_the_daemon_was_restarted(
    tmp_path: Path, often: None, what: str
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        clock.set_by(YEAR)
        async with asking(parts, clock, what) as asked:
            number = await asked.ask()
        clock.set_by(-YEAR)
        async with asking(parts, clock, what) as asked:
            assert await asked.numbers() == [number]
            clock.pass_seconds(TTL + 1)
            assert await asked.numbers() == []


async def test_a_host_that_wakes_has_not_set_its_clock(tmp_path: Path, often: None) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts, asking(parts, clock, "questions") as it:
        await it.ask()
        await it.numbers()
        clock.pass_seconds(TTL + 1)  # both clocks: it slept
        assert await it.numbers() == []


async def test_reminders_come_at_the_wall_clocks_time_once_and_never_a_year_late(
    tmp_path: Path, often: None
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        reminders = Reminders(parts.store, parts.audit, clock=clock)
        await reminders.set(ALICE, Remind(after_seconds=TTL, body="before"))
        clock.set_by(YEAR)
        await reminders.set(ALICE, Remind(after_seconds=TTL, body="ahead"))
        clock.set_by(-YEAR)
        task = asyncio.create_task(reminders.run(parts.broker))
        try:
            clock.pass_seconds(TTL + 1)
            bodies: list[str] = []

            async def both() -> bool:
                bodies.extend(message.body for message in await parts.take("alice"))
                if bodies == ["[reminder] before"]:
                    clock.pass_seconds(TTL)  # the other's time began when the clock was looked at
                return len(bodies) == 2

            await eventually(both, "both have come", every_seconds=0.02)
            assert bodies == ["[reminder] before", "[reminder] ahead"]
            clock.set_by(-HOUR)
            clock.set_by(HOUR)
            await asyncio.sleep(0.05)
            assert await parts.take("alice") == []
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seconds", [-YEAR, YEAR])
async def test_a_session_lasts_as_long_as_it_was_to_however_the_clock_is_set(
    tmp_path: Path, seconds: float
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        sessions = Sessions(parts.store, "local", clock, steady=clock.steady)
        old = await sessions.create("old")
        clock.set_by(seconds)
        assert sessions.find([old.cookie], old.key), "logged out by a clock"
        await sessions.touch(old.session)
        new = await sessions.create("new")
        clock.set_by(-seconds)
        for made in (old, new):
            assert sessions.find([made.cookie], made.key)
        clock.pass_seconds(sessions.absolute_ms / 1000 + 1)
        for made in (old, new):
            assert sessions.find([made.cookie], made.key) is None, "it outlasts its time"


async def test_a_session_of_a_clock_that_was_ahead_ends_though_the_daemon_was_restarted(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        clock.set_by(YEAR)
        made = await Sessions(parts.store, "local", clock, steady=clock.steady).create("x")
        clock.set_by(-YEAR)
        sessions = Sessions(parts.store, "local", clock, steady=clock.steady)
        await sessions.load()
        assert sessions.find([made.cookie], made.key)
        clock.pass_seconds(30 * DAY_MS / 1000 + 1)
        assert sessions.find([made.cookie], made.key) is None


@pytest.mark.parametrize("seconds", [-YEAR, YEAR])
def test_a_login_code_is_good_for_ten_minutes_however_the_clock_is_set(seconds: float) -> None:
    clock = Clock()
    codes = LoginCodes(clock, clock.steady)
    first, _ = codes.issue()
    clock.set_by(seconds)
    assert codes.redeem(first), "it was to be good for ten minutes"
    second, third = (codes.issue()[0] for _ in range(2))
    clock.set_by(-seconds)
    assert codes.redeem(second)
    clock.pass_seconds(CODE_MS / 1000)
    assert not codes.redeem(third), "it is good for ever"


async def test_limits_on_how_often_are_over_in_time_however_the_clock_is_set(tmp_path: Path) -> None:
    clock = Clock()
    failures = FailureLimit(clock)
    for _ in range(PER_ADDRESS):
        failures.count("192.0.2.1")
    assert failures.exceeded("192.0.2.1")
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        permissions = Permissions(parts.store, parts.audit, clock=clock, steady=clock.steady)
        clock.set_by(YEAR)
        for number in range(ASKED_MAX):
            view = await permissions.ask(ALICE, a_call(number))
            await permissions.close(ALICE, number=view.id)
        clock.set_by(-YEAR)
        clock.pass_seconds(60)
        assert not failures.exceeded("192.0.2.1")
        await permissions.ask(ALICE, a_call(ASKED_MAX))  # raises where those of next year count


DAYS = 86_400.0


async def hours_of(vacuum: Callable[[], Awaitable[int]], clock: Clock, days: float) -> int:
    """What the hourly vacuum removes in that time."""
    gone = 0
    for _ in range(int(days * 24)):
        clock.pass_seconds(HOUR)
        gone += await vacuum()
    return gone


async def acked(parts: Parts, body: str = "hello") -> int:
    number = await parts.send("bob", body)
    await parts.broker.ack("bob", [number])
    return number


def retention(parts: Parts, clock: Clock) -> Retention:
    return Retention(parts.store, 30.0, clock=clock, steady=clock.steady)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("seconds", [-YEAR, 60 * DAYS, YEAR])
async def test_no_message_is_removed_early_by_a_clock_that_is_wrong_for_a_day(
    tmp_path: Path, seconds: float, restarted: bool
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        keeping = retention(parts, clock)
        await acked(parts, "before")
        assert await hours_of(keeping.vacuum, clock, 3) == 0
        clock.set_by(seconds)
        await acked(parts, "meanwhile")
        keeping = retention(parts, clock) if restarted else keeping
        assert await hours_of(keeping.vacuum, clock, 1) == 0
        clock.set_by(-seconds)
        keeping = retention(parts, clock) if restarted else keeping
        assert await hours_of(keeping.vacuum, clock, 25) == 0, "removed within the retention"
        assert [message.body for message in await parts.broker.recent(10)] == ["before", "meanwhile"]
        assert await hours_of(keeping.vacuum, clock, 8) >= 1, "it is never removed"


async def test_a_clock_that_is_set_ahead_again_and_again_removes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        keeping = retention(parts, clock)
        await acked(parts)
        for _ in range(24):
            clock.set_by(YEAR)
            assert await hours_of(keeping.vacuum, clock, 1 / 24) == 0


async def test_what_was_acked_while_the_clock_stood_at_its_beginning_is_kept(tmp_path: Path) -> None:
    """A machine without a battery is in 1970 until it hears the time."""
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        keeping = retention(parts, clock)
        await acked(parts, "before")
        await hours_of(keeping.vacuum, clock, 3)
        behind = clock.now_ms / 1000
        clock.set_by(-behind)
        await acked(parts, "in 1970")
        await keeping.vacuum()
        clock.set_by(behind)
        assert await hours_of(keeping.vacuum, clock, 25) == 0


async def test_a_hive_that_is_started_anew_every_day_forgets_all_the_same(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        await acked(parts)
        gone = 0
        for _ in range(35):
            gone += await hours_of(retention(parts, clock).vacuum, clock, 1)
        assert gone == 1


async def test_that_the_clock_was_set_back_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with running(tmp_path / "b.sqlite", clock=clock) as parts:
        keeping = retention(parts, clock)
        await keeping.vacuum()
        clock.set_by(-DAYS)
        await hours_of(keeping.vacuum, clock, 1)
        assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_harness_that_waits_out_a_limit_goes_on_though_the_clock_was_set_back() -> None:
    later = iter([1_000_000])  # more than an hour before, from the second look on

    async with asyncio.timeout(30):
        await wait_until_ms(1_000_050, asyncio.Event(), lambda: next(later, -3_600_000))


def test_what_is_of_a_later_time_than_now_is_just_now() -> None:
    assert age(2_000_000, 1_000_000) == age(1_000_000, 1_000_000)
