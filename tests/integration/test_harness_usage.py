"""The harness tells core of its turns: once each, also when core is away or the harness is killed between."""

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_agent.database import Database
from hive_agent.link import Link
from hive_agent.stats import usage_of
from hive_agent.turn_reporter import UNTOLD_MAX, TurnReporter
from hive_shared import wire
from hive_shared.errors import BadRequest, RateLimited
from hive_shared.events import TurnStats
from tests.support.fake_core import FakeCore


class Bench:
    """A core, and the reporters that one harness after the other has on the same file."""

    def __init__(self, root: Path, core: FakeCore) -> None:
        self.core = core
        self.file = root / "events.sqlite"
        self._tasks: list[asyncio.Task[None]] = []

    def reporter(self) -> TurnReporter:
        link = Link(self.core.socket, delays_seconds=(0.01,))
        reporter = TurnReporter(link, Database(self.file), retry_seconds=0.01)
        self._tasks += [asyncio.create_task(link.run()), asyncio.create_task(reporter.run())]
        return reporter

    async def kill(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def left(self) -> int:
        connection = sqlite3.connect(self.file)
        count: int = connection.execute("SELECT count(*) FROM untold").fetchone()[0]
        connection.close()
        return count


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FakeCore(tmp_path / "run" / "mcp.sock") as core:
        made = Bench(tmp_path, core)
        yield made
        await made.kill()


def stats(number: int = 1, **fields: object) -> TurnStats:
    usual: dict[str, object] = {
        "started_at_ms": 1000 * number,
        "duration_ms": 5,
        "outcome": "ok",
        "model": "m",
    }
    return TurnStats.model_validate({**usual, **fields})


async def test_every_turn_is_told_in_order(bench: Bench) -> None:
    reporter = bench.reporter()
    for number in range(120):
        reporter.add(stats(number))
    await bench.core.until(lambda: len(bench.core.turns) == 120)
    assert [turn.ended_at_ms for turn in bench.core.turns] == [1000 * number + 5 for number in range(120)]
    await bench.core.until(lambda: bench.left() == 0)


async def test_turns_that_end_while_core_is_away_are_told_when_it_is_back(bench: Bench) -> None:
    await bench.core.stop()
    reporter = bench.reporter()
    reporter.add(stats(1))
    reporter.add(stats(2))
    await asyncio.sleep(0)
    assert bench.core.turns == []
    await bench.core.start()
    await bench.core.until(lambda: len(bench.core.turns) == 2)


async def test_turns_that_were_not_told_when_the_harness_was_killed_are_told_by_the_next(
    bench: Bench,
) -> None:
    await bench.core.stop()
    for number in (1, 2, 3):
        bench.reporter().add(stats(number))
        await bench.kill()
    assert bench.left() == 3
    await bench.core.start()
    bench.reporter()
    await bench.core.until(lambda: len(bench.core.turns) == 3)
    assert [turn.ended_at_ms for turn in bench.core.turns] == [1005, 2005, 3005]
    await bench.core.until(lambda: bench.left() == 0)


async def test_what_is_refused_for_now_is_told_again_with_the_same_key(bench: Bench) -> None:
    bench.core.refuse["report_turns"] = RateLimited("later")
    bench.reporter().add(stats())
    await bench.core.until(lambda: len(bench.core.asked(wire.ReportTurns)) >= 2)
    bench.core.refuse.clear()
    await bench.core.until(lambda: len(bench.core.turns) == 1)
    assert len({request.turns[0].key for request in bench.core.asked(wire.ReportTurns)}) == 1


async def test_what_core_will_never_take_does_not_hold_up_what_comes_after(bench: Bench) -> None:
    bench.core.refuse["report_turns"] = BadRequest("field turns: no")
    reporter = bench.reporter()
    reporter.add(stats(1))
    await bench.core.until(lambda: bench.left() == 0)
    bench.core.refuse.clear()
    reporter.add(stats(2))
    await bench.core.until(lambda: len(bench.core.turns) == 1)
    assert bench.core.turns[0].ended_at_ms == 2005


async def test_what_is_never_told_does_not_grow_without_end(bench: Bench) -> None:
    await bench.core.stop()
    reporter = bench.reporter()
    for number in range(UNTOLD_MAX + 30):
        reporter.add(stats(number))
    assert bench.left() == UNTOLD_MAX


async def test_a_file_that_somebody_wrote_into_costs_no_more_than_its_own_lines(bench: Bench) -> None:
    Database(bench.file).close()
    connection = sqlite3.connect(bench.file)
    with connection:
        rows = [("a", "{"), ("b", "null"), ("c", '{"key": 1}'), ("d", "[" * 100_000), ("e", "NaN")]
        connection.executemany("INSERT INTO untold VALUES (?, ?)", rows)
    connection.close()
    bench.reporter().add(stats())
    await bench.core.until(lambda: len(bench.core.turns) == 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"duration_ms": -5, "input_tokens": -1},
        {"duration_ms": 10**15, "output_tokens": 10**30},
        {"cost_usd": math.nan},
        {"cost_usd": math.inf},
        {"cost_usd": -3.0},
        {"outcome": "splendid"},
        {"model": "m" * 1000},
        {"model": "\ud800"},
        {"message_id": 0},
        {"started_at_ms": -(10**20)},
        {"tools": {"t" * 500: 3, "": 2, "none": 0, "less": -1, **{f"t{n}": 1 for n in range(200)}}},
    ],
)
def test_whatever_a_backend_printed_becomes_a_turn_that_core_takes(fields: dict[str, object]) -> None:
    usage = usage_of(stats(**fields), "0123456789abcdef")  # type: ignore[arg-type]
    assert wire.TurnUsage.model_validate_json(usage.model_dump_json()) == usage


def test_the_tools_called_most_are_the_ones_that_are_told() -> None:
    usage = usage_of(stats(tools={f"t{n}": n + 1 for n in range(200)}), "0123456789abcdef")
    assert min(usage.tools.values()) == 200 - wire.TOOLS_OF_A_TURN_MAX + 1
