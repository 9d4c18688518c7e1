"""A hostile agent in a NixOS container, and a hostile configuration of one (SECURITY 8, 9, 10, 14).

The containers are real ones of systemd-nspawn, with the binds and the conf that the daemon would give them; their
system is that of the tests' stand-in for a NixOS host, so that what NixOS itself does inside is not attacked here.
"""
# ruff: noqa: E501 - the programs that run inside are easier to read unbroken

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hive_core.config import Settings
from hive_core.containers import nixos_conf
from hive_core.containers.base import BuildFailed
from hive_core.containers.nixos import NixosRuntime, Options
from hive_core.containers.nixos_system import NixosSystem
from hive_core.plan_nixos import NixosPlanner
from hive_core.registry import Registry
from hive_core.store import Store
from hive_core.surfaces.sockets import private_directory
from hive_core.untrusted import write_file
from hive_shared.errors import BadRequest, HiveError, InvalidName
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from tests.support.container_bench import WAIT_SECONDS
from tests.support.nixos_stand_in import NixosHost

# Runs inside, as the harness would; prints what it found as one JSON line.
PRELUDE = """exec /opt/python/bin/python3 -P - <<'END-OF-PROGRAM'
import ctypes, glob, json, os, socket, sys, time
def attempt(work):
    try:
        return work() or "done"
    except Exception as error:
        return type(error).__name__
def tell(value):
    print("FOUND " + json.dumps(value), flush=True)
"""
HOST_NETWORK, APART = "host's network and users", "private network and users"


@dataclass
class Cell:
    """Runs programs as an agent's harness would run, one after the other."""

    runtime: NixosRuntime
    planner: NixosPlanner
    registry: Registry
    paths: HostPaths
    host: NixosHost
    root: Path
    kind: str

    def tree(self, files: dict[str, str]) -> Path:
        place = self.root / f"tree-{len(list(self.root.iterdir()))}"
        place.mkdir()
        for name, text in {"agent.nix": "{ }\n", **files}.items():
            (place / name).write_text(text)
        return place

    async def start(self, code: str, agent: str = "alice") -> None:
        tree = self.tree({"payload.sh": f"{PRELUDE}{code}\ntime.sleep(1000)\nEND-OF-PROGRAM\n"})
        system = await self.runtime.build(agent, tree, lambda _: None)
        file = self.paths.system_file(agent)
        write_file(file.parent, file.name, json.dumps(system).encode())
        await self.runtime.create(self.planner(self.registry.require(agent)))
        await self.runtime.start(agent)

    async def found(self, code: str, agent: str = "alice") -> Any:
        await self.start(code, agent)
        before: list[str] = []
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in self.runtime.follow(agent, 200):
                before.append(line)
                if line.startswith("FOUND "):
                    break
                assert "Failed with result" not in line, before
        await self.runtime.destroy(agent)
        return json.loads(before[-1].removeprefix("FOUND "))


@pytest.fixture(params=[HOST_NETWORK, APART])
async def cell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cell]:
    host = await NixosHost(tmp_path / "host").boot()
    settings = Settings(state_root=tmp_path / "hive/lib", run_root=tmp_path / "hive/run", runtime="nixos")
    paths = settings.paths
    store = await Store.open(paths.database)
    registry = Registry(store)
    await registry.load()
    await registry.add(MANAGER, "manager", 8000)
    await registry.add("alice", "agent", 8101)
    await registry.add("bob", "agent", 8102)
    apart = request.param == APART
    runtime = NixosRuntime(
        paths,
        lambda agent: {"flake.nix": f"# {agent}: default, container\n"},
        "",
        options=Options(private_users=apart, private_network=apart, stop_grace_seconds=1),
        places=host.places,
        programs=host.programs,
    )
    paths.applied("alice").mkdir(parents=True)
    paths.applied_root.chmod(0o755)
    for name in (MANAGER, "alice", "bob"):
        for directory in (paths.config(name), paths.claude(name), paths.state(name), paths.run_dir(name)):
            private_directory(directory, 0o700)
        (paths.claude(name) / ".credentials.json").write_text(f"secret of {name}")
        (paths.state(name) / "notes").write_text(f"notes of {name}")
        (paths.run_dir(name) / "mcp.sock.txt").write_text(f"socket of {name}")
    private_directory(paths.shared, 0o700)
    paths.host_socket.write_text("the host socket")
    try:
        await runtime.open()
        yield Cell(
            runtime, NixosPlanner(settings, registry, runtime), registry, paths, host, tmp_path, request.param
        )
    finally:
        await runtime.close()
        await store.close()
        await host.shut_down()


