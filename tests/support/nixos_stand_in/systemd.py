"""The stand-in's systemd and journal: `systemd.py HOST CONFIG` runs the `container@NAME.service` of one host.

It knows what core relies on: jobs that wait, `Type=notify`, invocation ids, results, `Restart=`, start
limits, drop-ins that count only once they were read, units that are forgotten when inactive, stopping
by SIGTERM, grace time and SIGKILL, limits by real cgroups where the machine has some. A start really runs
systemd-nspawn.
"""

import asyncio
import contextlib
import fnmatch
import json
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hive_core.config import AgentLimits
from hive_core.containers.cgroups import Limiter, find_limiter

HOST = Path(sys.argv[1])
CONFIG: dict[str, Any] = json.loads(sys.argv[2])
CONFS = HOST / "etc/nixos-containers"
DROP_INS = HOST / "run/systemd/system"
START_SECONDS = 60.0
ENTRIES_MAX = 20_000

# As in the start script of NixOS, the conf's variables are its environment, and the flags are split to words.
START = r"""
extra=()
if [[ "${PRIVATE_NETWORK-}" = 1 ]]; then extra+=(--private-network); fi
map=""
if [[ -n "${PRIVATE_USERS-}" ]]; then extra+=("--private-users=$PRIVATE_USERS"); map=":idmap"; fi
if [[ -n "${HOST_ADDRESS-}${LOCAL_ADDRESS-}${HOST_ADDRESS6-}${LOCAL_ADDRESS6-}" ]]; then
  extra+=(--network-veth)
fi
if [[ -n "${HOST_BRIDGE-}" ]]; then extra+=("--network-bridge=$HOST_BRIDGE"); fi
for group in $GROUPS_TO_ENTER; do echo $$ >"$group"; done
echo "$OOM_SCORE" >/proc/self/oom_score_adj
exec systemd-nspawn --quiet --register=no --keep-unit -M "$INSTANCE" -D "$ROOT" "${extra[@]}" \
  --notify-ready=yes --kill-signal=SIGRTMIN+3 \
  --bind-ro="$STORE:$STORE$map" --bind-ro="$USR:/usr$map" $STORE_BINDS \
  --bind="$PROFILE:/nix/var/nix/profiles$map" --bind-ro="$DAEMON:/nix/var/nix/daemon-socket$map" \
  --setenv=LD_LIBRARY_PATH=/opt/python/lib \
  ${EXTRA_NSPAWN_FLAGS-} \
  /opt/python/bin/python3 -I -S "${SYSTEM_PATH:-/nix/var/nix/profiles/system}/init" \
    "${SYSTEM_PATH:-/nix/var/nix/profiles/system}/init"
"""


@dataclass(eq=False)
class Unit:
    name: str
    active: str = "inactive"
    invocation: str = ""
    pid: int = 0
    result: str = "success"
    code: int = 0
    status: int = 0
    up_usec: int = 0
    down_usec: int = 0
    restarts: int = 0
    starts: deque[float] = field(default_factory=deque)
    drop_in: str = ""  # as it was when the unit was loaded
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    process: "asyncio.subprocess.Process | None" = None
    stopping: bool = False
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def container(self) -> str:
        return self.name.removeprefix("container@").removesuffix(".service")

    def setting(self, name: str, default: str) -> str:
        found = re.findall(rf"^{name}=(.*)$", self.drop_in, re.MULTILINE)
        return found[-1] if found else default


class Journal:
    """Entries in memory; who follows is called with each new one."""

    def __init__(self) -> None:
        self.entries: deque[dict[str, str]] = deque(maxlen=ENTRIES_MAX)
        self.followers: set[Callable[[dict[str, str]], None]] = set()

    def add(self, **fields: str) -> None:
        entry = {"__REALTIME_TIMESTAMP": str(int(time.time() * 1e6)), **fields}
        self.entries.append(entry)
        for follower in tuple(self.followers):
            follower(entry)


