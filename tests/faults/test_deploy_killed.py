"""The daemon killed at every step of a deploy: what is approved runs in the end, or what ran before."""

import json
import os
import signal
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER
from hive_shared.wire import ApprovalStatus
from tests.support import proposing
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STARTS = '{ ... }: { environment.variables.GREETING = "starts"; }\n'
DEAD = '{ ... }: { environment.variables.GREETING = "dead"; }\n'
QUICK = {"HIVE_RESTART_BACKOFF_FIRST_SECONDS": "0.3", "HIVE_RESTART_BACKOFF_MAX_SECONDS": "2"}

# Python runs it at its start: containers that were built to DEAD do not start, and when the work on an
# approval comes to a step, or is about to call a function, the daemon dies as by SIGKILL.
SITE = """
import os, sys
if "hive_core.cli" in sys.orig_argv:
    import signal
    from hive_core.containers.local import LocalRuntime, StartFailed
    from hive_core.approvals import Approvals
    from hive_core.config_repo import ConfigRepo
    from hive_core.target import Targets

    step = os.environ.get("HIVE_TEST_DIE_AT", "")

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    real_start = LocalRuntime.start
    async def start(self, agent):
        if agent == "alice" and "dead" in self._paths.system_file(agent).read_text():
            raise StartFailed("container h-alice: it is dead")
        await real_start(self, agent)
    LocalRuntime.start = start

    real_step = Approvals.set_building
    async def set_building(self, number, what, **more):
        if step == "before " + what:
            die()
        view = await real_step(self, number, what, **more)
        if step == what:
            die()
        return view

    def dying_before(owner, name, on_agent=True):
        real = getattr(owner, name)
        async def dying(self, *arguments, **more):
            if not on_agent or (arguments[0] == "alice" and armed):
                die()
            return await real(self, *arguments, **more)
        setattr(owner, name, dying)

    # Armed by the operator's yes: what a spawn or a submit does along the way shall not count.
    armed = []
    real_init = Approvals.__init__
    def watched(self, *arguments, **more):
        real_init(self, *arguments, **more)
        def tell(view):
            if view.status == "approved" and view.kind == "apply_commit":
                armed.append(view.id)
        self.subscribe(tell)
    Approvals.__init__ = watched

    if step:
        Approvals.set_building = set_building
    if step in ("advance", "place", "tag", "export"):
        dying_before(ConfigRepo, step)
    if step == "end":
        dying_before(Approvals, "deployed", on_agent=False)
        dying_before(Approvals, "failed", on_agent=False)
    if step == "tags of the end":
        real_tag = ConfigRepo.tag
        async def tag(self, agent, name, *more):
            if name.startswith(("deployed/", "failed/")) and armed:
                die()
            return await real_tag(self, agent, name, *more)
        ConfigRepo.tag = tag
"""

STEPS = [
    "tag",
    "before build",
    "build",
    "export",
    "before switch",
    "switch",
    "advance",
    "place",
    "back",
    "end",
]
STEPS += ["tags of the end"]


@dataclass(frozen=True)
class Begun:
    """A stopped hive in which a commit waits for the operator: every case begins with a copy of it."""

    root: Path
    approval: wire.ApprovalView
    before: str


def with_site(directory: Path) -> dict[str, str]:
    (directory / "site").mkdir(exist_ok=True)
    (directory / "site" / "sitecustomize.py").write_text(SITE)
    return {**QUICK, "PYTHONPATH": str(directory / "site")}


@pytest.fixture(scope="module")
async def waiting(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Begun]:
    begun = {}
    for text in (STARTS, DEAD):
        root = tmp_path_factory.mktemp("begun") / "hive"
        async with running_hive(root, **QUICK) as hive:
            await hive.spawn("alice")
            # A harness that starts removes packs that an earlier one left.
            await eventually(lambda hive=hive: hive.is_idle(MANAGER), "the manager is idle")
            before = proposing.main_of(hive.paths, "alice")
            begun[text] = Begun(root, await submitted(hive, text), before)
    return begun


