"""What a change of configuration costs: from the operator's yes to the agent running it.

A real daemon on the local runtime, rehearsal agents. The peer in the same run is a bare `restart` of the
same agent: stop and start are in every deploy, the rest is ours (build, switch, tags).
Prints one JSON object.

    .venv/bin/python tests/benchmarks/bench_deploy.py [rounds]
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.names import MANAGER
from tests.support import proposing
from tests.support.hive import Hive, eventually, running_hive

AGENT = "alice"


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


class Round:
    """One commit on its way, and a restart beside it."""

    def __init__(self, hive: Hive, number: int) -> None:
        self._hive = hive
        text = f'{{ ... }}: {{ environment.variables.ROUND = "{number}"; }}\n'
        self._sha = proposing.commit(hive.paths, AGENT, text)
        self._approval: wire.ApprovalView | None = None

    async def submit(self) -> None:
        pack = proposing.pack(self._hive.paths, AGENT, self._sha)
        request = wire.RequestApplyCommit(agent=AGENT, commit=self._sha, pack=pack)
        self._approval = (await call_once(self._hive.paths.socket(MANAGER), request)).approval

    async def approve(self) -> None:
        """Until it is deployed and the harness has reported in."""
        assert self._approval is not None
        number = self._approval.id
        await self._hive.call(wire.Approve(approval_id=number, commit=self._sha))

        async def deployed() -> bool:
            listed = (await self._hive.call(wire.Pending(all=True))).approvals
            return next(a.status for a in listed if a.id == number) is wire.ApprovalStatus.DEPLOYED

        await eventually(deployed, "the commit is deployed", every_seconds=0.01)
        await self._idle()

    async def restart(self) -> None:
        await self._hive.call(wire.Restart(name=AGENT))
        await self._idle()

    async def _idle(self) -> None:
        await eventually(lambda: self._hive.is_idle(AGENT), "the agent is idle", every_seconds=0.01)


async def measure(rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        async with running_hive(Path(directory) / "hive") as hive:
            await hive.spawn(AGENT)
            await eventually(lambda: hive.is_idle(MANAGER), "the manager is idle")
            times = []
            for number in range(rounds):
                one = Round(hive, number)
                times.append(
                    (await seconds(one.submit), await seconds(one.approve), await seconds(one.restart))
                )
    submit, approve, restart = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "rounds": rounds,
        "submit_s": round(submit, 3),
        "approve_to_idle_s": round(approve, 3),
        "restart_to_idle_s": round(restart, 3),
        "approve_over_restart": round(approve / restart, 2),
    }


def main(rounds: int) -> None:
    print(json.dumps(asyncio.run(measure(rounds))))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