# --- from inside ---


async def test_an_agent_sees_its_own_directories_and_nothing_of_the_hive_or_the_host(cell: Cell) -> None:
    code = f"""
tell({{
    "own": [open("/root/.claude/.credentials.json").read(), open("/state/notes").read(), os.listdir("/run/hive")],
    "write": [attempt(lambda: open(d + "/new", "w").close()) for d in ("/run/hive", "/root/.claude", "/state", "/shared")],
    "agents": os.path.exists("/agents"), "applied": os.path.exists("/applied"),
    "there": [p for p in {[str(cell.paths.state_root), str(cell.paths.run_root), str(cell.host.places.containers), "/nix/store", "/home"]!r}
              if os.path.exists(p) and os.listdir(p)],
}})
"""
    found = await cell.found(code)
    assert found["own"] == ["secret of alice", "notes of alice", ["mcp.sock.txt"]]
    assert found["write"] == ["done"] * 4
    assert not found["agents"]
    assert not found["applied"]
    assert found["there"] == []
    assert (cell.paths.state("alice") / "new").stat().st_uid == 0  # also where it is another user inside


async def test_nothing_of_others_can_be_found_anywhere_in_the_file_system(cell: Cell) -> None:
    code = """
hits = []
for top in ("/etc", "/home", "/mnt", "/opt/hyperhive", "/root", "/run", "/shared", "/srv", "/state", "/tmp", "/var"):
    for place, _, files in os.walk(top):
        for name in files:
            path = os.path.join(place, name)
            try:
                if os.path.isfile(path) and os.path.getsize(path) < 100:
                    text = open(path, errors="replace").read()
                    if "of bob" in text or "of hm1nd" in text or "host socket" in text:
                        hits.append(path)
            except OSError:
                pass
tell(hits)
"""
    assert await cell.found(code) == []


async def test_nobody_inside_can_talk_to_the_hosts_nix_daemon(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root inside would be somebody whom it trusts. NixOS shows its socket to every container."""
    code = """
daemon = "/nix/var/nix/daemon-socket"
tell({
    "entries": attempt(lambda: os.listdir(daemon) or "empty"),
    "connected": attempt(lambda: socket.socket(socket.AF_UNIX).connect(daemon + "/socket")),
    "uncovered": attempt(lambda: os.rmdir(daemon)),
})
"""
    found = await cell.found(code)
    assert found["connected"] in ("FileNotFoundError", "PermissionError")
    assert found["uncovered"] != "done"
    # Without the guard it is there; asked by another agent, whose journal has no answer yet.
    monkeypatch.setattr(nixos_conf, "NIX_DAEMON_COVER", "--quiet")
    assert (await cell.found(code, "bob"))["connected"] == "done"


async def test_the_manager_sees_configs_and_states_but_no_credentials(cell: Cell) -> None:
    code = """
tell({
    "agents": {n: sorted(os.listdir("/agents/" + n)) for n in sorted(os.listdir("/agents"))},
    "write": attempt(lambda: open("/agents/alice/config/new", "w").close()),
    "state": open("/agents/bob/state/notes").read(),
    "applied_write": attempt(lambda: open("/applied/alice/x", "w").close()),
})
"""
    found = await cell.found(code, MANAGER)
    assert found["agents"] == {name: ["config", "state"] for name in ("alice", "bob", MANAGER)}
    assert (found["write"], found["state"]) == ("done", "notes of bob")
    assert found["applied_write"] == "OSError"


async def test_kernel_settings_the_system_and_devices_are_out_of_reach(cell: Cell) -> None:
    code = """
def write(path):
    def work():
        with open(path, "r+") as file:
            file.write(file.read(0))
    return attempt(work)
tell({
    "proc": {p: write(p) for p in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger") if os.path.exists(p)},
    "system": attempt(lambda: open("/usr/bin/attack", "w").close()),
    "store": attempt(lambda: open(os.path.dirname(os.path.realpath("/nix/var/nix/profiles/system")) + "/attack", "w").close()),
    "disk": attempt(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))),
    "devices": sorted(os.listdir("/dev")),
})
"""
    found = await cell.found(code)
    assert found["proc"]
    assert "done" not in [*found["proc"].values(), found["system"], found["store"]]
    if cell.kind == APART:  # else it is the unit's DevicePolicy that keeps such a node from being opened
        assert found["disk"] != "done"
    assert not [name for name in found["devices"] if name.startswith(("vd", "sd", "nvme", "mem", "loop"))]


async def test_it_sees_no_process_but_its_own(cell: Cell) -> None:
    code = f"""
