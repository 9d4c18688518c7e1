"""A configuration that builds, starts, and leaves no harness that works: what ran before runs again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.names import MANAGER
from hive_shared.wire import ApprovalStatus
from tests.support import proposing
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.slow]

GIVES_UP = '{ ... }: { environment.variables.MOOD = "none"; }\n'

# Nothing that a configuration may say ends a harness (that is refused at the build), so one does here.
SITE = """
import dataclasses, sys
if "hive_core.cli" in sys.orig_argv:
    from hive_core.containers.local import LocalRuntime
    real_create = LocalRuntime.create
    async def create(self, spec):
        if spec.environment.get("MOOD") == "none":
            command = ["/bin/sh", "-c", "sleep 2; echo I see no way to go on; exit 7"]
            spec = dataclasses.replace(spec, command=command)
        return await real_create(self, spec)
    LocalRuntime.create = create
"""


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    async with running_hive(tmp_path / "hive", PYTHONPATH=str(tmp_path)) as hive:
        await hive.spawn("alice")
        await eventually(lambda: hive.is_idle(MANAGER), "the manager is idle")
        yield hive


async def test_a_harness_that_ends_before_it_is_ready_brings_back_what_ran(hive: Hive) -> None:
    before = proposing.main_of(hive.paths, "alice")
    sha = proposing.commit(hive.paths, "alice", GIVES_UP)
    pack = proposing.pack(hive.paths, "alice", sha)
    asked = await call_once(
        hive.paths.socket(MANAGER), wire.RequestApplyCommit(agent="alice", commit=sha, pack=pack)
    )
    await hive.call(wire.Approve(approval_id=asked.approval.id, commit=sha))

    async def resolved() -> wire.ApprovalView | None:
        listed = (await hive.call(wire.Pending(all=True))).approvals
        found = next(a for a in listed if a.id == asked.approval.id)
        return found if found.status in (ApprovalStatus.DEPLOYED, ApprovalStatus.FAILED) else None

    done = await eventually(resolved, "the approval is resolved")
    assert done.status is ApprovalStatus.FAILED
    assert "its harness ended before it was ready" in done.outcome
    lines = (await hive.call(wire.BuildLog(approval_id=done.id))).lines
    assert any("I see no way to go on" in line for line in lines), lines
    await eventually(lambda: hive.is_idle("alice"), "alice works again")
    assert proposing.main_of(hive.paths, "alice") == before
    view = await hive.agent("alice")
    assert view is not None
    assert view.commit == before
