"""Figures of past days are added up once, and a report is the same as one that adds everything up anew."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select, update

from hive_core import usage as usage_module
from hive_core import usage_sums
from hive_core.principals import Principal
from hive_core.store import schema
from hive_core.usage import DAY_MS, HOUR_MS, Usage
from hive_core.usage_stats import UsageStats
from hive_core.usage_sums import PastSums, Span, Sums
from hive_shared.wire import Stats, TurnUsage
from tests.support.core_parts import ALICE, BOB, FakeClock, Parts, running

NOW_MS = 1_763_700_000_000
MONTH = Stats(since_seconds=30 * 86_400)
ASKED = [
    Stats(since_seconds=30 * 86_400, agent="alice"),
    MONTH,
    Stats(since_seconds=3 * 86_400),
    Stats(since_seconds=20 * 86_400, utc_offset_minutes=345),  # Kathmandu
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
    monkeypatch.setattr(usage_module, "KEPT_TURNS", 40)
    for step in range(60):
        who = bench.chance.choice([ALICE, BOB])
        await bench.tell(who, *(bench.chance.random() * 7 * 24 for _ in range(4)))  # some are told late
        bench.parts.clock.pass_seconds(bench.chance.randrange(12 * 3600))
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
