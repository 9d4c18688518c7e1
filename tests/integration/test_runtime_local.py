"""The local runtime with real processes, in bubblewrap and without: one contract for both."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hive_core.config import AgentLimits
from hive_core.containers.base import Bind, Condition, ContainerSpec, StatusChange
from hive_core.containers.bubblewrap import NoBubblewrap, find_sandbox
from hive_core.containers.cgroups import CgroupLimiter, ProcessLimiter, find_limiter
from hive_core.containers.local import LocalRuntime, StartFailed
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support.container_bench import none_left, processes_with

WAIT_SECONDS = 60.0  # guards against hanging


@dataclass
class Bench:
    """A runtime, what it told, and a directory that its containers can write."""

    runtime: LocalRuntime
    paths: HostPaths
    scratch: Path
    changes: list[StatusChange] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, change: StatusChange) -> None:
        self.changes.append(change)
        self.changed.set()

    @property
    def inside(self) -> Path:
        return Path("/scratch") if self.runtime.isolated else self.scratch

    def spec(self, script: str, name: str = "alice") -> ContainerSpec:
        return ContainerSpec(
            agent=name,
            container=f"h-{name}",
            command=["/bin/sh", "-c", f"cd {self.inside}\n{script}"],
            environment={"GREETING": "hello"},
            binds=[Bind(self.scratch, Path("/scratch"), writable=True)],
            workdir=Path("/"),
        )

    async def run(self, script: str, name: str = "alice") -> None:
        await self.runtime.create(self.spec(script, name))
        await self.runtime.start(name)

    async def down(self) -> StatusChange:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                for change in self.changes:
                    if change.condition is Condition.DOWN:
                        return change
                self.changed.clear()
                await self.changed.wait()

    async def log_has(self, text: str, name: str = "alice") -> list[str]:
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in self.runtime.follow(name, 1000):
                if text in line:
                    return list(await self.runtime.logs(name, 1000))
        raise AssertionError


async def make_bench(root: Path, isolated: bool, limits: AgentLimits | None = None) -> Bench:
    paths = HostPaths.under(root)
    paths.logs.mkdir(parents=True)
    scratch = root / "scratch"
    scratch.mkdir()
    sandbox = await find_sandbox() if isolated else None
    limiter = find_limiter(paths.state_root, limits or AgentLimits())
    runtime = LocalRuntime(paths, sandbox, limiter, stop_grace_seconds=30)
    if runtime.owner is not None:
        os.chown(scratch, runtime.owner, runtime.owner)
    made = Bench(runtime, paths, scratch)
    runtime.subscribe(made.note)
    return made


async def can_isolate() -> bool:
    try:
        await find_sandbox()
    except NoBubblewrap:
        return False
    return True


@pytest.fixture(params=["bubblewrap", "plain"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    isolated = request.param == "bubblewrap"
    if isolated:
        need(await can_isolate(), "bubblewrap does not work on this machine")
    made = await make_bench(tmp_path / "hive", isolated)
    try:
        yield made
    finally:
        await made.runtime.close()


async def test_it_runs_the_command_and_says_so(bench: Bench) -> None:
    await bench.run("touch here; echo $GREETING from $(id -u); exec sleep 1000")
    lines = await bench.log_has("hello from")
    assert "hello from 0" in lines or not bench.runtime.isolated
    assert (bench.scratch / "here").exists()
    status = bench.runtime.status("alice")
    assert status.condition is Condition.UP
    assert bench.runtime.list() == ["alice"]
    assert status.pid is not None
    assert [(change.condition, change.asked) for change in bench.changes] == [(Condition.UP, True)]


async def test_a_start_of_what_runs_changes_nothing(bench: Bench) -> None:
    await bench.run("exec sleep 1000")
    before = bench.runtime.status("alice")
    await bench.runtime.start("alice")
    assert bench.runtime.status("alice") == before


async def test_stop_asks_the_harness_and_waits_for_its_end(bench: Bench) -> None:
    await bench.run(
        "trap 'echo asked; sleep 0.2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    )
    await bench.log_has("ready")
    await bench.runtime.stop("alice")
    assert "bye" in await bench.runtime.logs("alice", 100)
    assert bench.runtime.status("alice").condition is Condition.DOWN
    change = await bench.down()
    assert change.asked


async def test_what_ignores_the_request_is_killed_after_the_grace_time(bench: Bench) -> None:
    bench.runtime._grace_seconds = 0.3
    await bench.run("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    await bench.log_has("ready")
    await bench.runtime.stop("alice")
    assert bench.runtime.status("alice").condition is Condition.DOWN


async def test_nothing_that_the_harness_started_outlives_it(bench: Bench) -> None:
    marker = f"orphan-{os.getpid()}-{bench.runtime.isolation.replace(' ', '')}"
    await bench.run(
        f"export MARK={marker}\n"
        "setsid sh -c 'trap \"\" TERM; setsid sleep 1000 & sleep 1000' & \n"
        "(nohup sleep 1000 >/dev/null 2>&1 &)\n"
        "echo ready; sleep 1000"
    )
    await bench.log_has("ready")
    assert len(processes_with(marker)) >= 3
    await bench.runtime.stop("alice")
    await none_left(marker)


async def test_a_crash_is_told_with_its_exit_code_and_takes_its_children_along(bench: Bench) -> None:
    marker = f"crash-{os.getpid()}-{bench.runtime.isolation.replace(' ', '')}"
    await bench.run(f"export MARK={marker}; setsid sleep 1000 & echo ready; sleep 0.1; exit 3")
    change = await bench.down()
    assert (change.asked, change.note) == (False, "exit code 3")
    await none_left(marker)


async def test_a_killed_harness_is_told_by_its_signal(bench: Bench) -> None:
    await bench.run("echo ready; exec sleep 1000")
    await bench.log_has("ready")
    pid = bench.runtime.status("alice").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    change = await bench.down()
    assert not change.asked
    assert "SIGKILL" in change.note


async def test_it_can_be_started_again_after_a_crash(bench: Bench) -> None:
    await bench.run("echo again >> count; sleep 0.2; exit 1")
    await bench.down()
    bench.changes.clear()
    await bench.runtime.start("alice")
    await bench.down()
    assert (bench.scratch / "count").read_text() == "again\nagain\n"


async def test_destroy_forgets_the_container_and_keeps_its_directories(bench: Bench) -> None:
    await bench.run("echo kept > file; echo ready; exec sleep 1000")
    await bench.log_has("ready")
    await bench.runtime.destroy("alice")
    assert bench.runtime.status("alice").condition is Condition.GONE
    assert (bench.scratch / "file").read_text() == "kept\n"
    await bench.runtime.destroy("alice")


async def test_no_secret_of_the_environment_is_in_any_arguments(bench: Bench) -> None:
    spec = replace(bench.spec("echo ready; exec sleep 1000"), environment={"QUIET": "s3cr3t-argument"})
    await bench.runtime.create(spec)
    await bench.runtime.start("alice")
    await bench.log_has("ready")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                assert b"s3cr3t-argument" not in (entry / "cmdline").read_bytes()
            except OSError:
                continue


async def test_environment_of_core_does_not_reach_a_container(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORE_ONLY", "must not be seen")
    await bench.run("env; echo done; exec sleep 1000")
    lines = await bench.log_has("done")
    assert not [line for line in lines if "CORE_ONLY" in line]
    assert "GREETING=hello" in lines


# --- console ---


async def test_the_console_is_bounded_on_disk_and_keeps_the_end(bench: Bench) -> None:
    bench.runtime._log_max_bytes = 64 * 1024
    await bench.run(
        "i=0; while [ $i -lt 6000 ]; do echo line number $i; i=$((i+1)); done; echo finished; exec sleep 1000"
    )
    lines = await bench.log_has("finished")
    assert lines[-2:] == ["line number 5999", "finished"]
    assert len(lines) < 6000
    files = [bench.paths.log_file("alice"), bench.paths.logs / "alice.log.1"]
    assert sum(file.stat().st_size for file in files) <= 64 * 1024
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]


async def test_nothing_on_the_console_acts_on_a_terminal(bench: Bench) -> None:
    await bench.run(
        r"printf '\033]0;title\007\033[2J\342\200\256evil\rnext\n\377\376 bytes\n'; echo done; sleep 1000"
    )
    lines = await bench.log_has("done")
    text = "\n".join(lines)
    assert "evil" in text
    assert not [character for character in text if character < " " and character != "\n"]
    assert "\u202e" not in text
    raw = bench.paths.log_file("alice").read_bytes()
    assert b"\x1b" not in raw


async def test_a_line_without_end_costs_no_memory(bench: Bench) -> None:
    await bench.run("head -c 300000 /dev/zero | tr '\\0' x; echo; echo done; exec sleep 1000")
    lines = await bench.log_has("done")
    assert max(map(len, lines)) <= 8192
    assert sum(line.count("x") for line in lines if set(line) == {"x"}) == 300000


async def test_followers_get_every_line_once(bench: Bench) -> None:
    await bench.runtime.create(
        bench.spec("for i in 1 2 3; do echo n$i; done; read x < go; echo n4; exec sleep 1000")
    )
    os.mkfifo(bench.scratch / "go")
    if bench.runtime.owner is not None:
        os.chown(bench.scratch / "go", bench.runtime.owner, -1)
    await bench.runtime.start("alice")
    await bench.log_has("n3")
    seen = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for line in bench.runtime.follow("alice", 100):
            if line.startswith("n"):
                seen.append(line)
            if line == "n3":
                await asyncio.to_thread((bench.scratch / "go").write_text, "x\n")
            if line == "n4":
                break
    assert seen == ["n1", "n2", "n3", "n4"]


# --- what cannot start ---


async def test_a_command_that_cannot_run_is_a_failure_with_the_reason(bench: Bench) -> None:
    spec = replace(bench.spec(""), command=["/nowhere/program"])
    await bench.runtime.create(spec)
    try:
        await bench.runtime.start("alice")
    except StartFailed:
        pass  # known at once, or a crash right after
    else:
        assert not (await bench.down()).asked
    assert [line for line in await bench.runtime.logs("alice", 10) if "/nowhere/program" in line]
    assert bench.runtime.status("alice").condition is Condition.DOWN


async def test_a_missing_bind_is_a_failed_start_that_leaves_nothing(tmp_path: Path) -> None:
    need(await can_isolate(), "bubblewrap does not work on this machine")
    bench = await make_bench(tmp_path / "hive", isolated=True)
    spec = replace(bench.spec("sleep 1"), binds=[Bind(tmp_path / "absent", Path("/x"))])
    await bench.runtime.create(spec)
    with pytest.raises(StartFailed, match="absent"):
        await bench.runtime.start("alice")
    assert bench.runtime.status("alice").condition is Condition.DOWN
    assert bench.changes == []
    await bench.runtime.close()


# --- limits ---


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Bench]:
    limits = AgentLimits(memory_max_bytes=96 * 2**20, tasks_max=32)
    need(await can_isolate(), "bubblewrap does not work on this machine")
    made = await make_bench(tmp_path / "hive", isolated=True, limits=limits)
    try:
        yield made
    finally:
        await made.runtime.close()


def needs_cgroups(bench: Bench) -> None:
    need(isinstance(bench.runtime._limiter, CgroupLimiter), f"no cgroups here: {bench.runtime.limits}")


async def start_limited(bench: Bench, code: str) -> None:
    limits = AgentLimits(memory_max_bytes=96 * 2**20, tasks_max=32)
    prefixes = {Path(sys.prefix), Path(sys.base_prefix)}
    binds = [Bind(prefix, prefix) for prefix in prefixes if not prefix.is_relative_to("/usr")]
    spec = replace(bench.spec(""), command=[sys.executable, "-I", "-c", code], binds=binds, limits=limits)
    await bench.runtime.create(spec)
    await bench.runtime.start("alice")


async def test_memory_beyond_the_limit_ends_the_container_and_is_named(limited: Bench) -> None:
    needs_cgroups(limited)
    await start_limited(limited, "x = bytearray(400 * 2**20); import time; time.sleep(1000)")
    change = await limited.down()
    assert "out of memory" in change.note


async def test_tasks_beyond_the_limit_are_refused_to_the_container_alone(limited: Bench) -> None:
    needs_cgroups(limited)
    code = (
        "import os, time\nmade = 0\n"
        "try:\n  while made < 500:\n    if os.fork() == 0: time.sleep(1000)\n    made += 1\n"
        "except OSError as error: print('refused after', made, flush=True)\n"
        "time.sleep(1000)"
    )
    await start_limited(limited, code)
    lines = await limited.log_has("refused after")
    made = next(int(line.split()[-1]) for line in lines if "refused after" in line)
    assert made < 32
    await limited.runtime.stop("alice")


async def test_groups_are_removed_with_their_container(limited: Bench) -> None:
    needs_cgroups(limited)
    assert isinstance(limited.runtime._limiter, CgroupLimiter)
    bases = [hierarchy.base for hierarchy in limited.runtime._limiter._hierarchies]
    await limited.run("exec sleep 1000")
    assert all((base / "h-alice").is_dir() for base in bases)
    await limited.runtime.stop("alice")
    assert not any((base / "h-alice").exists() for base in bases)
    await limited.runtime.close()
    assert not any(base.exists() for base in bases)


async def test_groups_a_killed_daemon_left_are_emptied_and_removed(tmp_path: Path) -> None:
    limiter = find_limiter(tmp_path, AgentLimits())
    need(isinstance(limiter, CgroupLimiter), f"no cgroups here: {limiter.words}")
    stray = await asyncio.create_subprocess_exec("sleep", "1000")
    for procs in limiter.prepare("h-old", AgentLimits()):
        procs.write_text(str(stray.pid))
    again = find_limiter(tmp_path, AgentLimits())
    assert await stray.wait() == -signal.SIGKILL
    assert isinstance(again, CgroupLimiter)
    assert not any((hierarchy.base / "h-old").exists() for hierarchy in again._hierarchies)
    again.close()


async def test_without_cgroups_each_process_is_limited_and_the_words_say_so(tmp_path: Path) -> None:
    need(await can_isolate(), "bubblewrap does not work on this machine")
    bench = await make_bench(tmp_path / "hive", isolated=True)
    bench.runtime._limiter = ProcessLimiter(AgentLimits(), "for this test")
    await start_limited(bench, "x = bytearray(400 * 2**20)")
    change = await bench.down()
    assert change.note == "exit code 1"
    assert [line for line in await bench.runtime.logs("alice", 20) if "MemoryError" in line]
    assert "not for the container" in bench.runtime.limits
    await bench.runtime.close()
