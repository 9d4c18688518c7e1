"""A hostile harness: what it can see, reach and do from inside its container (SECURITY 9, 10, 13, 14).

The containers are made from the very description that the daemon uses, with another program in them.
Where core is root, both ways are attacked: as the unprivileged user, and as core's own where that is impossible.
"""
# ruff: noqa: E501 - the programs that run inside are easier to read unbroken

import ctypes
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hive_core.config import Settings
from hive_core.containers.bubblewrap import NoBubblewrap, find_sandbox
from hive_core.containers.cgroups import find_limiter
from hive_core.containers.local import LocalRuntime
from hive_core.plan import Planner
from hive_core.registry import Registry
from hive_core.store import Store
from hive_core.surfaces.sockets import private_directory
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from tests.conftest import PROJECT, need

# Runs inside; prints what it found as one JSON line.
PRELUDE = """
import ctypes, glob, json, os, socket, subprocess, sys
def attempt(work):
    try:
        return work() or "done"
    except Exception as error:
        return type(error).__name__
def tell(value):
    print("FOUND " + json.dumps(value), flush=True)
"""

# What ends at once might end before it counts as started.
STAY = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(600)
"""


@dataclass
class Cell:
    """Runs programs as an agent's harness would run, one after the other."""

    runtime: LocalRuntime
    planner: Planner
    registry: Registry
    paths: HostPaths

    async def found(self, code: str, agent: str = "alice") -> Any:
        spec = self.planner(self.registry.require(agent))
        spec = replace(spec, command=[sys.executable, "-P", "-c", PRELUDE + code + STAY])
        await self.runtime.create(spec)
        await self.runtime.start(agent)
        before: list[str] = []
        async for line in self.runtime.follow(agent, 200):
            before.append(line)
            if line.startswith("FOUND "):
                value = json.loads(line.removeprefix("FOUND "))
                break
            assert not line.startswith("--- h-") or "ended" not in line, before
        await self.runtime.stop(agent)
        await self.runtime.destroy(agent)
        self.paths.log_file(agent).unlink()
        return value


@pytest.fixture(params=["as found", "core's user"])
async def cell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cell]:
    try:
        sandbox = await find_sandbox()
        if request.param == "core's user":
            need(sandbox.user is not None, "core's user is what is used anyway")
            sandbox = replace(sandbox, user=None)
    except NoBubblewrap as error:
        need(False, error.message)
        raise
    root = tmp_path / "project" / ".hive"
    settings = Settings(
        state_root=root / "lib",
        run_root=root / "run",
        backend="rehearsal",
        agent_environment={"VISIBLE": "yes"},
    )
    paths = settings.paths
    store = await Store.open(paths.database)
    registry = Registry(store)
    await registry.load()
    await registry.add(MANAGER, "manager", 8000)
    await registry.add("alice", "agent", 8101)
    await registry.add("bob", "agent", 8102)
    runtime = LocalRuntime(
        paths, sandbox, find_limiter(paths.state_root, settings.limits), stop_grace_seconds=1
    )
    for directory in (paths.logs, paths.applied_root, paths.applied("alice")):
        directory.mkdir(parents=True)
        directory.chmod(0o755)
    for name in (MANAGER, "alice", "bob"):
        for directory in (paths.config(name), paths.claude(name), paths.state(name), paths.run_dir(name)):
            private_directory(directory, 0o700, owner=runtime.owner)
        secret(paths.claude(name) / ".credentials.json", f"secret of {name}", runtime.owner)
        secret(paths.state(name) / "notes", f"notes of {name}", runtime.owner)
        secret(paths.run_dir(name) / "mcp.sock.txt", f"socket of {name}", runtime.owner)
        paths.port_file(name).write_text("8101\n")
    private_directory(paths.shared, 0o700, owner=runtime.owner)
    secret(paths.host_socket, "the host socket", None)
    secret(root.parent / "source.py", "the project", None)
    planner = Planner(settings, registry, runtime)
    try:
        yield Cell(runtime, planner, registry, paths)
    finally:
        await runtime.close()
        await store.close()


def secret(path: Path, text: str, owner: int | None) -> None:
    path.write_text(text)
    if owner is not None:
        os.chown(path, owner, owner)


