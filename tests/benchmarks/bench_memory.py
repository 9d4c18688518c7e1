"""What an idle agent and core cost in memory: the resident set (RSS) and the proportional one (PSS).

The real daemon on the local runtime with rehearsal agents. RSS counts pages that processes share as often as
they are shared, PSS divides them among those who share them: the sum of PSS is what the machine has to
have. Each agent is measured before its first turn and after one, which leaves what a turn loads. Beside the
harness, the sandbox's own processes are told. The peer is an interpreter that imported nothing but asyncio.
Prints one JSON object. Goal (issue 7): at most 60 MB for an idle harness, its Claude process not counted.

    .venv/bin/python tests/benchmarks/bench_memory.py [--agents 100]
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_shared import wire
from tests.support.hive import Hive, eventually, running_hive
from tests.support.process_facts import descendants, memory_mb

GOAL_MB = 60.0
SPAWNED_AT_ONCE = 4


def main() -> None:
    options = argparse.ArgumentParser(description="What an idle agent and core cost in memory.")
    options.add_argument("--agents", type=int, default=100)
    chosen = options.parse_args()
    print(json.dumps(asyncio.run(measure(chosen.agents))))


async def measure(agents: int) -> dict[str, object]:
    names = [f"agent-{number:03}" for number in range(agents)]
    with tempfile.TemporaryDirectory() as directory:
        async with running_hive(Path(directory) / "hive") as hive:
            alone = core_mb(hive)
            await spawn(hive, names)
            status = await hive.call(wire.DaemonStatus())
            before, core = harnesses_mb(hive), core_mb(hive)
            sandbox = others_mb(hive)
            for name in names:
                await hive.send(name, "remember this")
            await eventually(lambda: all_done(hive, names), "every agent has had its turn")
            after, core_after = harnesses_mb(hive), core_mb(hive)
    return {
        "agents": agents,
        "isolation": status.isolation,
        "harness_rss_mb": middle(rss for rss, _ in before),
        "harness_pss_mb": middle(pss for _, pss in before),
        "harness_after_turn_rss_mb": middle(rss for rss, _ in after),
        "harness_after_turn_pss_mb": middle(pss for _, pss in after),
        "sandbox_pss_mb_an_agent": round(sandbox / (agents + 1), 2),
        "core_alone_rss_mb": alone[0],
        "core_rss_mb": core[0],
        "core_pss_mb": core[1],
        "core_after_turns_rss_mb": core_after[0],
        "bare_interpreter_rss_mb": bare_mb(),
        "goals": {"harness_rss_mb": GOAL_MB, "harness_after_turn_rss_mb": GOAL_MB},
    }


async def spawn(hive: Hive, names: list[str]) -> None:
    room = asyncio.Semaphore(SPAWNED_AT_ONCE)

    async def one(name: str) -> None:
        async with room:
            await hive.spawn(name)

    await asyncio.gather(*map(one, names))
    await eventually(lambda: all_done(hive, names), "every agent is idle")


async def all_done(hive: Hive, names: Iterable[str]) -> bool:
    agents = {agent.name: agent for agent in (await hive.call(wire.ListAgents())).agents}
    return all(agents[name].report.badge is wire.Badge.IDLE and not agents[name].unread for name in names)


def core_mb(hive: Hive) -> tuple[float, float]:
    assert hive.process is not None
    return memory_mb(hive.process.pid)


def harnesses_mb(hive: Hive) -> list[tuple[float, float]]:
    assert hive.process is not None
    return [memory_mb(each.pid) for each in descendants(hive.process.pid) if each.is_harness]


def others_mb(hive: Hive) -> float:
    """What else runs for the agents: the sandbox's own processes."""
    assert hive.process is not None
    return sum(memory_mb(each.pid)[1] for each in descendants(hive.process.pid) if not each.is_harness)


def bare_mb() -> float:
    program = "import asyncio; print(open('/proc/self/smaps_rollup').read())"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    found = re.search(r"^Rss:\s+(\d+)", told, re.MULTILINE)
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def middle(values: Iterable[float]) -> float:
    return round(statistics.median(values), 1)


if __name__ == "__main__":
    main()