pids = sorted(int(n) for n in os.listdir("/proc") if n.isdigit())
tell({{"pids": pids, "kill_core": attempt(lambda: os.kill({os.getpid()}, 0))}})
"""
    found = await cell.found(code)
    assert found["pids"][0] == 1
    assert len(found["pids"]) <= 3
    assert found["kill_core"] == "ProcessLookupError"


async def test_no_variable_of_core_reaches_it(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "core's own")
    code = """
first = open("/proc/1/environ").read()
tell({"own": sorted(os.environ), "first": "core's own" in first or "API_KEY" in first})
"""
    found = await cell.found(code)
    assert "ANTHROPIC_API_KEY" not in found["own"]
    assert found["first"] is False


async def test_root_inside_is_nobody_outside_with_user_namespaces(cell: Cell) -> None:
    if cell.kind != APART:
        pytest.skip("without user namespaces it is the host's root, in namespaces of its own")
    await cell.start('open("/state/ready", "w").close()')
    async with asyncio.timeout(WAIT_SECONDS):
        while not (cell.paths.state("alice") / "ready").exists():
            await asyncio.sleep(0.02)
    users = [_user_of(pid) for pid in _descendants(cell.runtime.status("alice").pid or 0)]
    assert users
    assert all(user > 65536 for user in users)


async def test_root_inside_remounts_what_is_the_hosts_only_without_user_namespaces(cell: Cell) -> None:
    """Nothing is written: that it could be opened is enough to know that it could be."""
    code = """
libc = ctypes.CDLL(None, use_errno=True)
def writable(path):
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY)))
libc.mount(None, b"/proc/sys", None, 32 | 4096, None)
libc.umount2(b"/proc/sys", 2)
os.makedirs("/tmp/proc")
libc.mount(b"proc", b"/tmp/proc", b"proc", 0, None)
found = {"setting": [writable(p + "/sys/kernel/core_pattern") for p in ("/proc", "/tmp/proc")]}
libc.mount(None, b"/usr", None, 32 | 4096, None)
found["system"] = os.access("/usr", os.W_OK)
tell(found)
"""
    found = await cell.found(code)
    if cell.kind == APART:
        assert found == {"setting": ["PermissionError"] * 2, "system": False}
    else:
        assert "done" in found["setting"]


async def test_the_hosts_loopback_cannot_be_reached_from_a_private_network(cell: Cell) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = f"""
tell({{"reached": attempt(lambda: socket.create_connection(("127.0.0.1", {port}), 5).close()), "links": sorted(os.listdir("/sys/class/net"))}})
"""
    found = await cell.found(code)
    server.close()
    if cell.kind == APART:
        assert found == {"reached": "ConnectionRefusedError", "links": ["host0", "lo"]}
    else:
        assert found["reached"] == "done"  # which is why no operator surface trusts the network


async def test_it_cannot_move_its_directories_away_nor_have_others_bound_instead(cell: Cell) -> None:
    code = """