async def test_an_agent_sees_its_own_directories_and_nothing_of_the_hive(cell: Cell) -> None:
    code = f"""
tell({{
    "own": [open("/root/.claude/.credentials.json").read(), open("/state/notes").read(), os.listdir("/run/hive")],
    "cwd": os.getcwd(),
    "top": sorted(os.listdir("/")),
    "home": os.listdir("/root"),
    "agents": os.path.exists("/agents"), "applied": os.path.exists("/applied"),
    "hive": os.path.exists({str(cell.paths.state_root)!r}), "run": os.path.exists({str(cell.paths.run_root)!r}),
    "project": os.path.exists({str(cell.paths.state_root.parents[1] / "source.py")!r}),
    "code": sorted(os.listdir("/opt/hyperhive")),
    "checkout": os.path.exists({str(PROJECT / "pyproject.toml")!r}), "core": os.path.exists({str(PROJECT / "hive_core")!r}),
}})
"""
    found = await cell.found(code)
    assert found["own"] == ["secret of alice", "notes of alice", ["mcp.sock.txt"]]
    assert found["cwd"] == "/state"
    assert found["home"] == [".claude"] or ".claude" in found["home"]
    assert not any(found[key] for key in ("agents", "applied", "hive", "run", "project", "checkout", "core"))
    assert found["code"] in (["hive_agent", "hive_shared"], ["hive_agent", "hive_shared", "prompts"])
    assert "home" not in found["top"]


async def test_nothing_of_others_can_be_found_anywhere_in_the_file_system(cell: Cell) -> None:
    code = """
hits = []
for top in ("/etc", "/home", "/opt", "/root", "/run", "/shared", "/state", "/srv", "/tmp", "/var", "/mnt", "/work"):
    for place, _, files in os.walk(top):
        for name in files:
            path = os.path.join(place, name)
            try:
                if os.path.getsize(path) < 100:
                    text = open(path, errors="replace").read()
                    if "of bob" in text or "of hm1nd" in text or "host socket" in text or "the project" in text:
                        hits.append(path)
            except OSError:
                pass
tell(hits)
"""
    assert await cell.found(code) == []


async def test_the_manager_sees_configs_and_states_but_no_credentials_and_no_ports(cell: Cell) -> None:
    code = """
tell({
    "agents": {n: sorted(os.listdir("/agents/" + n)) for n in sorted(os.listdir("/agents"))},
    "write": attempt(lambda: open("/agents/alice/config/new", "w").close()),
    "state": open("/agents/bob/state/notes").read(),
    "applied": sorted(os.listdir("/applied")),
    "applied_write": attempt(lambda: open("/applied/alice/x", "w").close()),
})
"""
    found = await cell.found(code, MANAGER)
    assert found["agents"] == {name: ["config", "state"] for name in ("alice", "bob", MANAGER)}
    assert found["write"] == "done"
    assert (cell.paths.config("alice") / "new").exists()
    assert found["state"] == "notes of bob"
    assert found["applied"] == ["alice"]
    assert found["applied_write"] == "OSError"


async def test_the_system_is_read_only_and_kernel_settings_cannot_be_changed(cell: Cell) -> None:
    code = """
def write(path):
    def work():
        with open(path, "r+") as file:
            file.write(file.read(0))
    return attempt(work)
def create(path):
    return attempt(lambda: open(path, "w").close())
tell({
    "create": [create(p + "/attack") for p in ("/usr", "/usr/bin", "/etc/ssl", "/opt/hyperhive/hive_agent")],
    "python": create(sys.prefix + "/attack"),
    "proc": {p: write(p) for p in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
             "/proc/sys/vm/panic_on_oom", "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc/register") if os.path.exists(p)},
    "irq": [p for p in glob.glob("/proc/irq/*/smp_affinity") if os.access(p, os.W_OK)],
    "kcore": len(open("/proc/kcore", "rb").read(10)) if os.path.exists("/proc/kcore") else 0,
    "sys": os.path.exists("/sys/kernel"),
})
"""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    found = await cell.found(code)
    assert "done" not in [*found["create"], found["python"]]
    assert found["proc"]
    assert "done" not in found["proc"].values()
    assert (found["irq"], found["kcore"], found["sys"]) == ([], 0, False)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


async def test_it_has_no_capability_and_cannot_get_one(cell: Cell) -> None:
    code = """
libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
tell({
    "uid": os.getuid(),
    "caps": [status[k] for k in ("CapPrm", "CapEff", "CapInh", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"],
    "mount": libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None),
    "remount": libc.mount(None, b"/usr", None, 32 | 4096, None),
    "umount": libc.umount2(b"/proc/sys", 2),
    "unshare": libc.unshare(0x10000000),
    "setns": attempt(lambda: None if libc.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), 0) == 0 else 1/0),
    "chroot": attempt(lambda: os.chroot("/tmp")),
    "mknod": attempt(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))),
    "devices": sorted(os.listdir("/dev")),
})
"""
    found = await cell.found(code)
    assert found["uid"] == 0
    assert set(found["caps"]) == {"0000000000000000"}
    assert found["no_new_privileges"] == "1"
    assert (found["mount"], found["remount"], found["umount"], found["unshare"]) == (-1, -1, -1, -1)
    assert "done" not in (found["setns"], found["chroot"], found["mknod"])
    assert not [
        name for name in found["devices"] if name.startswith(("vd", "sd", "nvme", "mem", "kmsg", "loop"))
    ]