async def submitted(hive: Hive, text: str) -> wire.ApprovalView:
    sha = proposing.commit(hive.paths, "alice", text)
    pack = proposing.pack(hive.paths, "alice", sha)
    request = wire.RequestApplyCommit(agent="alice", commit=sha, pack=pack)
    return (await call_once(hive.paths.socket(MANAGER), request)).approval


async def facts(hive: Hive, number: int) -> list[dict]:  # type: ignore[type-arg]
    messages = (await hive.call(wire.Messages(limit=500))).messages
    bodies = [json.loads(m.body) for m in messages if m.sender == "system" and m.to == MANAGER]
    return [body for body in bodies if body["event"] == "approval_resolved" and body["id"] == number]


def system_of(hive: Hive) -> str:
    path = hive.paths.system_file("alice")
    return path.read_text() if path.exists() else ""


async def greeting_of(hive: Hive) -> str:
    """What the running container has in its environment; empty if it is not set."""
    view = await hive.agent("alice")
    assert view is not None
    assert view.pid is not None
    environment = Path(f"/proc/{view.pid}/environ").read_bytes().split(b"\0")
    return next((part[9:].decode() for part in environment if part.startswith(b"GREETING=")), "")


# What starts is not taken back, so that step has one case.
CASES = [(step, text) for step in STEPS for text in (STARTS, DEAD) if (step, text) != ("back", STARTS)]


@pytest.mark.parametrize(
    ("step", "text"), CASES, ids=[f"{step}-{'starts' if text is STARTS else 'dead'}" for step, text in CASES]
)
async def test_a_daemon_killed_at_any_step_of_a_deploy_finishes_it_or_takes_it_back(
    step: str, text: str, tmp_path: Path, waiting: dict[str, Begun]
) -> None:
    environment = with_site(tmp_path)
    root, begun = tmp_path / "hive", waiting[text]
    approval, before = begun.approval, begun.before
    subprocess.run(["cp", "--archive", str(begun.root), str(root)], check=True)

    dying = Hive(root, {**environment, "HIVE_TEST_DIE_AT": step})
    await dying.start()
    try:
        await eventually(lambda: dying.is_idle("alice"), "alice is idle")
        with pytest.raises(HiveError):
            await dying.call(wire.Approve(approval_id=approval.id, commit=approval.commit))
        assert dying.process is not None
        assert await dying.process.wait() == -signal.SIGKILL
    finally:
        await dying.kill()

    async with running_hive(root, **environment) as again:

        async def resolved() -> wire.ApprovalView | None:
            approvals = (await again.call(wire.Pending(all=True))).approvals
            found = next(a for a in approvals if a.id == approval.id)
            return found if found.status in (ApprovalStatus.DEPLOYED, ApprovalStatus.FAILED) else None

        done = await eventually(resolved, "the approval is resolved")
        await eventually(lambda: again.is_idle("alice"), "alice is idle")
        runs, ended = (approval.commit, "deployed") if text is STARTS else (before, "failed")
        assert done.status == ended, done.outcome
        assert proposing.main_of(again.paths, "alice") == runs
        view = await again.agent("alice")
        assert view is not None
        assert view.commit == runs
        assert await greeting_of(again) == ("starts" if text is STARTS else "")
        assert ("starts" in system_of(again)) is (text is STARTS)
        assert "dead" not in system_of(again)
        shown = (again.paths.applied("alice") / "agent.nix").read_text()
        assert (shown == text) is (text is STARTS)

        def tagged() -> bool:
            tags = proposing.tags_of(again.paths, "alice")
            mine = {name for name in tags if name.endswith(f"/{approval.id}")}
            return mine == {f"{state}/{approval.id}" for state in ("proposal", "approved", ended)}

        await eventually(tagged, "the tags match the state")
        assert [fact["status"] for fact in await facts(again, approval.id)] == [ended]
        with sqlite3.connect(f"file:{again.paths.database}?mode=ro", uri=True) as database:
            ends = database.execute(
                "select count(*) from audit where subject = ? and action in ('deployed', 'failed')",
                (f"approval {approval.id}",),
            ).fetchone()
        assert ends == (1,)
        assert not [name for name in os.listdir(again.paths.builds) if not name.endswith(".log")]
