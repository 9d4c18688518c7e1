"""The program that builds hangs, is killed, or its build is cancelled: it is told, and nothing stays."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from hive_core.containers import local_build
from hive_core.containers.base import BuildFailed
from hive_core.containers.local_build import Machine, build_apart
from tests.support.claude import running
from tests.support.hive import eventually
from tests.support.process_facts import descendants


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in; what the test writes there is run in the place of the builder."""
    program = tmp_path / "builder"
    monkeypatch.setattr(sys, "executable", str(program))
    return program


def runs(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


async def its_processes() -> list[int]:
    """The builder, and the two that it started. It can write no file that would tell them."""

    def there() -> list[int]:
        return [each.pid for each in descendants(os.getpid()) if SECONDS in " ".join(each.command)]

    found: list[int] = await eventually(lambda: there() if len(there()) >= 2 else [], "it runs")
    return found


SECONDS = "60000"  # as nobody else sleeps
HANGS = f"sleep {SECONDS} & sleep {SECONDS}"


async def test_a_builder_that_hangs_is_ended_with_all_that_it_started(
    builder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(builder, HANGS)
    monkeypatch.setattr(local_build, "BUILD_SECONDS", 3.0)
    building = asyncio.create_task(build_apart(tmp_path, print, Machine()))
    processes = await its_processes()
    with pytest.raises(BuildFailed, match="could not be evaluated"):
        await building
    await eventually(lambda: not any(map(running, processes)), "nothing of it is left", every_seconds=0.05)


async def test_a_build_that_is_cancelled_leaves_nothing(builder: Path, tmp_path: Path) -> None:
    runs(builder, HANGS)
    building = asyncio.create_task(build_apart(tmp_path, print, Machine()))
    processes = await its_processes()
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    assert building.cancelled()
    await eventually(lambda: not any(map(running, processes)), "nothing of it is left", every_seconds=0.05)


@pytest.mark.parametrize("when", ["at once", "after half of its answer"])
async def test_a_builder_that_is_killed_gives_no_half_system(
    builder: Path, tmp_path: Path, when: str
) -> None:
    said = """echo reading >&2; printf '{"options": {'""" if when != "at once" else ""
    runs(builder, f"{said}\nkill -9 $$")
    told: list[str] = []
    with pytest.raises(BuildFailed, match="could not be evaluated"):
        await build_apart(tmp_path, told.append, Machine())
    assert told == (["reading"] if said else [])