async def test_root_inside_is_an_unprivileged_user_outside_where_core_is_root(cell: Cell) -> None:
    need(os.geteuid() == 0, "only root can give a container another user")
    if cell.runtime.owner is None:
        return  # the way for where that is impossible
    assert cell.runtime.owner != 0
    await cell.found('open("/state/mine", "w").close(); tell(1)')
    assert (cell.paths.state("alice") / "mine").stat().st_uid == cell.runtime.owner


async def test_it_sees_no_process_but_its_own(cell: Cell) -> None:
    code = f"""
pids = [int(n) for n in os.listdir("/proc") if n.isdigit()]
tell({{"pids": pids, "kill_core": attempt(lambda: os.kill({os.getpid()}, 0)),
      "arguments": [open(f"/proc/{{p}}/cmdline").read() for p in pids]}})
"""
    found = await cell.found(code)
    assert sorted(found["pids"])[0] == 1
    assert len(found["pids"]) <= 3
    assert found["kill_core"] == "ProcessLookupError"
    assert not [text for text in found["arguments"] if "HIVE_" in text or str(cell.paths.state_root) in text]


async def test_it_inherits_no_descriptor_and_no_variable_of_core(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "core's own")
    leak = os.open(cell.paths.database, os.O_RDONLY)
    os.set_inheritable(leak, True)
    code = """
own = os.open("/proc/self/fd", os.O_RDONLY)
descriptors = {n: os.readlink("/proc/self/fd/" + n) for n in os.listdir(own) if int(n) != own
               and os.path.exists("/proc/self/fd/" + n)}
tell({"descriptors": descriptors, "variables": sorted(os.environ)})
"""
    found = await cell.found(code)
    os.close(leak)
    assert set(found["descriptors"]) <= {"0", "1", "2"}
    assert found["descriptors"]["0"] == "/dev/null"
    assert "ANTHROPIC_API_KEY" not in found["variables"]
    assert {"HIVE_AGENT", "HIVE_ROLE", "HIVE_BACKEND", "VISIBLE"} <= set(found["variables"])


async def test_files_in_its_working_directory_are_no_modules_of_its_harness(cell: Cell) -> None:
    evil = cell.paths.state("alice") / "hive_agent.py"
    evil.write_text("print('FOUND \"taken over\"')")
    evil.chmod(0o644)
    code = """
done = subprocess.run([sys.executable, "-P", "-c", "import hive_agent; print(hive_agent.__file__)"], capture_output=True, text=True)
tell(done.stdout.strip())
"""
    assert await cell.found(code) == "/opt/hyperhive/hive_agent/__init__.py"


async def test_links_it_plants_in_its_directories_lead_its_binds_nowhere_else(cell: Cell) -> None:
    """Core, as root, opens these paths again at the next start."""
    code = """
os.symlink("/etc", "/state/etc"); os.symlink("/", "/shared/root")
os.rename("/run/hive/mcp.sock.txt", "/run/hive/moved"); os.symlink("/etc/passwd", "/run/hive/mcp.sock.txt")
tell([attempt(lambda: os.rename("/state", "/old")), attempt(lambda: os.rmdir("/root/.claude"))])
"""
    assert "done" not in await cell.found(code)
    assert await cell.found('tell(sorted(os.listdir("/state")))') == ["etc", "notes"]


KEYRING_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl


async def test_keys_of_whoever_started_core_are_not_in_the_containers_hands(cell: Cell) -> None:
    """A session keyring is inherited, and whoever has one may read its keys, as any user. Also without a filter."""
    add_key, keyctl = KEYRING_CALLS[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(keyctl, 1, b"hive-test")  # this process's own session keyring, so that nobody else's changes
    key = libc.syscall(add_key, b"user", b"hive-test", b"core's own", 10, -3)
    need(key > 0, "this kernel has no keyrings")
    assert cell.runtime._sandbox is not None
    cell.runtime._sandbox = replace(cell.runtime._sandbox, guards=frozenset())
    code = f"""
libc = ctypes.CDLL(None)
text = ctypes.create_string_buffer(100)
tell([libc.syscall({keyctl}, 11, {key}, text, 100), libc.syscall({keyctl}, 10, -3, b"user", b"hive-test", 0)])
"""
    assert await cell.found(code) == [-1, -1]


async def test_keys_that_only_root_may_read_are_hidden_from_root_inside(cell: Cell) -> None:
    """Where containers cannot be another user they are core's own, and that may be root."""
    code = """
shown = []
for top in ("/etc/ssl", "/etc/pki"):
    for place, _, files in os.walk(top):
        shown += [os.path.join(place, name) for name in files if not os.lstat(os.path.join(place, name)).st_mode & 4]
covered = {line.split()[1] for line in open("/proc/self/mounts")}
tell([shown, [p for p in ("/etc/ssl/private", "/etc/pki/tls/private") if os.path.isdir(p) and p not in covered]])
"""
    shown, open_to_it = await cell.found(code)
    assert shown == []
    assert open_to_it == []
