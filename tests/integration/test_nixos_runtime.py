"""What the NixOS runtime does beyond the contract: traps of nixos-container, adoption, limits, listing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hive_core.config import AgentLimits
from hive_core.containers.base import Bind, BuildFailed, Condition, ContainerSpec
from hive_core.containers.command import CommandFailed
from hive_core.containers.nixos import NixosRuntime, Options, StartFailed
from hive_shared.errors import Conflict, HiveError
from tests.conftest import need
from tests.support.container_bench import (
    WAIT_SECONDS,
    Bench,
    nixos,
    nixos_runtime,
    none_left,
    open_bench,
    processes_with,
)
from tests.support.nixos_stand_in import NixosHost

SLEEP = "echo >ready; exec sleep 1000"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = await open_bench("nixos", tmp_path)
    try:
        yield made
    finally:
        await made.close()


def host_of(bench: Bench) -> NixosHost:
    assert bench.host is not None
    return bench.host


def installed(bench: Bench, name: str = "h-alice") -> str:
    return os.path.realpath(host_of(bench).places.profiles / name / "system")


def flake_of(spec: ContainerSpec) -> Path:
    return Path(str(spec.system["flake"]).removeprefix("path:"))


def verbs(bench: Bench) -> list[str]:
    return [call["arguments"][0] for call in host_of(bench).calls("nixos_container")]


async def ended(host: NixosHost, container: str) -> None:
    """Returns once systemd knows that the container ended, which is a moment after its processes did."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (await host.run("systemctl", "is-active", "--quiet", f"container@{container}"))[0] == 0:
            await asyncio.sleep(0.02)


# --- the traps of nixos-container ---


