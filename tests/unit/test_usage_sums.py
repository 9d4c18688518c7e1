"""Figures of past days are added up once, and a report is the same as one that adds everything up anew."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, select, update

from hive_core import usage as usage_module
from hive_core import usage_stats, usage_sums
from hive_core.principals import Principal
from hive_core.store import schema
from hive_core.usage import DAY_MS, HOUR_MS, Usage
from hive_core.usage_stats import UsageStats
from hive_core.usage_sums import KEPT_MAX, PastSums, Span, Sums, read_slots
from hive_shared.wire import Stats, TurnUsage
from tests.support.core_parts import ALICE, BOB, FakeClock, Parts, running
from tests.support.hive import eventually

NOW_MS = 1_763_700_000_000
KATHMANDU = ZoneInfo("Asia/Kathmandu")
MONTH = Stats(since_seconds=30 * 86_400)
ASKED = [
    Stats(since_seconds=30 * 86_400, agent="alice"),
    MONTH,
    Stats(since_seconds=3 * 86_400),
    Stats(since_seconds=20 * 86_400, utc_offset_minutes=345),  # Kathmandu
    Stats(since_seconds=7 * 86_400, utc_offset_minutes=345),
    Stats(since_seconds=7 * 86_400, utc_offset_minutes=-300),
    Stats(),
]


@dataclass
class Bench:
    parts: Parts
    usage: Usage
    stats: UsageStats
    chance: random.Random
    told: int = 0

    async def tell(self, who: Principal, *hours_ago: float) -> None:
        turns = []
        for hours in hours_ago:
            self.told += 1
            turns.append(
                TurnUsage(
                    key=f"{self.told:016x}",
                    ended_at_ms=int(self.parts.clock.now_ms - hours * HOUR_MS),
                    duration_ms=self.chance.randrange(1, 60_000),
                    outcome=self.chance.choice(["ok", "failed"]),
                    model=self.chance.choice(["opus", "haiku"]),
                    output_tokens=self.chance.randrange(1000),
                    tools={self.chance.choice(["Bash", "Read"]): 2},
                )
            )
        await self.usage.record(who, turns)

    async def same_as_anew(self) -> None:
        for asked in ASKED:
            anew = UsageStats(self.usage, self.parts.registry, self.parts.broker)
            assert await self.stats.report(asked) == await anew.report(asked)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path / "b.sqlite", clock=FakeClock(now_ms=NOW_MS)) as parts:
        usage = Usage(parts.store, clock=parts.clock)
        yield Bench(parts, usage, UsageStats(usage, parts.registry, parts.broker), random.Random(7))


async def test_a_report_is_the_same_however_much_of_it_was_known_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_stats, "REST", 0)
    monkeypatch.setattr(usage_module, "KEPT_TURNS", 40)
    for step in range(60):
        who = bench.chance.choice([ALICE, BOB])
        await bench.tell(who, *(bench.chance.random() * 7 * 24 for _ in range(4)))  # some are told late
        bench.parts.clock.pass_seconds(bench.chance.randrange(12 * 3600))
        if step % 11 == 5:
            await bench.stats.add_up_ahead(KATHMANDU)
        if step % 7 == 3:
            await bench.same_as_anew()
        if step in (30, 50):
            await bench.usage.trim()
            await bench.same_as_anew()
    bench.parts.clock.pass_seconds(-5 * 86_400)  # a clock that is set back
    await bench.tell(ALICE, 0, 1)
    await bench.same_as_anew()
    await bench.usage.forget("bob")
    await bench.same_as_anew()


async def test_a_past_day_is_read_once_and_again_once_it_has_changed(bench: Bench) -> None:
    await bench.tell(ALICE, 0, 24 * 3, 24 * 5)
    assert (await bench.stats.report(MONTH)).totals.turns == 3
    await change_behind_its_back(bench)
    assert (await bench.stats.report(MONTH)).totals.longest_ms < 10**9, "it has read the days that are over"
    await bench.tell(BOB, 24 * 3)
    found = await bench.stats.report(MONTH)
    assert (found.totals.turns, found.totals.longest_ms) == (4, 10**9)


async def change_behind_its_back(bench: Bench) -> None:
    old = schema.turn.c.ended_at_ms < NOW_MS - DAY_MS
    await bench.parts.store.write(
        lambda connection: connection.execute(update(schema.turn).where(old).values(duration_ms=10**9))
    )


async def test_what_is_told_while_a_report_is_made_is_not_missing_in_the_next(bench: Bench) -> None:
    await bench.tell(ALICE, 24 * 3)
    real = bench.stats._read

    def read(*given: object) -> object:
        made = real(*given)  # type: ignore[arg-type]
        bench.stats._past.changed([NOW_MS - 3 * DAY_MS])  # as if it were committed just now
        return made

    bench.stats._read = read  # type: ignore[assignment, method-assign]
    await bench.stats.report(MONTH)
    bench.stats._read = real  # type: ignore[method-assign]
    await change_behind_its_back(bench)
    assert (await bench.stats.report(MONTH)).totals.longest_ms == 10**9


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many slots each look at the table reads."""
    seen: list[int] = []

    def looked(connection: Connection, span: Span, slots: list[int]) -> dict[int, Sums]:
        seen.append(len(slots))
        return read_slots(connection, span, slots)

    monkeypatch.setattr(usage_stats, "read_slots", looked)
    monkeypatch.setattr(usage_sums, "read_slots", looked)
    monkeypatch.setattr(usage_stats, "REST", 0)
    return seen


