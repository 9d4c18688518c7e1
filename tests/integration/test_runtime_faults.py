"""The daemon killed at any step: nothing runs on, and the next start finishes what was approved."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.errors import HiveError
from hive_shared.wire import AgentState, ApprovalStatus
from tests.integration.test_runtime import QUICK, is_in
from tests.support.container_bench import none_left, processes_with
from tests.support.hive import Hive, eventually, running_hive

STEPS = [
    "port",
    "directories",
    "repositories",
    "build",
    "switch",
    "registration",
    "socket",
    "container",
    "start",
]

# Python runs it at its start: the daemon dies, as by SIGKILL, when a spawn comes to a step, or just after it.
SITE = """
import os, sys
step = os.environ.get("HIVE_TEST_DIE_AT")
if step and "hive_core.cli" in sys.orig_argv:
    import signal
    from hive_core.approvals import Approvals
    real = Approvals.set_building
    async def dying(self, number, what, **more):
        view = await real(self, number, what, **more)
        if what == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return view
    Approvals.set_building = dying
    real_deployed = Approvals.deployed
    async def deployed(self, *arguments):
        if step == "the end":
            os.kill(os.getpid(), signal.SIGKILL)
        return await real_deployed(self, *arguments)
    Approvals.deployed = deployed
"""


@pytest.mark.parametrize("step", [*STEPS, "the end"])
async def test_a_spawn_interrupted_at_any_step_is_finished_by_the_next_start(
    step: str, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    hive = Hive(tmp_path / "hive", {**QUICK, "HIVE_TEST_DIE_AT": step, "PYTHONPATH": str(tmp_path / "site")})
    await hive.start()
    try:
        asked = await hive.call(wire.RequestSpawn(name="alice"))
        with pytest.raises(HiveError):
            await hive.call(wire.Approve(approval_id=asked.approval.id))
        assert hive.process is not None
        assert await hive.process.wait() == -signal.SIGKILL
        await none_left(str(hive.paths.state_root))
    finally:
        await hive.kill()

    async with running_hive(tmp_path / "hive", **QUICK) as again:

        async def resolved() -> wire.ApprovalView | None:
            approvals = (await again.call(wire.Pending(all=True))).approvals
            done = [a for a in approvals if a.status in (ApprovalStatus.DEPLOYED, ApprovalStatus.FAILED)]
            return done[0] if done else None

        approval = await eventually(resolved, "the approval is resolved")
        assert approval.status is ApprovalStatus.DEPLOYED, approval.outcome
        await eventually(lambda: again.is_idle("alice"), "alice is idle")
        assert "was interrupted at" in again.log()
        assert len([m for m in await facts(again) if m["event"] == "spawned"]) == 1
        config = again.paths.config("alice")
        assert sorted(os.listdir(config)) == [".git", "agent.nix"]


async def facts(hive: Hive) -> list[dict]:  # type: ignore[type-arg]
    messages = (await hive.call(wire.Messages(limit=500))).messages
    return [json.loads(m.body) for m in messages if m.sender == "system"]


async def test_a_purge_interrupted_after_the_move_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async with running_hive(tmp_path / "hive", **QUICK) as hive:
        await hive.spawn("alice")
        await hive.call(wire.Destroy(name="alice"))
    paths = hive.paths
    lot = paths.state_root / "purged" / "alice-0123"
    lot.mkdir()
    paths.agent_dir("alice").rename(lot / "alice")
    async with running_hive(tmp_path / "hive", **QUICK) as again:
        kept = (await again.call(wire.ListAgents(tombstones=True))).agents
        assert [agent.name for agent in kept] == ["hm1nd"]
        assert not lot.exists()
        assert "purge of alice was interrupted" in again.log()


@pytest.mark.parametrize("isolation", ["auto", "none"])
async def test_a_killed_daemon_takes_every_process_along_and_the_next_one_goes_on(
    isolation: str, tmp_path: Path
) -> None:
    hive = Hive(tmp_path / "hive", {**QUICK, "HIVE_ISOLATION": isolation})
    await hive.start()
    try:
        await hive.spawn("alice", "bob")
        await hive.call(wire.Kill(name="bob"))
        mine = agents_of(hive)
        assert len(mine) >= 2
        await hive.kill()
        async with asyncio.timeout(60):
            while any(Path(f"/proc/{pid}/cmdline").exists() and is_alive(pid) for pid in mine):
                await asyncio.sleep(0.05)
    finally:
        await hive.kill()
    async with running_hive(tmp_path / "hive", **QUICK, HIVE_ISOLATION=isolation) as again:
        await eventually(lambda: again.is_idle("alice"), "alice is idle")
        assert await is_in(again, "bob", AgentState.STOPPED)
        status = await again.call(wire.DaemonStatus())
        assert isolation == "auto" or status.isolation == "not isolated"


def agents_of(hive: Hive) -> list[int]:
    """Every process below the daemon."""
    assert hive.process is not None
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {hive.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {hive.process.pid})


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_an_ordered_stop_says_what_it_does_and_leaves_no_process(tmp_path: Path) -> None:
    async with running_hive(tmp_path / "hive", **QUICK) as hive:
        await hive.spawn("alice")
        mine = agents_of(hive)
    assert not [pid for pid in mine if is_alive(pid)]
    words = [
        "stopping",
        "closing the dashboard",
        "stopping the agents",
        "agents' sockets",
        "closing the store",
    ]
    places = [hive.log().index(word) for word in words]
    assert places == sorted(places)
    assert not hive.paths.host_socket.exists()
    assert not processes_with(str(hive.paths.state_root))


async def test_a_second_daemon_for_the_same_hive_is_refused(tmp_path: Path) -> None:
    async with running_hive(tmp_path / "hive", **QUICK) as hive:
        second = Hive(hive.root, QUICK)
        second.process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "hive_core.cli", "--root", str(hive.root), "serve"],
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "HIVE_DASHBOARD_PORT": "0"},
        )
        _, told = await second.process.communicate()
        assert second.process.returncode == 1
        assert f"another hive-c0re (process {hive.process.pid})" in told.decode()  # type: ignore[union-attr]
        assert b"Traceback" not in told
        await hive.call(wire.DaemonStatus())


async def test_a_second_signal_ends_it_at_once_without_leaving_agents(tmp_path: Path) -> None:
    hive = Hive(tmp_path / "hive", {**QUICK, "HIVE_ISOLATION": "none", "HIVE_STOP_GRACE_SECONDS": "600"})
    await hive.start()
    try:
        await hive.spawn("alice")
        view = await hive.agent("alice")
        assert view is not None
        harness = [
            pid for pid in agents_of(hive) if b"hive_agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        for pid in harness:
            os.kill(pid, signal.SIGSTOP)  # it will not end by being asked
        assert hive.process is not None
        hive.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "stopping the agents" in hive.log(), "it waits for the agents")
        hive.process.send_signal(signal.SIGTERM)
        assert await hive.process.wait() == 130
        async with asyncio.timeout(60):
            while any(is_alive(pid) for pid in harness):
                await asyncio.sleep(0.05)
    finally:
        await hive.kill()


async def test_an_api_key_others_can_read_is_refused_and_never_shown(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-very-secret\n")
    key.chmod(0o644)
    hive = Hive(tmp_path / "hive", {**QUICK, "HIVE_API_KEY_FILE": str(key)})
    with pytest.raises(AssertionError, match="chmod 600"):
        await hive.start()
    assert "very-secret" not in hive.log()
    key.chmod(0o600)
    async with running_hive(tmp_path / "hive", **QUICK, HIVE_API_KEY_FILE=str(key)) as hive:
        copy = hive.paths.claude("hm1nd") / "api-key"
        await eventually(copy.exists, "the manager has the key")
        assert copy.read_text() == "sk-very-secret\n"
        assert copy.stat().st_mode & 0o777 == 0o600
        for pid in [hive.process.pid, *agents_of(hive)]:  # type: ignore[union-attr]
            for name in ("cmdline", "environ"):
                assert b"very-secret" not in Path(f"/proc/{pid}/{name}").read_bytes()
        assert "very-secret" not in hive.log()


async def test_what_an_agent_puts_in_the_way_of_its_socket_stops_neither_the_daemon_nor_the_others(
    tmp_path: Path,
) -> None:
    async with running_hive(tmp_path / "hive", **QUICK) as hive:
        await hive.spawn("alice", "bob")
    socket = hive.paths.socket("alice")
    socket.unlink(missing_ok=True)
    (socket / "deep" / "er").mkdir(parents=True)
    (socket / "deep" / "link").symlink_to("/")
    hive.paths.socket("bob").unlink(missing_ok=True)
    hive.paths.socket("bob").symlink_to("/etc/passwd")
    passwd = Path("/etc/passwd").stat()
    async with running_hive(tmp_path / "hive", **QUICK) as again:
        for name in ("alice", "bob", "hm1nd"):
            await eventually(lambda name=name: again.is_idle(name), f"{name} is idle")
    assert (Path("/etc/passwd").stat().st_mode, Path("/etc/passwd").stat().st_uid) == (
        passwd.st_mode,
        passwd.st_uid,
    )


async def test_an_agent_that_cannot_start_leaves_the_daemon_and_the_others_well(tmp_path: Path) -> None:
    async with running_hive(tmp_path / "hive", **QUICK) as hive:
        await hive.spawn("alice", "bob")
    hive.paths.state("alice").rename(tmp_path / "moved")
    async with running_hive(tmp_path / "hive", **QUICK) as again:
        await eventually(lambda: again.is_idle("bob"), "bob is idle")
        await eventually(lambda: is_in(again, "alice", AgentState.CRASHED), "alice is shown as crashed")
        view = await again.agent("alice")
        assert view is not None
        assert "rebuild alice" in view.note
        await again.call(wire.Rebuild(name="alice"))
        await eventually(lambda: again.is_idle("alice"), "alice is idle")


async def test_restarts_of_what_keeps_crashing_are_ever_further_apart_until_the_operator_starts_it(
    tmp_path: Path,
) -> None:
    environment = {**QUICK, "HIVE_RESTART_BACKOFF_MAX_SECONDS": "0.6", "HIVE_HEALTHY_AFTER_SECONDS": "3600"}
    async with running_hive(tmp_path / "hive", **environment) as hive:
        await hive.spawn("alice")
        for _ in range(3):
            await crash(hive, "alice")
        await hive.call(wire.Kill(name="alice"))
        await hive.call(wire.Start(name="alice"))
        await crash(hive, "alice")
        lines = [line for line in hive.log().splitlines() if "alice crashed" in line]
        assert [line.rpartition("again in ")[2] for line in lines] == ["0.3 s", "0.6 s", "0.6 s", "0.3 s"]
        told = [fact for fact in await facts(hive) if fact["event"] == "container_crashed"]
        assert len(told) == 2  # the first of each series


async def crash(hive: Hive, name: str) -> None:
    """Kill its harness, and wait until another one runs."""
    view = await hive.agent(name)
    assert view is not None
    assert view.pid is not None
    before = view.pid
    os.kill(before, signal.SIGKILL)

    async def again() -> bool:
        view = await hive.agent(name)
        return view is not None and view.state is AgentState.RUNNING and view.pid != before

    await eventually(again, f"{name} runs again")
