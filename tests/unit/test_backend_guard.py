"""The guard: nothing that a program started outlives it, or us."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hive_agent.backends import guard
from hive_agent.backends.claude_process import guarded
from tests.support.claude import running

# Children in sessions of their own, one of them orphaned at once; their pids go to the file $1.
SPAWN = """
setsid sh -c 'echo $$ >> $1; setsid sleep 3600 & echo $! >> $1' sh "$1"
setsid sleep 3600 & echo $! >> $1
"""


def written(file: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pids = file.read_text().split() if file.exists() else []
        if len(pids) >= count:
            return [int(pid) for pid in pids]
        time.sleep(0.01)
    raise AssertionError(f"{file} never held {count} pids")


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_it_ends_as_its_program_did(script: str, code: int) -> None:
    assert subprocess.run(guarded(["sh", "-c", script]), timeout=30).returncode == code


def test_a_program_that_is_not_there_is_told() -> None:
    done = subprocess.run(guarded(["/nowhere/at-all"]), capture_output=True, timeout=30, text=True)
    assert done.returncode == 127
    assert done.stderr == "cannot start /nowhere/at-all: No such file or directory\n"


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    subprocess.run(guarded(["sh", "-c", SPAWN, "sh", str(pids)]), timeout=30, check=True)
    left = written(pids, 3)
    assert not [pid for pid in left if running(pid)], "all gone before the guard itself ended"


def test_everything_ends_when_the_guard_is_told_to(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = subprocess.Popen(guarded(["sh", "-c", SPAWN + "trap '' TERM; wait", "sh", str(pids)]))
    started = [*written(pids, 3), *guard.descendants(process.pid)]
    assert len(started) >= 4
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert not [pid for pid in started if running(pid)]


def test_everything_ends_when_the_one_who_started_it_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import subprocess, sys\n"
        "from hive_agent.backends.claude_process import guarded\n"
        "subprocess.Popen(guarded(sys.argv[1:])).wait()\n"
    )
    command = [sys.executable, "-c", code, "sh", "-c", SPAWN + "wait", "sh", str(pids)]
    parent = subprocess.Popen(command, cwd=Path(guard.__file__).parents[2])
    started = [*written(pids, 3), *guard.descendants(parent.pid)]
    assert len(started) >= 5, "the guard too"
    parent.kill()
    parent.wait(30)
    assert gone(started)


def test_the_program_ends_when_its_guard_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = subprocess.Popen(guarded(["sh", "-c", 'echo $$ >> "$1"; exec sleep 3600', "sh", str(pids)]))
    started = written(pids, 1)
    process.kill()
    process.wait(30)
    assert gone(started)


def test_input_and_output_are_the_programs_own() -> None:
    done = subprocess.run(guarded(["cat"]), input=b"hello", capture_output=True, timeout=30)
    assert done.stdout == b"hello"