@pytest.mark.parametrize(
    "asked",
    [MONTH, Stats(since_seconds=7 * 86_400), Stats(since_seconds=30 * 86_400, utc_offset_minutes=345)],
    ids=["a month", "a week", "a month in Kathmandu"],
)
async def test_past_days_are_added_up_before_the_first_report(
    bench: Bench, pieces: list[int], asked: Stats
) -> None:
    await bench.tell(ALICE, 0, 24 * 3, 24 * 5)
    await bench.stats.add_up_ahead(KATHMANDU)
    await change_behind_its_back(bench)
    pieces.clear()
    found = await bench.stats.report(asked)
    assert (found.totals.turns, found.totals.longest_ms < 10**9) == (3, True)
    assert pieces == [2], "what it read besides is the bucket that is not over, and one that is cut"


async def test_past_days_are_read_a_day_at_a_time_and_only_once(bench: Bench, pieces: list[int]) -> None:
    await bench.tell(ALICE, 0, 24 * 3, 24 * 5)
    await bench.stats.report(MONTH)
    pieces.clear()
    await bench.stats.add_up_ahead(ZoneInfo("UTC"))
    assert len(pieces) == 7, "the week's hours: the days are known"
    assert max(pieces) == 24
    pieces.clear()
    await bench.stats.add_up_ahead(ZoneInfo("UTC"))
    assert pieces == []
    await bench.tell(BOB, 24 * 3)
    await bench.stats.add_up_ahead(ZoneInfo("UTC"))
    assert pieces == [1, 1], "the day and the hour of the turn that was told late"


async def test_what_is_told_while_past_days_are_added_up_is_not_missing(
    bench: Bench, pieces: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.tell(ALICE, 24 * 3)

    def read(connection: Connection, span: Span, slots: list[int]) -> dict[int, Sums]:
        found = read_slots(connection, span, slots)
        if span.bucket_ms == DAY_MS and span.slot(NOW_MS - 3 * DAY_MS) in slots:
            telling = bench.tell(BOB, 24 * 3)
            asyncio.run_coroutine_threadsafe(telling, loop).result()  # committed before the piece is kept
        return found

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(usage_stats, "read_slots", read)
    await bench.stats.add_up_ahead(ZoneInfo("UTC"))
    monkeypatch.setattr(usage_stats, "read_slots", read_slots)
    assert (await bench.stats.report(MONTH)).totals.turns == bench.told == 2
    await bench.same_as_anew()


async def test_days_whose_turns_stay_are_known_after_the_oldest_were_trimmed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_module, "KEPT_TURNS", 2)
    await bench.tell(ALICE, 24 * 5, 24 * 4, 24 * 3)
    await bench.stats.report(MONTH)
    await change_behind_its_back(bench)
    assert await bench.usage.trim() == 1
    found = await bench.stats.report(MONTH)
    assert (found.totals.turns, found.totals.longest_ms < 10**9) == (2, True)


