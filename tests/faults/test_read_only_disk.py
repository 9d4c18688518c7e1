"""The file system under a running daemon turns read-only, as ext4 does when it finds its disk in error.

A real ext4 on a loop device with `errors=remount-ro`, and the kernel's own switch for such an error. The way
back is the operator's: stop, unmount, check, mount, start (docs/operating.md).
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.disk import is_read_only
from hive_core.doctor import Verdict
from hive_core.invariants import examine
from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import HiveError, Unavailable
from hive_shared.names import MANAGER
from hive_shared.wire import AgentState, ApprovalStatus
from tests.conftest import need
from tests.faults.test_deploy_killed import STARTS, greeting_of, submitted
from tests.support.hive import Hive, Operator, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IMAGE_BYTES = 96 * 1024**2
REPAIRED = (0, 1)  # e2fsck: nothing was wrong, or all that was is right now
ADMINISTRATORS = "/usr/sbin:/sbin"  # where a user's PATH does not lead, and these programs are

# Python runs it at its start: once the work on an approval has come to a step, the disk turns.
SITE = """
import os, sys
if "hive_core.cli" in sys.orig_argv and os.environ.get("HIVE_TEST_TURN_AT"):
    from hive_core.approvals import Approvals

    step, number, switch = os.environ["HIVE_TEST_TURN_AT"].split()  # of that approval
    real = Approvals.set_building

    async def set_building(self, approval, what, **more):
        view = await real(self, approval, what, **more)
        if (what, approval) == (step, int(number)):
            with open(switch, "w") as file:
                file.write("1")
        return view

    Approvals.set_building = set_building
"""


class Disk:
    """An ext4 of its own, which can turn read-only like one whose disk has failed."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "disk"
        self._image = directory / "disk.img"
        self._device = ""

    def make(self) -> None:
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> bool:
        done = run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.place), check=False)
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        self._device = next((Path(each[0]).name for each in mounts if each[1] == str(self.place)), "")
        return done.returncode == 0

    @property
    def switch(self) -> Path:
        """Written to, it makes the kernel find an error in this file system."""
        return Path("/sys/fs/ext4", self._device, "trigger_fs_error")

    def turn(self) -> None:
        self.switch.write_text("1")
        assert is_read_only(self.place)

    def unmount(self) -> bool:
        if self._device and run("umount", str(self.place), check=False).returncode == 0:
            self._device = ""
        return not self._device

    async def repaired(self) -> None:
        """What the operator does about it, once the daemon has stopped."""
        device = self._device
        await eventually(self.unmount, "nothing that the daemon started holds the disk")
        backing = Path("/sys/block", device, "loop", "backing_file")
        await eventually(lambda: not self._holds(backing), "the kernel has let go of the image")
        assert run("e2fsck", "-p", str(self._image), check=False).returncode in REPAIRED
        assert self.mount()

    def _holds(self, backing: Path) -> bool:
        with contextlib.suppress(OSError):
            return backing.read_text().strip() == str(self._image)
        return False

    def remove(self) -> None:
        """Whatever happened: no mount and no loop device is left."""
        if not self.unmount():
            run("umount", "--lazy", str(self.place), check=False)
        self._image.unlink(missing_ok=True)


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{ADMINISTRATORS}")


