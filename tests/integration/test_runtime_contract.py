"""What every container runtime promises (containers/base.py), with real containers of each kind."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.containers.base import BuildFailed, Condition
from hive_shared.errors import HiveError
from tests.support.container_bench import (
    RUNTIMES,
    WAIT_SECONDS,
    Bench,
    none_left,
    open_bench,
    processes_with,
)

FOREVER = "while :; do sleep 0.05; done"


@pytest.fixture(params=list(RUNTIMES))
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    made = await open_bench(request.param, tmp_path)
    try:
        yield made
    finally:
        await made.close()


def marker(bench: Bench, what: str) -> str:
    return f"{what}-{os.getpid()}-{bench.root.name}"


# --- status and list ---


async def test_what_was_never_created_is_gone_and_can_be_stopped_and_destroyed(bench: Bench) -> None:
    assert bench.runtime.list() == []
    assert bench.runtime.status("alice").condition is Condition.GONE
    await bench.runtime.stop("alice")
    await bench.runtime.destroy("alice")
    with pytest.raises(HiveError, match="alice"):
        await bench.runtime.start("alice")
    assert bench.changes == []


async def test_a_created_container_is_down_and_listed_and_creating_it_again_changes_nothing(
    bench: Bench,
) -> None:
    spec = await bench.spec("echo ran >>count; exec sleep 1000")
    await bench.runtime.create(spec)
    await bench.runtime.create(spec)
    assert bench.runtime.list() == ["alice"]
    assert bench.runtime.status("alice").condition is Condition.DOWN
    assert bench.changes == []
    assert not (bench.scratch / "count").exists()


async def test_several_containers_are_told_apart(bench: Bench) -> None:
    await bench.run("echo $$ >alice.ran; exec sleep 1000", "alice")
    await bench.run("echo $$ >hm1nd.ran; exec sleep 1000", "hm1nd")
    await bench.wrote("alice.ran")
    await bench.wrote("hm1nd.ran")
    assert bench.runtime.list() == ["alice", "hm1nd"]
    await bench.runtime.stop("alice")
    assert bench.runtime.status("alice").condition is Condition.DOWN
    assert bench.runtime.status("hm1nd").condition is Condition.UP
    assert [change.agent for change in bench.changes] == ["alice", "hm1nd", "alice"]


# --- start ---


async def test_start_returns_when_its_first_process_runs(bench: Bench) -> None:
    await bench.run("echo here >here; exec sleep 1000")
    status = bench.runtime.status("alice")
    assert status.condition is Condition.UP
    assert status.pid is not None
    os.kill(status.pid, 0)
    assert [(change.condition, change.asked) for change in bench.changes] == [(Condition.UP, True)]
    await bench.wrote("here")


async def test_starting_what_runs_changes_nothing(bench: Bench) -> None:
    await bench.run("echo ran >>count; exec sleep 1000")
    await bench.wrote("count")
    before = bench.runtime.status("alice")
    await bench.runtime.start("alice")
    assert bench.runtime.status("alice") == before
    assert (bench.scratch / "count").read_text() == "ran\n"
    assert len(bench.changes) == 1


async def test_a_new_description_takes_effect_at_the_next_start(bench: Bench) -> None:
    await bench.run("echo first >>count; exec sleep 1000")
    await bench.wrote("count")
    await bench.runtime.create(await bench.spec("echo second >>count; exec sleep 1000"))
    assert (bench.scratch / "count").read_text() == "first\n"
    await bench.runtime.stop("alice")
    await bench.runtime.start("alice")
    await bench.wrote("count", "first\nsecond\n")


async def test_a_start_that_was_given_up_leaves_nothing_running(bench: Bench) -> None:
    mark = marker(bench, "given-up")
    await bench.runtime.create(await bench.spec(f"MARK={mark} exec sleep 1000"))
    starting = asyncio.create_task(bench.runtime.start("alice"))
    await asyncio.sleep(0.02)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    if starting.cancelled():
        assert bench.runtime.status("alice").condition is Condition.DOWN
        await none_left(mark)
    else:
        assert bench.runtime.status("alice").condition is Condition.UP  # it was quicker


# --- the end ---


async def test_stop_asks_and_waits_for_its_end(bench: Bench) -> None:
    await bench.run(f"trap 'echo bye >bye; exit 0' TERM; echo >ready; {FOREVER}")
    await bench.wrote("ready")
    await bench.runtime.stop("alice")
    assert (bench.scratch / "bye").read_text() == "bye\n"
    assert bench.runtime.status("alice").condition is Condition.DOWN
    assert [(change.condition, change.asked) for change in bench.changes[1:]] == [(Condition.DOWN, True)]


async def test_stop_leaves_no_process(bench: Bench) -> None:
    mark = marker(bench, "orphan")
    await bench.run(
        f"export MARK={mark}\n"
        "setsid sh -c 'trap \"\" TERM; setsid sleep 1000 & sleep 1000' & \n"
        "(nohup sleep 1000 >/dev/null 2>&1 &)\n"
        "echo >ready; exec sleep 1000"
    )
    await bench.wrote("ready")
    assert len(processes_with(mark)) >= 3
    await bench.runtime.stop("alice")
    await none_left(mark)


async def test_a_crash_is_told_exactly_once_and_unasked(bench: Bench) -> None:
    mark = marker(bench, "crash")
    await bench.run(
        f"export MARK={mark}; setsid sleep 1000 & echo >ready; while ! [ -e go ]; do sleep 0.02; done; exit 3"
    )
    await bench.wrote("ready")
    (bench.scratch / "go").touch()
    change = await bench.told(Condition.DOWN)
    assert (change.asked, change.note) == (False, "exit code 3")
    assert change.ran_seconds > 0
    assert bench.runtime.status("alice").condition is Condition.DOWN
    await none_left(mark)
    await bench.runtime.stop("alice")
    assert [change.condition for change in bench.changes] == [Condition.UP, Condition.DOWN]


async def test_a_killed_container_is_told_as_a_crash(bench: Bench) -> None:
    await bench.run("echo >ready; exec sleep 1000")
    await bench.wrote("ready")
    pid = bench.runtime.status("alice").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    change = await bench.told(Condition.DOWN)
    assert not change.asked
    assert "SIGKILL" in change.note


async def test_it_can_be_started_again_after_a_crash(bench: Bench) -> None:
    await bench.run("echo again >>count; while ! [ -e go ]; do sleep 0.02; done; exit 1")
    (bench.scratch / "go").touch()
    await bench.told(Condition.DOWN)
    (bench.scratch / "go").unlink()
    bench.changes.clear()
    await bench.runtime.start("alice")
    await bench.wrote("count", "again\nagain\n")
    (bench.scratch / "go").touch()
    assert not (await bench.told(Condition.DOWN)).asked


async def test_nobody_but_the_caller_starts_it_again(bench: Bench) -> None:
    await bench.run("echo once >>count; while ! [ -e go ]; do sleep 0.02; done; exit 1")
    (bench.scratch / "go").touch()
    await bench.told(Condition.DOWN)
    await asyncio.sleep(0.3)  # longer than systemd would wait
    assert (bench.scratch / "count").read_text() == "once\n"
    assert bench.runtime.status("alice").condition is Condition.DOWN


async def test_destroy_forgets_the_container_and_keeps_its_directories(bench: Bench) -> None:
    await bench.run("echo kept >file; exec sleep 1000")
    await bench.wrote("file")
    await bench.runtime.destroy("alice")
    assert bench.runtime.status("alice").condition is Condition.GONE
    assert bench.runtime.list() == []
    assert (bench.scratch / "file").read_text() == "kept\n"
    await bench.runtime.destroy("alice")
    await bench.run("echo born again >file; exec sleep 1000")
    await bench.wrote("file", "born again")


async def test_the_emergency_end_kills_everything_at_once(bench: Bench) -> None:
    mark = marker(bench, "emergency")
    await bench.run(f"export MARK={mark}; trap '' TERM; echo >ready; {FOREVER}")
    await bench.wrote("ready")
    bench.runtime.kill_all()
    await none_left(mark)
    await bench.told(Condition.DOWN)


# --- who is told ---


async def test_who_has_left_is_not_told(bench: Bench) -> None:
    others: list[object] = []
    leave = bench.runtime.subscribe(others.append)
    await bench.run("exec sleep 1000")
    assert len(others) == 1
    leave()
    await bench.runtime.stop("alice")
    assert len(others) == 1
    assert len(bench.changes) == 2


# --- the console ---


async def test_logs_are_the_last_lines_and_safe_to_print(bench: Bench) -> None:
    await bench.run(
        r"for i in 1 2 3 4; do echo n$i; done; printf '\033[2Jevil\r\n'; echo finished; exec sleep 1000"
    )
    lines = await bench.log_has("finished")
    assert [line for line in lines if line in {"n1", "n2", "n3", "n4"}] == ["n1", "n2", "n3", "n4"]
    assert not [character for line in lines for character in line if character < " "]
    assert len(await bench.runtime.logs("alice", 2)) == 2


async def test_followers_get_every_line_once(bench: Bench) -> None:
    await bench.run(
        "for i in 1 2 3; do echo n$i; done; while ! [ -e go ]; do sleep 0.02; done; echo n4; exec sleep 1000"
    )
    await bench.log_has("n3")
    seen = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for line in bench.runtime.follow("alice", 100):
            if line.startswith("n") and len(line) == 2:
                seen.append(line)
            if line == "n3":
                (bench.scratch / "go").touch()
            if line == "n4":
                break
    assert seen == ["n1", "n2", "n3", "n4"]


async def test_a_line_without_end_is_cut(bench: Bench) -> None:
    await bench.run("head -c 300000 /dev/zero | tr '\\0' x; echo; echo finished; exec sleep 1000")
    lines = await bench.log_has("finished")
    assert max(map(len, lines)) <= 8192


# --- building ---


async def test_a_build_tells_what_it_does_and_touches_no_container(bench: Bench) -> None:
    await bench.run("echo ran >>count; exec sleep 1000")
    await bench.wrote("count")
    before = bench.runtime.status("alice")
    told: list[str] = []
    await bench.runtime.build("alice", bench.tree({}), told.append)
    assert told
    assert bench.runtime.status("alice") == before
    assert len(bench.changes) == 1


async def test_a_failed_build_says_why_and_leaves_the_container_alone(bench: Bench) -> None:
    await bench.run("echo ran >>count; exec sleep 1000")
    await bench.wrote("count")
    before = bench.runtime.status("alice")
    wrong = bench.tree(
        {"agent.nix": "{ environment.variables = ", "fail": "error: syntax error, unexpected end"}
    )
    with pytest.raises(BuildFailed, match=r"syntax error|expected"):
        await bench.runtime.build("alice", wrong, lambda _: None)
    assert bench.runtime.status("alice") == before
    await bench.runtime.stop("alice")
    await bench.runtime.start("alice")
    await bench.wrote("count", "ran\nran\n")


async def test_a_revision_does_not_change_by_itself(bench: Bench) -> None:
    assert bench.runtime.revision() == bench.runtime.revision() != ""


async def test_words_for_people(bench: Bench) -> None:
    assert bench.runtime.isolation
    assert "memory" in bench.runtime.limits


async def test_new_binds_are_not_shown_without_a_restart_unless_it_says_so(bench: Bench) -> None:
    await bench.run("exec sleep 1000")
    shown = await bench.runtime.attach("alice", [])
    assert shown in (True, False)
