"""The dashboard's first question, `/api/state`, in a hive of many agents and 10,000 messages.

The real web and store in this process; the browser is another process with one connection that stays. The
peer of the same run is `/api/sessions`: the same gate, session and connection, and next to nothing to say.
Prints one JSON object. Goal (issue 7): at most 20 ms with 500 agents.

    .venv/bin/python tests/benchmarks/bench_state.py [--agents 10 100 500] [--rounds 60]
"""

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import Connection, insert

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.store import schema
from tests.support.web_hive import WebHive, running_web

GOAL_MS, GOAL_AGENTS = 20.0, 500
MESSAGES = 10_000
BODY = "Something that one agent wrote to another, of about the usual length. " * 3


def main() -> None:
    options = argparse.ArgumentParser(description="`/api/state` in a hive of many agents.")
    options.add_argument("--agents", type=int, nargs="+", default=[10, 100, GOAL_AGENTS])
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--client", help=argparse.SUPPRESS)  # the other process
    chosen = options.parse_args()
    if chosen.client:
        print(json.dumps(ask(json.loads(chosen.client))))
        return
    rounds = [uvloop.run(measure(count, chosen.rounds)) for count in chosen.agents]
    goal = next((each["state_ms"] for each in rounds if each["agents"] == GOAL_AGENTS), None)
    print(json.dumps({"rounds": rounds, "state_ms": goal, "goals": {"state_ms": GOAL_MS}}))


async def measure(agents: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        async with running_web(Path(directory)) as hive:
            await populate(hive, agents)
            browser = await hive.operator()
            cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)
            headers = {"cookie": cookies, "x-hive-key": browser.headers["x-hive-key"]}
            task = {"port": hive.web.port, "headers": headers, "rounds": rounds}
            client = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--client", json.dumps(task), stdout=asyncio.subprocess.PIPE
            )
            told, _ = await client.communicate()
    return {"agents": agents, "messages": MESSAGES, **json.loads(told)}


async def populate(hive: WebHive, agents: int) -> None:
    names = [f"agent-{number:03}" for number in range(agents)]
    for name in names:
        await hive.agent(name)
    rows = [
        {
            "host": "local",
            "sender": names[number % agents],
            "recipient": names[(number + 1) % agents] if number % 10 else "operator",
            "body": BODY,
            "sent_at_ms": 1_760_000_000_000 + number,
            "acked_at_ms": 1_760_000_000_000 + number,
        }
        for number in range(MESSAGES)
    ]

    def work(connection: Connection) -> None:
        connection.execute(insert(schema.message), rows)

    await hive.store.write(work)


def ask(task: dict[str, Any]) -> dict[str, float]:
    """Milliseconds from the request until the last byte; both questions by turns."""
    connection = http.client.HTTPConnection("127.0.0.1", task["port"], timeout=60)
    size = 0

    def timed_ms(path: str) -> float:
        nonlocal size
        began = time.perf_counter()
        connection.request("GET", path, headers=task["headers"])
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {body[:200]!r}")
        size = max(size, len(body))
        return (time.perf_counter() - began) * 1000

    for _ in range(3):
        timed_ms("/api/state")
    pairs = [(timed_ms("/api/state"), timed_ms("/api/sessions")) for _ in range(task["rounds"])]
    state, floor = (sorted(column) for column in zip(*pairs, strict=True))
    return {
        "state_ms": round(statistics.median(state), 2),
        "state_min_ms": round(state[0], 2),
        "sessions_ms": round(statistics.median(floor), 2),
        "ratio": round(statistics.median(state) / statistics.median(floor), 1),
        "bytes": size,
    }


if __name__ == "__main__":
    main()