def run(name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    found = program(name)
    assert found is not None
    return subprocess.run([found, *arguments], capture_output=True, check=check, timeout=60)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need(os.geteuid() == 0, "mounting a small disk needs root")
    need(program("mkfs.ext4") and program("e2fsck"), "there is no mkfs.ext4; install the package `e2fsprogs`")
    need(program("mount") and program("umount"), "there is no mount; install the package `mount`")
    disk = Disk(tmp_path)
    disk.make()
    try:
        need(disk.mount(), "this machine does not let root mount a file by a loop device")
        need(disk.switch.exists(), "this kernel's ext4 has no trigger_fs_error")
        yield disk
    finally:
        disk.remove()


@pytest.fixture
async def hive(disk: Disk) -> AsyncIterator[Hive]:
    """Not started yet; its log is on another disk, as journald's mostly is."""
    log = disk.place.parent / "daemon.log"
    log.touch()
    (disk.place / "hive.log").symlink_to(log)
    hive = Hive(disk.place / "hive")
    try:
        yield hive
    finally:
        await hive.kill()
        print(hive.log())  # shown if the test fails


async def broken(hive: Hive) -> list[str]:
    """What `doctor --deep` says beside the daemon, or without one."""
    found = await asyncio.to_thread(examine, hive.paths)
    return [f"{f.name}: {f.found}" for f in found if f.verdict is Verdict.BROKEN]


async def holds(hive: Hive) -> bool:
    return await broken(hive) == []


async def all_that_is_kept(hive: Hive) -> dict[str, Any]:
    """What no refused request may change."""
    agents = (await hive.call(wire.ListAgents())).agents
    approvals = (await hive.call(wire.Pending(all=True))).approvals
    return {
        "agents": [(agent.name, agent.state, agent.pid) for agent in agents],
        "messages": (await hive.call(wire.Messages(limit=500))).messages,
        "approvals": [approval.model_dump(exclude={"bases"}) for approval in approvals],  # looked up anew
        "questions": (await hive.call(wire.Questions(all=True))).questions,
        "reminders": (await hive.call(wire.Reminders())).reminders,
        "schedules": (await hive.call(wire.Schedules())).schedules,
        "budgets": (await hive.call(wire.Budgets())).budgets,
    }


async def refused(hive: Hive, request: wire.Request[Any], by: str = "") -> None:
    """It is told which path, why, and where to read what to do; by the operator, or on an agent's socket."""
    with pytest.raises(Unavailable) as error:
        await call_once(hive.paths.socket(by) if by else hive.paths.host_socket, request)
    assert str(hive.root) in error.value.message
    assert "read-only" in error.value.message
    assert "The disk has turned read-only" in error.value.message


async def refused_in_the_browser(operator: Operator, path: str, **fields: str) -> None:
    reply = await operator.http.post(path, data=fields)
    assert reply.status_code == 503
    assert "The disk has turned read-only" in reply.json()["error"]["message"]


async def command(hive: Hive, *arguments: str) -> tuple[int | None, str]:
    """The command line; without programs to look for, doctor is quick."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hive_core.cli", "--root", str(hive.root), *arguments),
        env={"PATH": "/nonexistent", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def works(hive: Hive, name: str) -> bool:
    agent = await hive.agent(name)
    return agent is not None and agent.report.badge is wire.Badge.THINKING


async def arrived(hive: Hive, *bodies: str) -> bool:
    """Exactly these reached the operator; each is once in the list, or this never comes true."""
    return sorted(message.body for message in await hive.messages()) == sorted(bodies)


async def every_write_is_refused(
    hive: Hive, operator: Operator, spawning: int, submit: int, ask: int
) -> None:
    approval = next(a for a in (await hive.call(wire.Pending())).approvals if a.id == submit)
    for request in (
        wire.Send(to="alice", body="too late"),
        wire.Spawn(name="dora"),
        wire.RequestSpawn(name="dora"),
        wire.Approve(approval_id=spawning),
        wire.Approve(approval_id=submit, commit=approval.commit),
        wire.Deny(approval_id=submit),
        wire.Kill(name="alice"),
        wire.Start(name=MANAGER),
        wire.Restart(name="alice"),
        wire.Rebuild(name="alice"),
        wire.Destroy(name="alice"),
        wire.Answer(question_id=ask, answer="yes"),
        wire.AddSchedule(name="alice", cron="0 0 1 1 *", body="look"),
        wire.AddPermissionRule(name="alice", decision="deny", rule="Bash"),
        wire.SetBudget(name="alice", turns=7),
        wire.MakeLoginUrl(),
    ):
        await refused(hive, request)
    for request in (
        wire.Send(to=MANAGER, body="too late"),
        wire.Ask(to=MANAGER, question="too late?"),
        wire.Ask(to="operator", question="too late?"),
        wire.Remind(body="later", after_seconds=60),
    ):
        await refused(hive, request, by="alice")
    await refused(hive, wire.PrepareSpawn(name="dora"), by=MANAGER)
    await refused_in_the_browser(operator, "/send", to="alice", body="too late")
    await refused_in_the_browser(operator, f"/approve/{spawning}")
    await refused_in_the_browser(operator, f"/deny/{submit}")


async def everything_can_be_read(hive: Hive, operator: Operator) -> None:
    state = await operator.get("/api/state")
    assert {"alice", MANAGER} == {agent["name"] for agent in state["agents"]}
    await operator.get("/api/messages")
    assert (await operator.http.get("/")).status_code == 200
    listed, status, doctor = await asyncio.gather(
        command(hive, "list"), command(hive, "status"), command(hive, "doctor", "--json")
    )
    assert listed[0] == status[0] == 0
    assert "alice" in listed[1]
    assert doctor[0] == 1
    told = {check["name"]: check for check in json.loads(doctor[1][: doctor[1].rindex("}") + 1])["checks"]}
    assert told["state directory"]["verdict"] == "broken"
    assert "read-only" in told["state directory"]["found"]
    assert "The disk has turned read-only" in told["state directory"]["get"]


async def test_a_disk_that_turns_read_only_under_a_daemon_costs_nothing_that_was_answered(
    hive: Hive, disk: Disk
) -> None:
    await hive.start()
    assert hive.process is not None
    await hive.spawn("alice")
    operator = await hive.login()
    done = await hive.send(MANAGER, "send operator once")
    await eventually(lambda: arrived(hive, "once"), "the manager has worked")
    await eventually(lambda: hive.is_idle(MANAGER), "and has acked it")
    await hive.call(wire.Kill(name=MANAGER))
    await hive.send(MANAGER, "send operator awake")
    spawning = (await hive.call(wire.RequestSpawn(name="carol"))).approval.id
    submit = (await submitted(hive, STARTS)).id
    asked = await call_once(hive.paths.socket("alice"), wire.Ask(to="operator", question="go on?"))
    in_hand = await hive.send("alice", "wait 3")
    await hive.send("alice", "send operator next")
    log_before = len(hive.log())
    await eventually(lambda: works(hive, "alice"), "alice works")

    disk.turn()
    before = await all_that_is_kept(hive)
    await every_write_is_refused(hive, operator, spawning, submit, asked.question_id)
    await everything_can_be_read(hive, operator)
    await eventually(lambda: hive.is_idle("alice"), "her turn has ended")
    for _ in range(50):
        await refused(hive, wire.Send(to="alice", body="again and again"))
    assert hive.process.returncode is None  # the one that was started
    assert await all_that_is_kept(hive) == before  # containers and their processes, too
    told = hive.log()[log_before:]
    assert "Traceback" not in told
    assert 1 <= told.count("read-only") < 15

    await operator.close()
    assert await hive.stop() == 0
    assert "Traceback" not in hive.log()
    assert "closing the store" in hive.log()[log_before:]
    await disk.repaired()
    assert await broken(hive) == []
    log_before = len(hive.log())
    await hive.start()
    after = await all_that_is_kept(hive)
    assert {message.id for message in before["messages"]} <= {message.id for message in after["messages"]}
    for what in ("approvals", "questions", "reminders", "schedules", "budgets"):
        assert after[what] == before[what], what

    await hive.call(wire.Start(name=MANAGER))
    await eventually(lambda: arrived(hive, "once", "awake", "next"), "all that waited is worked on")
    await eventually(lambda: hive.is_idle("alice"), "and is acked")
    delivered = hive.log()[log_before:]
    assert f"msg={done} " not in delivered
    assert f"delivered to alice, again msg={in_hand} " in delivered  # its ack was refused
    await hive.call(wire.Deny(approval_id=spawning))
    assert await status_of(hive, spawning) is ApprovalStatus.DENIED
    await eventually(lambda: holds(hive), "the invariants hold")


@pytest.mark.parametrize(("kind", "step"), [("spawn", "start"), ("deploy", "switch")])
async def test_what_was_approved_is_finished_though_the_disk_turned_in_the_middle_of_it(
    hive: Hive, disk: Disk, kind: str, step: str
) -> None:
    (disk.place.parent / "site").mkdir()
    (disk.place.parent / "site" / "sitecustomize.py").write_text(SITE)
    paths = os.pathsep.join(filter(None, (str(disk.place.parent / "site"), os.environ.get("PYTHONPATH"))))
    hive.environment = {"PYTHONPATH": paths, "HIVE_TEST_TURN_AT": f"{step} 2 {disk.switch}"}
    await hive.start()
    await hive.spawn("alice")
    if kind == "spawn":
        approval = (await hive.call(wire.RequestSpawn(name="carol"))).approval
    else:
        approval = await submitted(hive, STARTS)
    assert approval.id == 2
    with pytest.raises(HiveError):
        await hive.call(wire.Approve(approval_id=approval.id, commit=approval.commit))
    assert is_read_only(disk.place)
    assert await status_of(hive, approval.id) is ApprovalStatus.BUILDING
    assert "Traceback" not in hive.log()
    assert await hive.stop() == 0
    await disk.repaired()
    assert await broken(hive) == []

    hive.environment = {}
    await hive.start()

    async def finished() -> bool:
        return await status_of(hive, approval.id) is ApprovalStatus.DEPLOYED

    await eventually(finished, "what was approved is done")
    await eventually(lambda: hive.is_idle("alice" if kind == "deploy" else "carol"), "it runs")
    if kind == "deploy":
        assert await greeting_of(hive) == "starts"
    assert await state_of(hive, "alice") is AgentState.RUNNING
    await eventually(lambda: holds(hive), "the invariants hold")


async def status_of(hive: Hive, number: int) -> ApprovalStatus:
    approvals = (await hive.call(wire.Pending(all=True))).approvals
    return next(approval.status for approval in approvals if approval.id == number)


async def state_of(hive: Hive, name: str) -> AgentState | None:
    agent = await hive.agent(name)
    return None if agent is None else agent.state
