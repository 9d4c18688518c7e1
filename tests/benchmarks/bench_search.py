"""What does a search through all that was said cost, and what does it cost the others?

    python tests/benchmarks/bench_search.py [--messages 200000] [--directory DIR]

A word that occurs nowhere is the worst case: everything is read. An FTS5 index of the same messages looks it
up too, with what making that index cost; and a snapshot's read is timed beside a search.
"""

import argparse
import asyncio
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.message_search import MessageSearch, match_of
from hive_core.store import schema
from tests.support.core_parts import Parts, running

WORDS = [f"word{n}" for n in range(5000)]
READS = 50


def main() -> None:
    options = argparse.ArgumentParser(description="What does a search cost?")
    options.add_argument("--messages", type=int, default=200_000)
    options.add_argument("--directory", type=Path, help="where the database goes; default: a temporary one")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-search-", dir=chosen.directory) as directory:
        uvloop.run(measure(Path(directory) / "b.sqlite", chosen.messages))


async def measure(path: Path, count: int) -> None:
    async with running(path) as parts:
        await fill(parts, count)
        table = Table("", "seconds", "requests", title=f"{count:,} messages of 60 words")
        search = MessageSearch(parts.store)
        for what, text in (("a word of nowhere", "nowhere"), ("a word of one in 80", WORDS[0])):
            seconds, requests = await searched(search, text)
            table.add_row(f"scan: {what}", f"{seconds:.3f}", str(requests))
        alone = await reads(parts)
        scanning = asyncio.create_task(searched(search, "nowhere"))
        beside = await reads(parts)
        await scanning
        table.add_row("another read, alone (median)", f"{alone:.4f}", "")
        table.add_row("another read, beside a search (median)", f"{beside:.4f}", "")
    making, asking = indexed(path)
    table.add_row("FTS5: making the index", f"{making:.3f}", "")
    table.add_row("FTS5: a word of nowhere", f"{asking:.4f}", "")
    Console().print(table)


async def fill(parts: Parts, count: int) -> None:
    chance = random.Random(1)

    def row(number: int) -> dict[str, object]:
        body = " ".join(chance.choices(WORDS, k=60))
        names = (
            {"sender": "alice", "recipient": "bob"} if number % 2 else {"sender": "bob", "recipient": "alice"}
        )
        return {
            **names,
            "host": "local",
            "body": body,
            "sent_at_ms": number,
            "broadcast": False,
            "deliveries": 1,
        }

    for start in range(0, count, 5000):
        rows = [row(number) for number in range(start, min(start + 5000, count))]
        await parts.store.write(
            lambda connection, rows=rows: connection.execute(insert(schema.message), rows)
        )


async def searched(search: MessageSearch, text: str) -> tuple[float, int]:
    """As the page does: on and on until 50 are found, or nothing is left."""
    began, requests, found, before = time.perf_counter(), 0, 0, None
    while True:
        answer = await search.find(match_of(text, None), 50, before)
        requests, found, before = requests + 1, found + len(answer.messages), answer.looked_to
        if before is None or found >= 50:
            return time.perf_counter() - began, requests


async def reads(parts: Parts) -> float:
    took = []
    for _ in range(READS):
        began = time.perf_counter()
        await parts.broker.recent(200)
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    return statistics.median(took)


def indexed(path: Path) -> tuple[float, float]:
    with sqlite3.connect(path) as database:
        began = time.perf_counter()
        database.execute("CREATE VIRTUAL TABLE words USING fts5(body, content='message', content_rowid='id')")
        database.execute("INSERT INTO words(rowid, body) SELECT id, body FROM message")
        database.commit()
        making = time.perf_counter() - began
        began = time.perf_counter()
        database.execute("SELECT rowid FROM words WHERE words MATCH 'nowhere' LIMIT 50").fetchall()
        return making, time.perf_counter() - began


if __name__ == "__main__":
    main()