async def test_past_days_are_added_up_again_after_an_agent_was_purged(bench: Bench) -> None:
    await bench.tell(ALICE, 24 * 3)
    await bench.tell(BOB, 24 * 3)
    running = asyncio.create_task(bench.stats.run(ZoneInfo("UTC")))
    past = bench.stats._past
    try:
        await eventually(
            lambda: past._kept and past.unknown(week(bench), week(bench).past) == [], "the week is added up"
        )
        await bench.usage.forget("bob")
        await eventually(
            lambda: past._kept and past.unknown(week(bench), week(bench).past) == [], "it is again"
        )
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    await change_behind_its_back(bench)
    found = await bench.stats.report(Stats(since_seconds=7 * 86_400))
    assert (found.totals.turns, found.totals.longest_ms < 10**9) == (1, True)


def week(bench: Bench) -> Span:
    now_ms = bench.parts.clock.now_ms
    return Span(now_ms - 7 * DAY_MS, now_ms, HOUR_MS, 0, None)


async def test_what_is_added_up_ahead_takes_no_room_from_what_was_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Stats(since_seconds=30 * 86_400, utc_offset_minutes=345)
    await bench.stats.report(asked)
    monkeypatch.setattr(usage_sums, "KEPT_MAX", KEPT_MAX - bench.stats._past.room + 3)
    await bench.stats.add_up_ahead(ZoneInfo("UTC"))
    assert {offset_ms for _, offset_ms in bench.stats._past._kept} >= {345 * 60_000}
    assert bench.stats._past.room >= 0


def test_buckets_that_no_report_reaches_are_forgotten() -> None:
    past = PastSums()
    span = Span(0, 40 * DAY_MS, DAY_MS, 0, None)
    past.begin()
    past.keep(span, {slot: Sums({}, {}, Counter(), Counter()) for slot in span.slots})
    past.end()
    past.forget_before(HOUR_MS, 50 * DAY_MS)
    assert past.unknown(span, span.past) == []
    past.forget_before(DAY_MS, 30 * DAY_MS)
    assert past.unknown(span, span.past) == list(range(30))
    assert past.room == KEPT_MAX - 10


def test_where_there_is_no_room_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_sums, "KEPT_MAX", 10)
    past = PastSums()
    for days in (40, 41, 42):
        span = Span(0, days * DAY_MS, DAY_MS, 0, None)
        past.begin()
        past.keep(span, {slot: Sums({}, {}, Counter(), Counter()) for slot in span.slots})
        past.end()
        assert past.unknown(span, span.past) == list(range(days - 10))


async def test_median_and_95th_percentile_are_exact(bench: Bench) -> None:
    await bench.tell(ALICE, *(bench.chance.random() * 160 for _ in range(500)))
    rows = await bench.parts.store.read(
        lambda connection: sorted(connection.execute(select(schema.turn.c.duration_ms)).scalars())
    )
    found = await bench.stats.report(MONTH)
    assert (found.median_ms, found.p95_ms) == (rows[249], rows[474])


def test_what_is_kept_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_sums, "KEPT_MAX", 50)
    past = PastSums()
    for day in range(5):
        span = Span(day * 7, day * 7 + 40 * DAY_MS, DAY_MS, day, None)
        past.begin()
        past.keep(span, {slot: Sums({}, {}, Counter(range(4)), Counter()) for slot in span.slots})
        past.end()
        assert 0 < past._size <= 55
    past.changed(None)
    assert (past._size, past.begin()) == (0, {})