class Systemd:
    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}
        self.journal = Journal()
        self.limiter: Limiter = find_limiter(HOST, AgentLimits())
        self.journal.add(_PID="1", UNIT="init.scope", MESSAGE="Welcome to the stand-in!")

    # --- units ---------------------------------------------------------------

    def load(self, name: str) -> Unit:
        if not name.endswith(".service"):
            name += ".service"
        unit = self.units.get(name)
        if unit is None:
            unit = self.units[name] = Unit(name, drop_in=drop_ins(name))
        return unit

    def forget_idle(self) -> None:
        """What is inactive and has not failed is not kept in memory."""
        for name, unit in tuple(self.units.items()):
            if unit.active == "inactive" and not unit.tasks:
                del self.units[name]

    def reload(self) -> None:
        for unit in self.units.values():
            unit.drop_in = drop_ins(unit.name)

    async def start(self, name: str) -> str:
        """Empty if it is up now; else why not."""
        unit = self.load(name)
        if unit.active == "deactivating":
            await unit.settled.wait()
        if unit.active == "active":
            return ""
        if unit.active != "activating":
            refused = self.limited(unit)
            if refused:
                return refused
            self.begin(unit)
        await unit.settled.wait()
        if unit.active == "active" or (unit.active == "inactive" and unit.result == "success"):
            return ""
        return (
            f"Job for {unit.name} failed because the control process exited with error code.\n"
            f'See "systemctl status {unit.name}" and "journalctl -xeu {unit.name}" for details.'
        )

    def limited(self, unit: Unit) -> str:
        if unit.setting("StartLimitIntervalSec", "10") == "0":
            return ""
        now = time.monotonic()
        while unit.starts and unit.starts[0] < now - 10:
            unit.starts.popleft()
        if len(unit.starts) >= 5:
            unit.active, unit.result = "failed", "start-limit-hit"
            return f"Job for {unit.name} failed.\nStart request repeated too quickly."
        unit.starts.append(now)
        return ""

    def begin(self, unit: Unit) -> None:
        unit.active, unit.invocation, unit.result = "activating", uuid.uuid4().hex, "success"
        unit.code = unit.status = unit.pid = 0
        unit.stopping = False
        unit.settled.clear()
        task = asyncio.create_task(self.live(unit))
        unit.tasks.add(task)
        task.add_done_callback(unit.tasks.discard)

    async def live(self, unit: Unit) -> None:
        """One life, from the start script to the last process."""
        self.says(unit, f"Starting Container '{unit.container}'...")
        code: int | None
        try:
            code = await self.run(unit)
        except Exception as error:
            self.prints(unit, f"start script: {error}")
            code = 1
        await asyncio.to_thread(self.after, unit)
        self.judge(unit, code)
        unit.pid, unit.process, unit.down_usec = 0, None, time.monotonic_ns() // 1000
        unit.settled.set()
        if unit.active == "failed":
            self.says(unit, f"{unit.name}: Main process exited, status={unit.status}")
            self.says(unit, f"{unit.name}: Failed with result '{unit.result}'.")
        else:
            self.says(unit, f"{unit.name}: Deactivated successfully.")
        self.start_again(unit)

    async def run(self, unit: Unit) -> int:
        environment = await self.prepare(unit)
        address = HOST / "run" / f"notify-{unit.container}"
        with notifications(address) as notified:
            process = await asyncio.create_subprocess_exec(
                "/bin/bash", "-c", START, "start",
                env={**environment, "NOTIFY_SOCKET": str(address), "PATH": os.environ["PATH"]},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                limit=2**20,
            )  # fmt: skip
            unit.process, unit.pid = process, process.pid
            printing = asyncio.create_task(self.record(unit, process.stdout))
            waiting = asyncio.create_task(self.until_ready(unit, notified))
            try:
                return await process.wait()
            finally:
                waiting.cancel()
                kill_group(process.pid)
                await asyncio.wait([printing], timeout=2)

    async def until_ready(self, unit: Unit, notified: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await notified.wait()
        except TimeoutError:
            unit.result = "timeout"
            await self.stop(unit.name)
            return
        if unit.active == "activating":
            unit.active, unit.up_usec = "active", time.monotonic_ns() // 1000
            unit.settled.set()
            self.says(unit, f"Started Container '{unit.container}'.")

    async def prepare(self, unit: Unit) -> dict[str, str]:
        """What the start script does before nspawn: the skeleton of the root, and a first build."""
        conf = read_environment_file(CONFS / f"{unit.container}.conf")
        root = HOST / "var/lib/nixos-containers" / unit.container
        profile = HOST / "nix/var/nix/profiles/per-container" / unit.container
        if not (root / "usr").is_dir():
            await asyncio.to_thread(make_skeleton, root)
        profile.mkdir(parents=True, exist_ok=True)
        if conf.get("FLAKE") and not (profile / "system").exists():
            update = await asyncio.create_subprocess_exec(
                HOST / "bin/nixos-container", "update", unit.container, cwd="/"
            )
            if await update.wait() != 0:
                raise RuntimeError("the first build failed")
        limits = limits_of(unit)
        groups = await asyncio.to_thread(self.limiter.prepare, f"{unit.container}", limits)
        return {
            **conf,
            "INSTANCE": unit.container,
            "ROOT": str(root),
            "PROFILE": str(profile),
            "DAEMON": str(HOST / "nix/var/nix/daemon-socket"),
            "STORE": str(HOST / "store"),
            "USR": CONFIG["usr"],
            "STORE_BINDS": " ".join(f"--bind-ro={source}:{target}" for source, target in CONFIG["binds"]),
            "OOM_SCORE": unit.setting("OOMScoreAdjust", "0"),
            "GROUPS_TO_ENTER": " ".join(map(str, groups)),
        }

    async def record(self, unit: Unit, stream: "asyncio.StreamReader | None") -> None:
        while stream is not None and (line := await stream.readline()):
            self.prints(unit, line.decode("utf-8", "replace").removesuffix("\n"))

    def after(self, unit: Unit) -> None:
        if self.limiter.out_of_memory(unit.container):
            unit.result = "oom-kill"
        self.limiter.remove(unit.container)

    def judge(self, unit: Unit, code: int) -> None:
        unit.code, unit.status = (2, -code) if code < 0 else (1, code)
        good = code in (0, 133) or unit.stopping
        if unit.result == "success" and not good:
            unit.result = "signal" if code < 0 else "exit-code"
        if unit.stopping and unit.result in ("signal", "exit-code", "oom-kill"):
            unit.result = "success"
        unit.active = "inactive" if unit.result == "success" else "failed"

    def start_again(self, unit: Unit) -> None:
        forced = unit.setting("RestartForceExitStatus", "133").split()
        wanted = unit.setting("Restart", "on-failure") == "on-failure" and unit.active == "failed"
        if not unit.stopping and (wanted or str(unit.status) in forced) and not self.limited(unit):
            unit.restarts += 1
            self.begin(unit)

    async def stop(self, name: str) -> None:
        unit = self.load(name)
        if unit.process is None:
            if unit.active == "activating":
                unit.stopping = True
                await unit.settled.wait()
            return
        unit.stopping = True
        if unit.active == "active":
            unit.active = "deactivating"
            unit.settled.clear()
        self.says(unit, f"Stopping Container '{unit.container}'...")
        pid, tasks = unit.process.pid, set(unit.tasks)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        grace_seconds = float(unit.setting("TimeoutStopSec", "90s").removesuffix("s"))
        _, left = await asyncio.wait(tasks, timeout=grace_seconds)
        if left:
            unit.result = "timeout"
            kill_group(pid)
            await asyncio.to_thread(self.limiter.remove, unit.container)
            await asyncio.wait(left)

    # --- what programs are told ------------------------------------------------

    async def systemctl(self, arguments: list[str], say: Callable[[str, int], None]) -> int:
        words = [word for word in arguments if not word.startswith("-")]
        options = dict(word.lstrip("-").partition("=")[::2] for word in arguments if word.startswith("-"))
        verb, names = words[0], words[1:]
        if verb == "show":
            self.show(names, options["property"].split(","), say)
        elif verb == "is-active":
            return 0 if all(self.load(name).active == "active" for name in names) else 3
        elif verb == "start":
            refusals = await asyncio.gather(*(self.start(name) for name in names))
            for refusal in filter(None, refusals):
                say(refusal + "\n", 2)
            return 1 if any(refusals) else 0
        elif verb == "stop":
            await asyncio.gather(*(self.stop(name) for name in names))
        elif verb == "kill":
            for name in names:
                kill_group(self.load(name).pid)
        elif verb == "reset-failed":
            for name in names:
                self.load(name).active = "inactive"
        elif verb == "daemon-reload":
            self.reload()
        elif verb == "reload":
            for name in names:
                self.says(self.load(name), "Reloaded.")
        else:
            say(f"Unknown command verb {verb}.\n", 2)
            return 1
        self.forget_idle()
        return 0

    def show(self, names: list[str], properties: list[str], say: Callable[[str, int], None]) -> None:
        self.forget_idle()
        units: list[Unit] = []
        for name in names:
            if "*" in name:
                units += [unit for unit in self.units.values() if fnmatch.fnmatch(unit.name, name)]
            else:
                units.append(self.load(name))
        blocks = []
        for unit in units:
            known = {
                "Id": unit.name,
                "ActiveState": unit.active,
                "InvocationID": unit.invocation,
                "MainPID": unit.pid,
                "Result": unit.result,
                "ExecMainCode": unit.code,
                "ExecMainStatus": unit.status,
                "ActiveEnterTimestampMonotonic": unit.up_usec,
                "InactiveEnterTimestampMonotonic": unit.down_usec,
                "NeedDaemonReload": "yes" if unit.drop_in != drop_ins(unit.name) else "no",
            }
            blocks.append("".join(f"{name}={known[name]}\n" for name in properties))
        say("\n".join(blocks), 1)

    async def journalctl(self, arguments: list[str], say: Callable[[str, int], None]) -> int:
        options = dict(word.lstrip("-").partition("=")[::2] for word in arguments if word.startswith("-"))
        matches = dict(word.split("=", 1) for word in arguments if not word.startswith("-"))

        def wanted(entry: dict[str, str]) -> bool:
            unit = options.get("unit")
            since = float(options.get("since", "@0").removeprefix("@"))
            return (
                all(entry.get(name) == value for name, value in matches.items())
                and (unit is None or unit in (entry.get("_SYSTEMD_UNIT"), entry.get("UNIT")))
                and float(entry["__REALTIME_TIMESTAMP"]) >= since * 1e6
            )

        def tell(entry: dict[str, str]) -> None:
            if not wanted(entry):
                return
            if options.get("output") == "json":
                names = options["output-fields"].split(",")
                say(
                    json.dumps({name: entry[name] for name in entry if name in names or name[:2] == "__"})
                    + "\n",
                    1,
                )
            else:
                say(entry["MESSAGE"] + "\n", 1)

        lines = int(options.get("lines", "10"))
        past = [entry for entry in self.journal.entries if wanted(entry)]
        for entry in past[len(past) - lines if lines < len(past) else 0 :]:
            tell(entry)
        if "follow" not in options:
            return 0
        self.journal.followers.add(tell)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.journal.followers.discard(tell)
        return 0

    def says(self, unit: Unit, message: str) -> None:
        self.journal.add(_PID="1", UNIT=unit.name, MESSAGE=message)

    def prints(self, unit: Unit, message: str) -> None:
        self.journal.add(_SYSTEMD_UNIT=unit.name, MESSAGE=message)

    # --- serving ---------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        program, *arguments = request["argv"]
        with (HOST / "calls").open("a") as file:
            file.write(json.dumps({"program": program, "arguments": arguments}) + "\n")

        def say(text: str, to: int) -> None:
            writer.write(json.dumps({"to": to, "text": text}).encode() + b"\n")

        work = asyncio.create_task(
            {"systemctl": self.systemctl, "journalctl": self.journalctl}[program](arguments, say)
        )
        gone = asyncio.create_task(reader.read())
        # A job goes on when the program that asked for it is killed; following does not.
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if program == "journalctl" and not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            writer.write(json.dumps({"exit": await work}).encode() + b"\n")
            await writer.drain()
        gone.cancel()
        writer.close()

    async def close(self) -> None:
        for unit in self.units.values():
            unit.stopping = True
            if unit.process is not None:
                kill_group(unit.process.pid)
        await asyncio.gather(
            *(task for unit in self.units.values() for task in unit.tasks), return_exceptions=True
        )
        await asyncio.to_thread(self.limiter.close)


def drop_ins(unit: str) -> str:
    return "\n".join(path.read_text() for path in sorted((DROP_INS / f"{unit}.d").glob("*.conf")))


def limits_of(unit: Unit) -> AgentLimits:
    quota = unit.setting("CPUQuota", "").removesuffix("%")
    return AgentLimits(
        memory_max_bytes=int(unit.setting("MemoryMax", str(2**40))),
        tasks_max=int(unit.setting("TasksMax", "10000")),
        cpu_quota_percent=int(quota) if quota else None,
    )


def make_skeleton(root: Path) -> None:
    """A NixOS container's root holds next to nothing: the system is bound into it."""
    fresh = root.with_name(f".{root.name}.{os.getpid()}")
    for name in (
        "etc",
        "usr",
        "var/lib",
        "var/tmp",
        "run",
        "tmp",
        "proc",
        "sys",
        "dev",
        "root",
        "nix/var/nix/profiles",
    ):
        (fresh / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (fresh / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "nsswitch.conf", "os-release", "debian_version", "ld.so.cache", "ssl"):
        source = Path(CONFIG["etc"]) / name
        if source.is_file():
            (fresh / "etc" / name).write_bytes(source.read_bytes())
    (fresh / "etc/machine-id").touch()
    (fresh / "etc/os-release").touch()
    (fresh / "root").chmod(0o700)
    if root.exists():  # an empty one
        root.rmdir()
    fresh.rename(root)


def read_environment_file(path: Path) -> dict[str, str]:
    """As systemd does, for one line a variable: comments, quotes, backslashes."""
    found = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(("#", ";")):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1] if value[0] == "'" else re.sub(r"\\(.)", r"\1", value[1:-1])
        found[name.strip()] = value
    return found


@contextlib.contextmanager
def notifications(address: Path) -> Any:
    address.unlink(missing_ok=True)
    ready = asyncio.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.setblocking(False)
        loop = asyncio.get_running_loop()

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                if b"READY=1" in listening.recv(65536).split(b"\n"):
                    ready.set()

        loop.add_reader(listening, read)
        try:
            yield ready
        finally:
            loop.remove_reader(listening)


def kill_group(pid: int) -> None:
    """nspawn and what it keeps: the container's processes go with its first one."""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def listening(systemd: Systemd) -> AsyncIterator[None]:
    server = await asyncio.start_unix_server(systemd.serve, HOST / "systemd.sock")
    try:
        yield
    finally:
        server.close()


async def main() -> None:
    systemd = Systemd()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with listening(systemd):
        print(systemd.limiter.words, flush=True)
        # When the test run is killed, so are its containers.
        asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
        await ended.wait()
        await systemd.close()


if __name__ == "__main__":
    asyncio.run(main())
