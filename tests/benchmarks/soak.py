"""A hive at work for a long time: does anything grow that should not, and does everything still hold?

    python tests/benchmarks/soak.py [--minutes 30] [--agents 50] [--json FILE]

The real daemon on the local runtime with rehearsal agents: messages that are answered, questions that the
operator answers, commits that are approved and denied, reads of the dashboard, an event stream that comes
and goes, restarts of agents, and one of the daemon, from a fixed seed. Several times in the run everything
is let come to rest and looked at: memory, descriptors, threads and processes of core and agents, zombies,
the size of the database and of logs, and how long sends and reads of the dashboard take. The first third is
warming up; the daemon is restarted early in it. After that descriptors, threads and processes must not rise,
and memory not by more than a bound; at the end nothing may be unacknowledged, and every invariant must hold.
Times are told and decide nothing. Exit code 1: it leaks, or something does not hold.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.doctor import Verdict
from hive_core.invariants import examine
from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.names import MANAGER
from tests.support import proposing
from tests.support.hive import Hive, Operator, eventually, running_hive
from tests.support.process_facts import descendants, descriptors, memory_mb, threads

SEED = 7
LOOKS = 12
LOOKS_OF_A_SHORT_RUN = 6
SHORT_SECONDS = 300.0
STATE_READS = 5
GROWTH_MB = 24.0  # of core after warming up: caches of history that have bounds
AGENT_GROWTH_MB = 8.0  # of the median harness
SLACK = 3  # descriptors and threads that come and go by themselves


@dataclass(frozen=True)
class Look:
    """The hive at rest; `send_ms` and `state_ms` are medians, the first since the last look."""

    at_seconds: float
    core_mb: float
    agent_mb: float
    descriptors: int
    agent_descriptors: int
    threads: int
    agent_threads: int
    processes: int
    zombies: int
    database_mb: float
    agent_database_mb: float
    log_mb: float
    messages: int
    send_ms: float
    state_ms: float


@dataclass
class Run:
    """A hive, its operator, and what was done to it."""

    hive: Hive
    names: list[str]
    chance: random.Random
    began: float = field(default_factory=time.monotonic)
    operator: Operator | None = None
    sends_ms: list[float] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    async def send(self, to: str, body: str) -> None:
        began = time.perf_counter()
        await self.hive.send(to, body)
        self.sends_ms.append((time.perf_counter() - began) * 1000)
        self.count("sends")

    async def logged_in(self) -> Operator:
        if self.operator is None:
            self.operator = await self.hive.login()
        return self.operator

    async def leave(self) -> None:
        if self.operator is not None:
            await self.operator.close()
            self.operator = None


def main() -> None:
    options = argparse.ArgumentParser(description="A hive at work for a long time.")
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--agents", type=int, default=50)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    report = asyncio.run(soak(chosen.minutes * 60, chosen.agents))
    print(table(report))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(1 if report["problems"] else 0)


async def soak(seconds: float, agents: int) -> dict[str, Any]:
    """The report: looks, trends, what was done, and `problems`, which should be none."""
    looks_wanted = LOOKS if seconds >= SHORT_SECONDS else LOOKS_OF_A_SHORT_RUN
    names = [f"agent-{number:02}" for number in range(agents)]
    with tempfile.TemporaryDirectory() as directory:
        environment = {"HIVE_SENDS_PER_MINUTE": "100000", "HIVE_LOOP_MESSAGES": "0"}
        async with running_hive(Path(directory) / "hive", **environment) as hive:
            run = Run(hive, names, random.Random(SEED))
            await hive.spawn(*names)
            try:
                looks = []
                for number in range(looks_wanted):
                    await work(run, seconds / looks_wanted)
                    await at_rest(hive)
                    if number == 0:
                        await restart_core(run)
                    looks.append(await look(run))
                broken = await does_not_hold(run)
            finally:
                await run.leave()
    return {
        "agents": agents,
        "seconds": round(looks[-1].at_seconds, 1),
        "done": run.done,
        "looks": [asdict(look) for look in looks],
        "trends": trends(looks),
        "problems": leaks(looks) + broken,
    }


# --- work -----------------------------------------------------------------------


async def work(run: Run, seconds: float) -> None:
    """Mixed traffic; at least one of everything, however slow the machine is."""
    until = time.monotonic() + seconds
    operator = await run.logged_in()
    following = asyncio.create_task(follow(operator))
    deciding = asyncio.create_task(decide(run))
    await run.hive.call(wire.Restart(name=run.chance.choice(run.names)))
    run.count("restarts of agents")
    await run.send(run.chance.choice(run.names), "ask the operator whether to go on (options: yes, no)")
    while True:
        one, other = run.chance.sample(run.names, 2)
        await run.send(one, f"tell {other}: please answer: how are you")
        await operator.get("/api/state")
        for question in (await operator.get("/api/state"))["questions"]:
            await operator.post(f"/answer-question/{question['id']}", answer="yes")
            run.count("answers")
        if time.monotonic() > until:
            break
        await asyncio.sleep(0.1)
    await deciding
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def follow(operator: Operator) -> None:
    async for _ in operator.events("/messages/stream"):
        pass


async def decide(run: Run) -> None:
    """A commit that is approved and runs, and one that is denied."""
    for approved in (True, False):
        name = run.chance.choice(run.names)
        text = f'{{ ... }}: {{ environment.variables.TURN = "{run.chance.random()}"; }}\n'
        sha = await asyncio.to_thread(proposing.commit, run.hive.paths, name, text)
        pack = await asyncio.to_thread(proposing.pack, run.hive.paths, name, sha)
        request = wire.RequestApplyCommit(agent=name, commit=sha, pack=pack)
        approval = (await call_once(run.hive.paths.socket(MANAGER), request)).approval
        if approved:
            done = (await run.hive.call(wire.Approve(approval_id=approval.id, commit=sha))).approval
            assert done.status is wire.ApprovalStatus.DEPLOYED, done.outcome
        else:
            await run.hive.call(wire.Deny(approval_id=approval.id, note="not today"))
        run.count("commits approved" if approved else "commits denied")


async def restart_core(run: Run) -> None:
    """As for an upgrade; its agents come up again with it."""
    await run.leave()
    await run.hive.stop()
    await run.hive.start()
    run.count("restarts of core")
    await at_rest(run.hive)


async def at_rest(hive: Hive) -> None:
    async def resting() -> bool:
        for question in (await hive.call(wire.Questions())).questions:
            await hive.call(wire.Answer(question_id=question.id, answer="yes"))
        agents = (await hive.call(wire.ListAgents())).agents
        return all(agent.report.badge is wire.Badge.IDLE and not agent.unread for agent in agents)

    await eventually(resting, "every agent is idle and has read everything")


# --- looking ----------------------------------------------------------------------


async def look(run: Run) -> Look:
    hive, operator = run.hive, await run.logged_in()
    assert hive.process is not None
    core = hive.process.pid
    reads = []
    for _ in range(STATE_READS):
        began = time.perf_counter()
        await operator.get("/api/state")
        reads.append((time.perf_counter() - began) * 1000)
    started = descendants(core)
    harnesses = [each.pid for each in started if each.is_harness]
    sends, run.sends_ms = run.sends_ms, []
    return Look(
        at_seconds=round(time.monotonic() - run.began, 1),
        core_mb=memory_mb(core)[0],
        agent_mb=statistics.median(memory_mb(pid)[0] for pid in harnesses),
        descriptors=descriptors(core),
        agent_descriptors=max(descriptors(pid) for pid in harnesses),
        threads=threads(core),
        agent_threads=max(threads(pid) for pid in harnesses),
        processes=len(started),
        zombies=sum(each.zombie for each in started),
        database_mb=size_mb(hive.paths.database.parent.glob(f"{hive.paths.database.name}*")),
        agent_database_mb=size_mb(hive.paths.state(run.names[0]).glob("*.sqlite*")),
        log_mb=size_mb([hive.log_path, *hive.paths.logs.glob("*")]),
        messages=(await newest_message(hive)),
        send_ms=round(statistics.median(sends), 1) if sends else 0.0,
        state_ms=round(statistics.median(reads), 1),
    )


async def newest_message(hive: Hive) -> int:
    """How many messages there ever were."""
    messages = (await hive.call(wire.Messages(limit=1))).messages
    return messages[-1].id if messages else 0


def size_mb(files: Any) -> float:
    return round(sum(file.stat().st_size for file in files if file.is_file()) / 2**20, 2)


async def does_not_hold(run: Run) -> list[str]:
    """What doctor says is broken, beside the daemon that runs; what is under way is given a moment."""
    found: list[str] = []

    async def well() -> bool:
        findings = await asyncio.to_thread(examine, run.hive.paths)
        found[:] = [f"{each.name}: {each.found}" for each in findings if each.verdict is Verdict.BROKEN]
        return not found

    try:
        await eventually(well, "the invariants hold", every_seconds=1.0)
    except AssertionError:
        return found
    return []


# --- judging ----------------------------------------------------------------------


def settled(looks: Sequence[Look]) -> tuple[Sequence[Look], Sequence[Look]]:
    """The second and the last third; the first is warming up."""
    third = len(looks) // 3
    return looks[third : 2 * third], looks[2 * third :]


def leaks(looks: Sequence[Look]) -> list[str]:
    """What rose after the first third: middles of the second and the last third are compared."""
    middle, last = settled(looks)
    bounds = {
        "core_mb": GROWTH_MB,
        "agent_mb": AGENT_GROWTH_MB,
        "descriptors": SLACK,
        "agent_descriptors": SLACK,
        "threads": SLACK,
        "agent_threads": SLACK,
        "processes": 0,
        "zombies": 0,
    }
    found = []
    for name, bound in bounds.items():
        before, after = (statistics.median(getattr(each, name) for each in part) for part in (middle, last))
        if after - before > bound:
            found.append(f"{name} rose from {before:g} to {after:g}")
    return found


def trends(looks: Sequence[Look]) -> dict[str, float]:
    """What memory and files grow by in an hour after warming up, and times of the last third to the first."""
    middle, last = settled(looks)
    late = [*middle, *last]
    hours = [each.at_seconds / 3600 for each in late]
    slopes = {
        f"{name}_per_hour": round(statistics.linear_regression(hours, values).slope, 2)
        for name in ("core_mb", "agent_mb", "database_mb", "log_mb")
        if len(values := [getattr(each, name) for each in late]) > 1
    }
    first = looks[: len(looks) // 3]
    drifts = {
        f"{name}_drift": round(_middle(last, name) / max(0.1, _middle(first, name)), 2)
        for name in ("send_ms", "state_ms")
    }
    return {**slopes, **drifts}


def _middle(looks: Sequence[Look], name: str) -> float:
    return statistics.median(getattr(each, name) for each in looks)


def table(report: dict[str, Any]) -> str:
    names = list(report["looks"][0])
    lines = ["  ".join(names)]
    lines += ["  ".join(f"{row[name]:g}".rjust(len(name)) for name in names) for row in report["looks"]]
    lines += [f"{name}: {value:g}" for name, value in {**report["done"], **report["trends"]}.items()]
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]] or ["nothing leaks, everything holds"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
