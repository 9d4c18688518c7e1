"""How long core takes to be there with a gigabyte of history, against an empty one.

The real daemon on the local runtime; its database holds acknowledged messages of 1,900 characters, as many as
make the size, in the last 29 days. The file is dropped from the page cache before each start, where the
kernel does so. Ready means: the host socket answers. The dashboard, which is loaded last, is timed as well.
The two hives start by turns. Prints one JSON object. Goal (issue 7): at most 2 s.

    .venv/bin/python tests/benchmarks/bench_cold_start.py [--megabytes 1000] [--rounds 5] [--directory DIR]
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

import httpx

from hive_core.store import Store
from hive_shared.wire import MakeLoginUrl
from tests.support.hive import Hive

GOAL_SECONDS = 2.0
BODY_CHARACTERS = 1900
SPREAD_MS = 29 * 86_400_000
READY_LOOK_SECONDS = 0.005
GIVEN_UP_SECONDS = 60.0


def main() -> None:
    options = argparse.ArgumentParser(description="How long core takes to be there with much history.")
    options.add_argument("--megabytes", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--directory", type=Path, help="where the data goes; default: a temporary one")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as directory:
        print(json.dumps(asyncio.run(measure(Path(directory), chosen.megabytes, chosen.rounds))))


async def measure(directory: Path, megabytes: int, rounds: int) -> dict[str, object]:
    full, empty = Hive(directory / "full"), Hive(directory / "empty")
    await fill(full.paths.database, megabytes)
    for hive in (full, empty):  # the manager's directories are made once
        await started_seconds(hive)
    pairs = [(await started_seconds(full), await started_seconds(empty)) for _ in range(rounds)]
    with_history, without = (
        [statistics.median(times) for times in zip(*starts, strict=True)]
        for starts in zip(*pairs, strict=True)
    )
    return {
        "rounds": rounds,
        "database_megabytes": round(full.paths.database.stat().st_size / 1e6),
        "start_s": round(with_history[0], 2),
        "empty_start_s": round(without[0], 2),
        "dashboard_s": round(with_history[1], 2),
        "empty_dashboard_s": round(without[1], 2),
        "ratio": round(with_history[0] / without[0], 2),
        "goals": {"start_s": GOAL_SECONDS},
    }


async def fill(database: Path, megabytes: int) -> None:
    database.parent.mkdir(parents=True)
    await (await Store.open(database)).close()
    count = megabytes * 1_000_000 // (BODY_CHARACTERS + 60)
    since_ms = int(time.time() * 1000) - SPREAD_MS
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
            "INSERT INTO message "
            "(host, sender, recipient, body, sent_at_ms, acked_at_ms, broadcast, deliveries) "
            "SELECT 'local', 'alice', iif(i % 20, 'bob', 'operator'), hex(randomblob(:bytes)), "
            ":since + i * :spread / :count, :since + i * :spread / :count, 0, 1 FROM n",
            {"count": count, "bytes": BODY_CHARACTERS // 2, "since": since_ms, "spread": SPREAD_MS},
        )
    connection.close()


async def started_seconds(hive: Hive) -> tuple[float, float]:
    """Until core and the dashboard answered, in one start; the daemon has ended again."""
    forget(hive.paths.database)
    began = time.perf_counter()
    await hive.start(look_seconds=READY_LOOK_SECONDS)
    answers_seconds = time.perf_counter() - began
    url = (await hive.call(MakeLoginUrl())).url  # waits for the dashboard
    async with httpx.AsyncClient(timeout=GIVEN_UP_SECONDS) as browser:
        (await browser.get(url.partition("#")[0])).raise_for_status()
    dashboard_seconds = time.perf_counter() - began
    await hive.stop()
    return answers_seconds, dashboard_seconds


def forget(database: Path) -> None:
    """Drop a file from the page cache; what is not on the disk yet stays."""
    if not database.exists():
        return
    with database.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