os.symlink("/etc", "/state/etc")
tell([attempt(lambda: os.rename("/state", "/old")), attempt(lambda: os.rmdir("/root/.claude"))])
"""
    assert "done" not in await cell.found(code)
    # What it could do if it had the directory above: core looks again before it starts it.
    state = cell.paths.state("alice")
    state.rename(state.with_name("moved"))
    state.symlink_to("/etc")
    with pytest.raises(HiveError, match="it is a link"):
        await cell.start("tell(1)")


# --- from a configuration ---


async def test_a_link_in_a_configuration_is_not_followed_by_a_build(cell: Cell) -> None:
    tree = cell.tree({})
    (tree / "secret").symlink_to(cell.paths.host_socket)
    with pytest.raises(HiveError, match="neither a file nor a directory"):
        await cell.runtime.build("alice", tree, lambda _: None)


async def test_what_the_system_says_of_itself_is_not_read_outside_the_store(cell: Cell) -> None:
    """`environment.etc` may lead anywhere, and core is root."""
    secret = cell.root / "secret.json"
    secret.write_text('{"limits": {"tasks_max": 16}, "key": "sk-secret"}')
    told: list[str] = []
    with pytest.raises(BuildFailed, match="leads out of the store") as raised:
        await cell.runtime.build("alice", cell.tree({"described": str(secret)}), told.append)
    assert "sk-secret" not in raised.value.message + "".join(told)


async def test_a_system_file_cannot_name_a_flake_of_somebody_else(cell: Cell) -> None:
    system = NixosSystem.of("alice", await cell.runtime.build("alice", cell.tree({}), lambda _: None))
    others = system.model_copy(update={"flake": f"path:{cell.root}/tree-0"})
    file = cell.paths.system_file("alice")
    write_file(file.parent, file.name, others.model_dump_json().encode())
    with pytest.raises(HiveError, match="rebuild alice"):
        await cell.runtime.create(cell.planner(cell.registry.require("alice")))


async def test_a_configuration_cannot_raise_the_operators_limits(cell: Cell) -> None:
    system = await cell.runtime.build(
        "alice",
        cell.tree({"described": json.dumps({"limits": {"tasks_max": 99_999, "memory_max_bytes": 2**50}})}),
        lambda _: None,
    )
    file = cell.paths.system_file("alice")
    write_file(file.parent, file.name, json.dumps(system).encode())
    await cell.runtime.create(cell.planner(cell.registry.require("alice")))
    drop_in = (cell.host.places.units / "container@h-alice.service.d/50-hyperhive.conf").read_text()
    assert "TasksMax=512\n" in drop_in
    assert f"MemoryMax={4 * 2**30}\n" in drop_in


async def test_no_other_name_than_an_agents_reaches_a_program(cell: Cell) -> None:
    spec = replace(cell_spec(cell), agent="alice")
    for agent, container in (
        ("../../etc", "h-../../etc"),
        ("alice", "web"),
        ("--help", "h---help"),
        ("a b", "h-a b"),
    ):
        with pytest.raises((InvalidName, BadRequest)):
            await cell.runtime.create(replace(spec, agent=agent, container=container))
    assert cell.host.calls("nixos_container") == []


def cell_spec(cell: Cell) -> Any:
    file = cell.paths.system_file("alice")
    system = NixosSystem(path="/nix/store/x", flake="path:/x")
    write_file(file.parent, file.name, system.model_dump_json().encode())
    return cell.planner(cell.registry.require("alice"))


def _descendants(pid: int) -> list[int]:
    """Of nspawn: the container's first process and what it started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _user_of(pid: int) -> int:
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:")
    )
    return int(line.split()[1])
