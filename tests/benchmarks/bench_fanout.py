"""The dashboard's events to many browsers at once: does each get every one, and what does it take of a core?

The real web (uvicorn's protocol, gate, session, feed) in this process; the browsers are raw connections of
another process, which counts the events of each and looks at how late those of a few are. The event is one
message of 200 characters. Lost is what a browser that was connected all the time did not get, also by being
sent away for falling behind. Prints one JSON object. Goal (issue 7): 500 browsers × 200 events a second on
one core, none lost.

    .venv/bin/python tests/benchmarks/bench_fanout.py [--browsers 1 50 500] [--seconds 10] [--rate 200]
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.web.sse import Streams
from tests.support.web_hive import WebHive, running_web

GOAL_LOST = 0
GOAL_CORES = 1.0
BODY = "x" * 200
SESSIONS = 25
BROWSERS = str(Path(__file__).with_name("fanout_browsers.py"))


def main() -> None:
    options = argparse.ArgumentParser(description="The dashboard's events to many browsers at once.")
    options.add_argument("--browsers", type=int, nargs="+", default=[1, 50, 500])
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--rate", type=int, default=200, help="events a second")
    chosen = options.parse_args()
    print(json.dumps(uvloop.run(measure(chosen))))


async def measure(chosen: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        async with running_web(Path(directory), agent_page_ports=False) as hive:
            make_room(hive.web.streams, max(chosen.browsers))
            rounds = [await one_round(hive, count, chosen) for count in chosen.browsers]
    return {
        "rate": chosen.rate,
        "seconds": chosen.seconds,
        "rounds": rounds,
        "lost": sum(each["lost"] for each in rounds),
        "cores": max(each["cores"] for each in rounds),
        "goals": {"lost": GOAL_LOST, "cores": GOAL_CORES},
    }


def make_room(streams: Streams, browsers: int) -> None:
    """What one browser may follow is not what is measured here."""
    streams._most = max(streams._most, browsers)
    streams._most_per_session = max(streams._most_per_session, browsers)


async def one_round(hive: WebHive, browsers: int, chosen: argparse.Namespace) -> dict[str, Any]:
    events = int(chosen.seconds * chosen.rate)
    logins = [await hive.operator() for _ in range(min(browsers, SESSIONS))]
    sessions = [
        {
            "cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in each.cookies.jar),
            "x-hive-key": each.headers["x-hive-key"],
        }
        for each in logins
    ]
    task = {"port": hive.web.port, "sessions": sessions, "browsers": browsers, "events": events}
    client = await asyncio.create_subprocess_exec(
        sys.executable, BROWSERS, json.dumps(task), stdout=asyncio.subprocess.PIPE
    )
    feed = hive.actions.feed
    while feed.subscribers < browsers:
        if client.returncode is not None:
            raise RuntimeError("the browsers could not connect")
        await asyncio.sleep(0.05)
    cpu_seconds = -time.process_time()
    began = time.perf_counter()
    for number in range(events):
        await asyncio.sleep(max(began + number / chosen.rate - time.perf_counter(), 0))
        feed.publish("message", {"id": number, "body": BODY, "sent_ns": time.monotonic_ns()})
    told, _ = await client.communicate()
    cpu_seconds += time.process_time()
    wall_seconds = time.perf_counter() - began
    for login in logins:
        await login.post("/logout")
    return {"browsers": browsers, **json.loads(told), "cores": round(cpu_seconds / wall_seconds, 2)}


if __name__ == "__main__":
    main()