async def test_a_failed_create_leaves_no_container_and_the_next_one_works(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    (flake_of(spec) / "fail").write_text("error: the disk is full")
    with pytest.raises(CommandFailed, match=r"create h-alice .*exit code 255.*the disk is full"):
        await bench.runtime.create(spec)
    assert not host_of(bench).conf("h-alice").exists()
    assert bench.runtime.list() == []
    (flake_of(spec) / "fail").unlink()
    await bench.runtime.create(spec)
    assert installed(bench) == spec.system["path"]


async def test_a_create_that_was_given_up_leaves_no_container_and_no_process(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    mark = f"given-up-{os.getpid()}-{bench.root.name}"
    (flake_of(spec) / "hang").write_text(mark)
    creating = asyncio.create_task(bench.runtime.create(spec))
    async with asyncio.timeout(WAIT_SECONDS):
        while not processes_with(mark):
            await asyncio.sleep(0.02)
    assert host_of(bench).conf("h-alice").exists()
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    assert creating.cancelled()
    assert not host_of(bench).conf("h-alice").exists()
    await none_left(mark)


async def test_what_a_killed_core_left_half_made_is_finished(bench: Bench) -> None:
    """`create` writes the conf, and only then builds: killed between the two, it leaves the conf alone."""
    spec = await bench.spec(SLEEP)
    conf = host_of(bench).conf("h-alice")
    conf.write_text(f"PRIVATE_NETWORK=1\nHOST_ADDRESS=10.233.1.1\nFLAKE={spec.system['flake']}\n")
    await bench.runtime.create(spec)
    assert installed(bench) == spec.system["path"]
    assert "HOST_ADDRESS=\n" in conf.read_text()
    await bench.runtime.start("alice")
    await bench.wrote("ready")


async def test_containers_made_at_once_get_each_its_own_system(bench: Bench) -> None:
    """`./.tmp` is the link of whoever builds in that directory."""
    names = ("alice", "bob")
    systems = [await bench.build({"payload.sh": name, "slow-link": "0.3"}, name) for name in names]
    specs = [
        replace(await bench.spec("", name), system=system)
        for name, system in zip(names, systems, strict=True)
    ]
    await asyncio.gather(*(bench.runtime.create(spec) for spec in specs))
    assert [installed(bench, f"h-{name}") for name in names] == [system["path"] for system in systems]
    places = [call["directory"] for call in host_of(bench).calls("nixos_container")]
    assert len(set(places)) == len(places) == 2
    assert not any(Path(place).exists() for place in places)


async def test_the_stand_in_has_that_trap(bench: Bench, tmp_path: Path) -> None:
    systems = [await bench.build({"payload.sh": name, "slow-link": "0.5"}, name) for name in ("alice", "bob")]

    async def create(name: str, flake: str) -> int:
        process = await asyncio.create_subprocess_exec(
            host_of(bench).bin / "nixos-container", "create", f"h-{name}", "--flake", f"{flake}#default",
            "--option", "extra-experimental-features", "nix-command flakes", cwd=tmp_path,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait()

    first = asyncio.create_task(create("alice", systems[0]["flake"]))
    async with asyncio.timeout(WAIT_SECONDS):
        while not os.path.lexists(tmp_path / ".tmp"):
            await asyncio.sleep(0.01)
    await asyncio.gather(first, create("bob", systems[1]["flake"]))
    assert installed(bench) != systems[0]["path"]


async def test_another_system_than_was_built_is_an_error(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    (flake_of(spec) / "changed").write_text("by whoever can write here")
    with pytest.raises(HiveError, match="was to get"):
        await bench.runtime.create(spec)


async def test_an_update_names_its_flake_and_happens_only_when_the_system_changed(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    await bench.runtime.create(spec)
    await bench.runtime.create(spec)
    assert verbs(bench) == ["create"]
    again = await bench.spec("echo other; exec sleep 1000")
    await bench.runtime.create(again)
    assert verbs(bench) == ["create", "update"]
    call = host_of(bench).calls("nixos_container")[-1]["arguments"]
    assert call[call.index("--flake") + 1] == f"{again.system['flake']}#default"
    assert installed(bench) == again.system["path"]
    assert f"FLAKE={again.system['flake']}\n" in host_of(bench).conf("h-alice").read_text()


async def test_a_failed_update_leaves_the_container_as_it_was(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    await bench.runtime.create(spec)
    conf = host_of(bench).conf("h-alice").read_text()
    again = await bench.spec("echo other; exec sleep 1000")
    (flake_of(again) / "fail").write_text("error: out of memory")
    with pytest.raises(CommandFailed, match="out of memory"):
        await bench.runtime.create(again)
    assert installed(bench) == spec.system["path"]
    assert host_of(bench).conf("h-alice").read_text() == conf


async def test_what_somebody_added_to_the_conf_stays(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    await bench.runtime.create(spec)
    conf = host_of(bench).conf("h-alice")
    conf.write_text("# mine\nMACVLANS=eth9\n" + conf.read_text().replace("AUTO_START=0", "AUTO_START=1"))
    await bench.runtime.create(spec)
    assert conf.read_text().startswith("# mine\nMACVLANS=eth9\n")
    assert "AUTO_START=0\n" in conf.read_text()


async def test_only_binds_and_network_make_a_restart_necessary(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    assert not await bench.runtime.create(spec)
    await bench.runtime.start("alice")
    assert not await bench.runtime.create(spec)
    assert not await bench.runtime.create(
        replace(await bench.spec("exec sleep 2000"), limits=AgentLimits(tasks_max=99))
    )
    (bench.root / "more").mkdir()
    more = replace(spec, binds=[*spec.binds, Bind(bench.root / "more", Path("/more"))])
    assert await bench.runtime.create(more)
    assert bench.runtime.status("alice").condition is Condition.UP
    await bench.runtime.stop("alice")
    await bench.runtime.start("alice")
    assert not await bench.runtime.create(more)


async def test_a_system_of_another_runtime_is_refused_with_what_to_do(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    for system in ({}, {"version": 1, "environment": {}}):
        with pytest.raises(HiveError, match="rebuild alice"):
            await bench.runtime.create(replace(spec, system=system))
    assert verbs(bench) == []


@pytest.mark.parametrize("bad", ["with space", "co:lon", "quo'te"])
async def test_a_bind_that_the_conf_cannot_hold_is_refused_before_anything_is_touched(
    bench: Bench, bad: str
) -> None:
    spec = await bench.spec(SLEEP)
    (bench.root / bad).mkdir()
    with pytest.raises(HiveError, match="cannot be given to a container"):
        await bench.runtime.create(replace(spec, binds=[Bind(bench.root / bad, Path("/x"))]))
    assert verbs(bench) == []


async def test_a_bind_that_is_not_there_or_a_link_is_refused(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    with pytest.raises(HiveError, match="absent is to be given to a container, and is not there"):
        await bench.runtime.create(replace(spec, binds=[Bind(bench.root / "absent", Path("/x"))]))
    (bench.root / "link").symlink_to("/etc")
    with pytest.raises(HiveError, match="it is a link"):
        await bench.runtime.create(replace(spec, binds=[Bind(bench.root / "link", Path("/x"))]))


# --- others on the host ---


async def test_a_container_of_somebody_else_with_such_a_name_is_never_touched(bench: Bench) -> None:
    host = host_of(bench)
    theirs = await bench.build({"payload.sh": "exec sleep 1000"}, "bob")
    conf = host.conf("h-bob")
    conf.write_text("AUTO_START=1\nFLAKE=path:/home/somebody/flake\n")
    (host.places.profiles / "h-bob").mkdir()
    (host.places.profiles / "h-bob/system").symlink_to(str(theirs["path"]))
    assert (await host.run("systemctl", "start", "container@h-bob"))[0] == 0
    before = conf.read_text()
    with pytest.raises(Conflict, match="h-bob was not made by this hive"):
        await bench.runtime.create(await bench.spec(SLEEP, "bob"))
    with pytest.raises(Conflict):
        await bench.runtime.start("bob")
    await bench.runtime.stop("bob")
    await bench.runtime.destroy("bob")
    bench.runtime.kill_all()
    assert bench.runtime.list() == []
    assert bench.runtime.status("bob").condition is Condition.GONE
    assert await bench.runtime.logs("bob", 100) == []
    assert conf.read_text() == before
    assert verbs(bench) == []
    assert bench.changes == []
    assert (await host.run("systemctl", "is-active", "container@h-bob"))[0] == 0


async def test_what_was_logged_before_a_container_was_ours_is_not_its_own(bench: Bench) -> None:
    await bench.run("echo of the first; echo >ready; exec sleep 1000")
    await bench.log_has("of the first")
    await bench.runtime.destroy("alice")
    await asyncio.sleep(1.1)  # the conf has whole seconds
    await bench.run("echo of the second; exec sleep 1000")
    lines = await bench.log_has("of the second")
    assert not [line for line in lines if "first" in line]


# --- core comes and goes ---


async def test_containers_outlive_core_and_the_next_one_takes_them_over(bench: Bench) -> None:
    await bench.run(SLEEP)
    await bench.wrote("ready")
    before = bench.runtime.status("alice")
    await bench.runtime.close()
    following = await nixos(bench.root, host=host_of(bench))
    following.runtime.subscribe(following.note)
    try:
        assert following.runtime.status("alice") == before
        assert following.runtime.list() == ["alice"]
        assert following.changes == []
        await following.runtime.start("alice")
        assert following.runtime.status("alice") == before
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        assert not (await following.told(Condition.DOWN)).asked
    finally:
        await following.runtime.close()


async def test_a_crash_while_there_was_no_core_is_down_at_the_first_listing(bench: Bench) -> None:
    await bench.run(SLEEP)
    pid = bench.runtime.status("alice").pid
    await bench.runtime.close()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await ended(host_of(bench), "h-alice")
    following = await nixos(bench.root, host=host_of(bench))
    assert following.runtime.status("alice").condition is Condition.DOWN
    await following.runtime.close()


async def test_a_container_that_the_owner_restarted_is_told_as_ended_and_begun(bench: Bench) -> None:
    await bench.run(SLEEP)
    host = host_of(bench)
    await host.run("systemctl", "stop", "container@h-alice")
    assert not (await bench.told(Condition.DOWN)).asked
    bench.changes.clear()
    await host.run("systemctl", "start", "container@h-alice")
    assert not (await bench.told(Condition.UP)).asked
    assert not await bench.runtime.create(await bench.spec(SLEEP))  # from the same conf


async def test_looking_at_status_and_list_runs_no_program(bench: Bench) -> None:
    await bench.run(SLEEP)
    await asyncio.sleep(0.5)  # what systemd reported of the start is done with
    before = len(host_of(bench).calls())
    for _ in range(100):
        assert bench.runtime.status("alice").condition is Condition.UP
        assert bench.runtime.list() == ["alice"]
    assert len(host_of(bench).calls()) == before
    assert len([call for call in host_of(bench).calls("journalctl") if "--follow" in call["arguments"]]) == 1


async def test_a_follower_that_ends_is_started_again_and_nothing_is_missed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.run(SLEEP)
    [follower] = [pid for pid in processes_with(f"{host_of(bench).root}/systemd.sock") if _is_follower(pid)]
    os.kill(follower, signal.SIGKILL)
    pid = bench.runtime.status("alice").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert not (await bench.told(Condition.DOWN)).asked
    assert "cannot be followed" in caplog.text


def _is_follower(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"--follow" in words and b"journalctl" in words


async def test_where_there_is_no_nixos_it_says_what_is_missing(bench: Bench) -> None:
    host = host_of(bench)
    programs = replace(host.programs, nixos_container="/nowhere/nixos-container")
    runtime = NixosRuntime(bench.paths, lambda _: {}, "", places=host.places, programs=programs)
    with pytest.raises(HiveError, match="/nowhere/nixos-container not found"):
        await runtime.open()


# --- building ---


async def test_a_build_that_hangs_is_ended_with_its_children(bench: Bench) -> None:
    mark = f"hang-{os.getpid()}-{bench.root.name}"
    runtime = nixos_runtime(host_of(bench), bench.root, Options(build_timeout_seconds=1.0))
    with pytest.raises(BuildFailed, match=r"longer than 1 seconds.*hanging"):
        await runtime.build("alice", bench.tree({"hang": mark}), lambda _: None)
    await none_left(mark)


async def test_a_cancelled_build_ends_with_its_children(bench: Bench) -> None:
    mark = f"cancel-{os.getpid()}-{bench.root.name}"
    hanging = asyncio.Event()
    building = asyncio.create_task(
        bench.runtime.build(
            "alice", bench.tree({"hang": mark}), lambda line: hanging.set() if line == "hanging" else None
        )
    )
    async with asyncio.timeout(WAIT_SECONDS):
        await hanging.wait()
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    await none_left(mark)


async def test_no_more_builds_at_once_than_were_asked_for(bench: Bench) -> None:
    runtime = nixos_runtime(host_of(bench), bench.root, Options(parallel=1))
    order: list[str] = []

    async def build(name: str) -> None:
        await runtime.build(
            name, bench.tree({"slow-link": "0.2", "payload.sh": name}), lambda _: order.append(name)
        )
        order.append(name)

    await asyncio.gather(build("alice"), build("bob"))
    assert order in (["alice"] * 2 + ["bob"] * 2, ["bob"] * 2 + ["alice"] * 2)


async def test_the_log_of_a_build_comes_line_by_line_and_safe_to_print(bench: Bench) -> None:
    lines: list[str] = []
    tree = bench.tree({"loud": "5000", "fail": "\x1b[2Jevil \u202e end"})
    with pytest.raises(BuildFailed, match="exit code 1"):
        await bench.runtime.build("alice", tree, lines.append)
    assert [line for line in lines if line.startswith("line ")] == [f"line {n}" for n in range(5000)]
    assert not [line for line in lines if "\x1b" in line or "\u202e" in line]


async def test_building_the_same_again_gives_the_same_and_old_ones_are_forgotten(bench: Bench) -> None:
    first = await bench.build({"payload.sh": "echo 0"})
    assert await bench.build({"payload.sh": "echo 0"}) == first
    for number in range(1, 12):
        await bench.build({"payload.sh": f"echo {number}"})
    kept = list((bench.paths.state_root / "nixos/flakes/alice").iterdir())
    assert len(kept) == 8
    with pytest.raises(HiveError, match="rebuild alice"):
        await bench.runtime.create(replace(await bench.spec(SLEEP), system=first))


# --- starting, limits ---


async def test_a_system_that_does_not_come_up_is_a_failed_start_with_its_last_words(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    await bench.runtime.create(spec)
    (Path(str(spec.system["path"])) / "init").write_text("import sys; sys.exit('no such stage')")
    with pytest.raises(StartFailed, match=r"(?s)h-alice.*exit code 1.*no such stage"):
        await bench.runtime.start("alice")
    assert bench.runtime.status("alice").condition is Condition.DOWN
    assert bench.changes == []


async def test_many_starts_after_crashes_are_not_refused(bench: Bench) -> None:
    """systemd's own limit is five in ten seconds; core has a backoff."""
    await bench.run("while ! [ -e go ]; do sleep 0.02; done; exit 1")
    for _ in range(6):
        (bench.scratch / "go").touch()
        await bench.told(Condition.DOWN)
        (bench.scratch / "go").unlink()
        bench.changes.clear()
        await bench.runtime.start("alice")


async def test_systemd_reads_the_drop_in_again_only_when_it_has_to(bench: Bench) -> None:
    spec = await bench.spec(SLEEP)
    await bench.runtime.create(spec)
    await bench.runtime.start("alice")
    await bench.runtime.create(spec)

    def reloads() -> int:
        return len(
            [call for call in host_of(bench).calls("systemctl") if call["arguments"] == ["daemon-reload"]]
        )

    assert reloads() == 0  # it had not read any before
    await bench.runtime.create(replace(spec, limits=AgentLimits(tasks_max=64)))
    assert reloads() == 1
    await bench.runtime.create(replace(spec, limits=AgentLimits(tasks_max=64)))
    assert reloads() == 1


async def test_a_drop_in_that_a_killed_core_did_not_tell_systemd_of_is_told(bench: Bench) -> None:
    await bench.run(SLEEP)
    drop_in = host_of(bench).places.units / "container@h-alice.service.d/50-hyperhive.conf"
    drop_in.write_text(drop_in.read_text().replace("TasksMax=512", "TasksMax=64"))
    following = await nixos(bench.root, host=host_of(bench))
    spec = replace(await following.spec(SLEEP), limits=AgentLimits(tasks_max=64))
    await following.runtime.create(spec)
    assert [call for call in host_of(bench).calls("systemctl") if call["arguments"] == ["daemon-reload"]]
    await following.runtime.close()


async def limited(bench: Bench, code: str) -> None:
    need("cgroup" in host_of(bench).limits, f"no cgroups here: {host_of(bench).limits}")
    limits = AgentLimits(memory_max_bytes=96 * 2**20, tasks_max=32)
    await bench.runtime.create(await bench.spec(f"exec /opt/python/bin/python3 -c '{code}'", limits=limits))
    await bench.runtime.start("alice")


async def test_memory_beyond_the_limit_ends_the_container_and_is_named(bench: Bench) -> None:
    await limited(bench, "x = bytearray(400 * 2**20); import time; time.sleep(1000)")
    change = await bench.told(Condition.DOWN)
    assert (change.asked, change.note) == (False, "out of memory")


async def test_tasks_beyond_the_limit_are_refused(bench: Bench) -> None:
    code = (
        "import os, time\nmade = 0\n"
        "try:\n  while made < 500:\n    if os.fork() == 0: time.sleep(1000)\n    made += 1\n"
        'except OSError as error: print("refused after", made, flush=True)\n'
        "time.sleep(1000)"
    )
    await limited(bench, code)
    lines = await bench.log_has("refused after")
    assert next(int(line.split()[-1]) for line in lines if "refused after" in line) < 32


async def test_limits_of_the_configuration_come_with_its_system(bench: Bench) -> None:
    system = await bench.build({"described": '{"version": 1, "limits": {"tasks_max": 77}}'})
    assert system["limits"]["tasks_max"] == 77


async def test_a_description_that_is_none_fails_the_build(bench: Bench) -> None:
    with pytest.raises(BuildFailed, match=r"agent\.json"):
        await bench.build({"described": '{"limits": {"tasks_max": "many"}}'})
