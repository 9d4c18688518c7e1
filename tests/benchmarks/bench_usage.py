"""What does a report of what turns took cost, where there are many turns?

    python tests/benchmarks/bench_usage.py [--turns 200000] [--rounds 5] [--directory DIR]

50 agents' turns of 30 days, three models, four tools an hour. A report that nothing was added up for reads
all of it, others what is not known yet: the turns of today. A daemon adds past days up in the background
after its start: how long that takes is measured as well, pauses included, and its longest piece, for which
a report may have to wait. `first_s` is the first report after it. The peer is the least that any report
straight from the table could be, on the same file in the same run: one SQL statement that adds turns up by
day, agent and model, with Python's `sqlite3`.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import uvloop
from sqlalchemy import Connection, Table, insert

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.store import schema
from hive_core.usage import DAY_MS, HOUR_MS, Usage
from hive_core.usage_stats import UsageStats
from hive_core.usage_sums import Span
from hive_shared.wire import Stats, TurnUsage
from tests.support.core_parts import ALICE, FakeClock, Parts, running

DAYS = 30
MONTH = Stats(since_seconds=DAYS * 86_400)
AGENTS = [f"agent{number:02}" for number in range(50)]
CHUNK_ROWS = 5000
PEER = f"""
    SELECT ended_at_ms / {DAY_MS}, agent, model, count(*), sum(outcome = 'ok'), max(duration_ms),
        sum(duration_ms), sum(input_tokens), sum(cache_read_tokens), sum(cache_creation_tokens),
        sum(output_tokens), sum(cost_microdollars)
    FROM turn WHERE ended_at_ms >= ? GROUP BY 1, 2, 3
"""


def main() -> None:
    options = argparse.ArgumentParser(description="What does a report over a month cost?")
    options.add_argument("--turns", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--directory", type=Path, help="where the database goes; default: a temporary one")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-usage-", dir=chosen.directory) as directory:
        path = Path(directory) / "b.sqlite"
        print(json.dumps(uvloop.run(measure(path, chosen.turns, chosen.rounds))))


async def measure(path: Path, count: int, rounds: int) -> dict[str, Any]:
    clock = FakeClock(now_ms=1_763_700_000_000)
    async with running(path, agents=AGENTS, clock=clock) as parts:
        await fill(parts, count)
        usage = Usage(parts.store, clock=clock)
        unready, ahead, longest, first, later, peer = [], [], [], [], [], []
        for number in range(rounds):
            peer.append(await asyncio.to_thread(straight, path, clock.now_ms))
            stats = UsageStats(usage, parts.registry, parts.broker)  # as right after a start of the daemon
            unready.append(await timed(stats, count))
            stats = UsageStats(usage, parts.registry, parts.broker)
            seconds, piece = await added_up_ahead(stats)
            ahead.append(seconds)
            longest.append(piece)
            first.append(await timed(stats, count))
            await usage.record(ALICE, [a_turn(number, clock.now_ms)])
            later.append(await timed(stats, count + number + 1))
    return {
        "turns": count,
        "before_it_is_added_up_s": round(statistics.median(unready), 3),
        "added_up_after_s": round(statistics.median(ahead), 3),
        "longest_piece_s": round(statistics.median(longest), 3),
        "first_s": round(statistics.median(first), 3),
        "later_s": round(statistics.median(later), 3),
        "sqlite3_s": round(statistics.median(peer), 3),
        "later_over_sqlite3": round(statistics.median(later) / statistics.median(peer), 2),
    }


async def timed(stats: UsageStats, turns: int) -> float:
    begun = time.perf_counter()
    report = await stats.report(MONTH)
    seconds = time.perf_counter() - begun
    assert turns <= report.totals.turns <= turns + 100
    return seconds


async def added_up_ahead(stats: UsageStats) -> tuple[float, float]:
    """How long the background took in all, pauses included, and its longest piece."""
    pieces: list[float] = []
    real = stats._add_up

    async def one(span: Span, unknown: list[int]) -> bool:
        begun = time.perf_counter()
        done = await real(span, unknown)
        pieces.append(time.perf_counter() - begun)
        return done

    stats._add_up = one  # type: ignore[method-assign]
    begun = time.perf_counter()
    await stats.add_up_ahead(ZoneInfo("Europe/Berlin"))
    return time.perf_counter() - begun, max(pieces)


def straight(path: Path, now_ms: int) -> float:
    with sqlite3.connect(path) as connection:
        begun = time.perf_counter()
        connection.execute(PEER, (now_ms - DAYS * DAY_MS,)).fetchall()
        seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def a_turn(number: int, now_ms: int) -> TurnUsage:
    return TurnUsage(key=f"{number:032x}", ended_at_ms=now_ms, duration_ms=5000, outcome="ok", model="opus")


async def fill(parts: Parts, count: int) -> None:
    chance = random.Random(1)
    now_ms = parts.clock.now_ms
    times = sorted(now_ms - int(chance.random() * DAYS * DAY_MS) for _ in range(count))
    tools = Counter[tuple[str, int, str]]()

    def turns() -> Iterator[dict[str, Any]]:
        for number, ended_at_ms in enumerate(times):
            agent = chance.choice(AGENTS)
            for tool in ("Bash", "Read", "Edit", "Grep"):
                tools[agent, ended_at_ms // HOUR_MS * HOUR_MS, tool] += 2
            yield {
                "host": "local", "agent": agent, "key": f"{number:016x}", "ended_at_ms": ended_at_ms,
                "message_id": number, "duration_ms": chance.randrange(1000, 90_000), "outcome": "ok",
                "model": chance.choice(["opus", "sonnet", "haiku"]), "input_tokens": 12,
                "cache_read_tokens": 1000, "cache_creation_tokens": 30, "output_tokens": 200,
                "cost_microdollars": 1234, "tool_calls": 8,
            }  # fmt: skip

    def hours() -> Iterator[dict[str, Any]]:
        for (agent, hour_ms, tool), calls in tools.items():
            yield {"host": "local", "agent": agent, "hour_ms": hour_ms, "tool": tool, "calls": calls}

    def work(connection: Connection) -> None:
        insert_all(connection, schema.turn, list(turns()))
        insert_all(connection, schema.tool_hour, list(hours()))

    await parts.store.write(work)


def insert_all(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), CHUNK_ROWS):
        connection.execute(insert(table), rows[start : start + CHUNK_ROWS])


if __name__ == "__main__":
    main()
