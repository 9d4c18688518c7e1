"""What a change of configuration costs: from the operator's yes to the agent running it.

A real daemon, rehearsal agents: on the local runtime, and with `--nspawn` on the tests' stand-in of a NixOS
host, where containers are those of systemd-nspawn and only `nix` builds nothing (what it takes there depends
on the change). The peer in the same run is a bare `restart` of the same agent: stop and start are in every
deploy, the rest is ours (build, switch, tags). Prints one JSON object.

    .venv/bin/python tests/benchmarks/bench_deploy.py [rounds] [--nspawn]
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.names import MANAGER
from tests.support import proposing
from tests.support.hive import Hive, eventually, running_hive
from tests.support.nixos_stand_in import NixosHost

PROJECT = Path(__file__).resolve().parents[2]
AGENT = "alice"


@contextlib.asynccontextmanager
async def nspawn_hive(root: Path) -> AsyncIterator[Hive]:
    """A hive on a host that behaves as one with NixOS; needs root."""
    host = await NixosHost(root / "host").boot()
    environment = {"HIVE_ROOT": str(root / "hive"), "PYTHONPATH": str(PROJECT)}
    command = (sys.executable, "-m", "tests.support.nixos_stand_in.serve", str(host.root))
    hive = Hive(root / "hive", environment, command)
    try:
        await hive.start()
        yield hive
        await hive.stop()
    finally:
        await hive.kill()
        await host.shut_down()


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


async def measure(rounds: int, nspawn: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        async with nspawn_hive(root) if nspawn else running_hive(root / "hive") as hive:
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
        "runtime": "nspawn" if nspawn else "local",
        "rounds": rounds,
        "submit_s": round(submit, 3),
        "approve_to_idle_s": round(approve, 3),
        "restart_to_idle_s": round(restart, 3),
        "approve_over_restart": round(approve / restart, 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description="From the operator's yes to the agent running it.")
    options.add_argument("rounds", type=int, nargs="?", default=10)
    options.add_argument("--nspawn", action="store_true")
    chosen = options.parse_args()
    print(json.dumps(asyncio.run(measure(chosen.rounds, chosen.nspawn))))


if __name__ == "__main__":
    main()
