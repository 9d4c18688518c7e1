"""A hive at work for a long time: does anything grow that should not?

    python tests/benchmarks/soak.py [--minutes 30] [--agents 50] [--json FILE]

The real daemon on the local runtime with rehearsal agents: messages that are answered, questions that the
operator answers, reads of the dashboard, an event stream that comes and goes, and restarts of agents, from a
fixed seed. Twelve times in the run everything is let come to rest and looked at: memory, descriptors, threads
and processes of core and agents, zombies, the database, and how long a read of the dashboard takes. The
first third is warming up. Then descriptors, threads and processes must not rise, and memory not by more than
a bound; at the end nothing may be unacknowledged. Times are told and decide nothing. Exit code 1: it leaks.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_shared import wire
from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.process_facts import descendants, descriptors, memory_mb, threads

SEED = 7
LOOKS = 12
GROWTH_MB = 24.0  # of core after warming up: caches of history that have bounds
AGENT_GROWTH_MB = 8.0  # of the median harness
SLACK = 3  # descriptors and threads that come and go by themselves


@dataclass(frozen=True)
class Look:
    """The hive at rest."""

    core_mb: float
    agent_mb: float
    descriptors: int
    threads: int
    processes: int
    zombies: int
    database_mb: float
    state_ms: float


def main() -> None:
    options = argparse.ArgumentParser(description="A hive at work for a long time.")
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--agents", type=int, default=50)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    looks = asyncio.run(soak(chosen.minutes * 60, chosen.agents))
    problems = leaks(looks)
    report = {"agents": chosen.agents, "looks": [asdict(look) for look in looks], "leaks": problems}
    print(json.dumps(report))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(1 if problems else 0)


async def soak(seconds: float, agents: int) -> list[Look]:
    names = [f"agent-{number:02}" for number in range(agents)]
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory() as directory:
        async with running_hive(Path(directory) / "hive", HIVE_SENDS_PER_MINUTE="100000") as hive:
            await hive.spawn(*names)
            operator = await hive.login()
            try:
                looks = []
                for _ in range(LOOKS):
                    await work(hive, operator, names, chance, seconds / LOOKS)
                    await at_rest(hive)
                    looks.append(await look(hive, operator))
                return looks
            finally:
                await operator.close()


async def work(
    hive: Hive, operator: Operator, names: list[str], chance: random.Random, seconds: float
) -> None:
    """Mixed traffic; at least one of everything, however slow the machine is."""
    until = time.monotonic() + seconds
    following = asyncio.create_task(follow(operator))
    await hive.call(wire.Restart(name=chance.choice(names)))
    await hive.send(chance.choice(names), "ask the operator whether to go on (options: yes, no)")
    while True:
        one, other = chance.sample(names, 2)
        await hive.send(one, f"tell {other}: please answer: how are you")
        await operator.get("/api/state")
        for question in (await operator.get("/api/state"))["questions"]:
            await operator.post(f"/answer-question/{question['id']}", answer="yes")
        if time.monotonic() > until:
            break
        await asyncio.sleep(0.1)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def follow(operator: Operator) -> None:
    async for _ in operator.events("/messages/stream"):
        pass


async def at_rest(hive: Hive) -> None:
    async def resting() -> bool:
        for question in (await hive.call(wire.Questions())).questions:
            await hive.call(wire.Answer(question_id=question.id, answer="yes"))
        agents = (await hive.call(wire.ListAgents())).agents
        return all(agent.report.badge is wire.Badge.IDLE and not agent.unread for agent in agents)

    await eventually(resting, "every agent is idle and has read everything")


async def look(hive: Hive, operator: Operator) -> Look:
    assert hive.process is not None
    core = hive.process.pid
    began = time.perf_counter()
    await operator.get("/api/state")
    state_ms = (time.perf_counter() - began) * 1000
    started = descendants(core)
    return Look(
        core_mb=memory_mb(core)[0],
        agent_mb=statistics.median(memory_mb(each.pid)[0] for each in started if each.is_harness),
        descriptors=descriptors(core),
        threads=threads(core),
        processes=len(started),
        zombies=sum(each.zombie for each in started),
        database_mb=round(hive.paths.database.stat().st_size / 2**20, 1),
        state_ms=round(state_ms, 1),
    )


def leaks(looks: list[Look]) -> list[str]:
    """What rose after the first third. Middles of the second and the last third are compared."""
    third = len(looks) // 3
    middle, last = looks[third : 2 * third], looks[2 * third :]
    bounds = {
        "core_mb": GROWTH_MB,
        "agent_mb": AGENT_GROWTH_MB,
        "descriptors": SLACK,
        "threads": SLACK,
        "processes": 0,
        "zombies": 0,
    }
    found = []
    for name, bound in bounds.items():
        before, after = (statistics.median(getattr(each, name) for each in part) for part in (middle, last))
        if after - before > bound:
            found.append(f"{name} rose from {before:g} to {after:g}")
    return found


if __name__ == "__main__":
    main()
