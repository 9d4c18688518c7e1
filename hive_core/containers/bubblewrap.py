"""The arguments that make a bubblewrap sandbox out of a container's description, and the trial of it.

What a container gets: its own user, process, mount, IPC, UTS and cgroup namespaces; `/usr` and a few files of
`/etc` read-only; empty `/tmp` and `/root`; the directories of its description, and nothing else of the host.
No capability, no new user namespace, no terminal, not every system call (`seccomp.py`). It is uid 0 inside.

Outside it is the unprivileged AGENT_USER when core is root, so that what gets out of the sandbox is not root:
`launch.py` prepares the binds before it drops the user. Where that does not work it is core's own user.
Kernel files that go by user id alone (`/proc/sys`, `/proc/sysrq-trigger`) are covered in either case.

The network is shared with the host: a model is asked over it. So an agent can connect to whatever listens on
this machine; nothing of hyperhive trusts a connection for that (SECURITY 1, 2). Abstract Unix sockets of the
host are out of its reach where the kernel can do that.
"""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hive_core.containers.base import Bind, ContainerSpec
from hive_core.containers.command import CommandFailed, attempt
from hive_core.containers.seccomp import filter_program
from hive_shared.errors import HiveError

log = logging.getLogger(__name__)

AGENT_USER = 61000  # user and group; in a range that systemd documents as unused
LAUNCHER = Path(__file__).with_name("launch.py")
STAGING = "/run"  # where launch.py puts what AGENT_USER could not reach
PROBE_SECONDS = 20.0
TMP_MAX_BYTES = 2**30
HOME_MAX_BYTES = 2**30
ROOT_MAX_BYTES = 2**26
SHM_MAX_BYTES = 2**28
PATH_INSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/run/current-system",
)
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "fonts", "gai.conf",
    "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "nsswitch.conf", "pki",
    "protocols", "resolv.conf", "services", "ssl", "static", "terminfo", "timezone",
)  # fmt: skip
_PRIVATE_KEYS = ("private", "tls/private")  # below /etc/ssl, /etc/pki
_READ_ONLY_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "mtrr", "dynamic_debug")
_HIDDEN_PROC_FILES = ("kcore", "keys", "key-users", "latency_stats", "timer_list", "sched_debug",
                      "kpagecount", "kpageflags", "kpagecgroup", "slabinfo", "vmallocinfo")  # fmt: skip
_HIDDEN_PROC_DIRECTORIES = ("acpi", "asound", "scsi")
_USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUPS = "root:x:0:\nnogroup:x:65534:\n"


class NoBubblewrap(HiveError):
    """bubblewrap cannot be used here"""


class Guard(StrEnum):
    """What is put around a container besides its namespaces, where this machine can."""

    SYSTEM_CALLS = "system calls filtered"
    SOCKETS = "abstract sockets out of reach"


# Tried in this order: none is given up before the machine has shown that it cannot have it.
_GUARDS = (
    frozenset(Guard),
    frozenset({Guard.SYSTEM_CALLS}),
    frozenset({Guard.SOCKETS}),
    frozenset[Guard](),
)


@dataclass(frozen=True)
class Sandbox:
    """How containers are made on this machine, as the trial found."""

    program: str
    options: frozenset[str]  # that this bubblewrap knows
    user: int | None  # whom launch.py becomes; None: it stays core's user
    guards: frozenset[Guard] = frozenset()

    @property
    def words(self) -> str:
        """For the operator: what holds, and what of it this machine could not have."""
        said = ["bubblewrap"]
        said.append(
            "system calls filtered" if Guard.SYSTEM_CALLS in self.guards else "system calls not filtered"
        )
        if Guard.SOCKETS not in self.guards:
            said.append("abstract sockets in reach")
        return ", ".join(said)


@dataclass(frozen=True)
class Order:
    """The descriptors `launch.py` has to inherit; the first one tells it what to do."""

    descriptors: tuple[int, ...]


@dataclass(frozen=True)
class Surroundings:
    """What `launch.py` does besides running the command."""

    join: Sequence[Path] = ()
    rlimits: tuple[tuple[str, int], ...] = ()


async def find_sandbox(program: str | None = None, *, system_call_filter: bool = True) -> Sandbox:
    """Try bubblewrap for real, with what every container needs; raises `NoBubblewrap` saying why not.

    What the kernel or this bubblewrap lacks besides is left out, and told in the log.
    """
    found = program or shutil.which("bwrap")
    if found is None:
        raise NoBubblewrap("bubblewrap (bwrap) is not installed")
    help_text = (await attempt([found, "--help"], timeout_seconds=PROBE_SECONDS)).output
    options = frozenset(re.findall(r"^\s+(--[a-z0-9-]+)", help_text, re.MULTILINE))
    users = [AGENT_USER, None] if os.geteuid() == 0 else [None]
    possible = _possible_guards(options, system_call_filter)
    reason: str | None = None
    for user in users:
        for guards in dict.fromkeys(guards & possible for guards in _GUARDS):
            sandbox = Sandbox(found, options, user, guards)
            reason = await _try(sandbox)
            if reason is None:
                _tell_missing(guards, system_call_filter)
                return sandbox
            log.debug("bubblewrap as user %s, %s: %s", user, ", ".join(guards) or "no guards", reason)
    raise NoBubblewrap(f"bubblewrap cannot be used: {reason}")


def _possible_guards(options: frozenset[str], system_call_filter: bool) -> frozenset[Guard]:
    known = filter_program(os.uname().machine) is not None and "--seccomp" in options
    return frozenset(Guard) if system_call_filter and known else frozenset({Guard.SOCKETS})


def _tell_missing(guards: frozenset[Guard], system_call_filter: bool) -> None:
    if system_call_filter and Guard.SYSTEM_CALLS not in guards:
        log.warning(
            "system calls of agents cannot be filtered on this machine; all else of the sandbox holds"
        )
    if Guard.SOCKETS not in guards:
        log.info(
            "agents can connect to abstract Unix sockets of this machine; that takes Linux 6.12 to prevent"
        )


async def _try(sandbox: Sandbox) -> str | None:
    """None if Python runs in such a sandbox and could read our code there; else why not."""
    code = Path(__file__).parents[2] / "hive_shared"
    spec = ContainerSpec(
        agent="probe",
        container="h-probe",
        command=[
            sys.executable,
            "-I",
            "-c",
            "import json, ssl, sys; sys.exit(open('/code/names.py').read() == '')",
        ],
        environment={},
        binds=[*python_binds(), Bind(code, Path("/code"))],
        workdir=Path("/"),
    )
    order = make_order(sandbox, spec, Surroundings(), info=None)
    try:
        tried = await attempt(
            launcher_command(order),
            timeout_seconds=PROBE_SECONDS,
            pass_fds=order.descriptors,
        )
    except CommandFailed as error:
        return error.message
    finally:
        close_order(order)
    return None if tried.exit_code == 0 else " ".join(tried.output.split())[-300:] or "it ended at once"


def launcher_command(order: Order) -> list[str]:
    """The program that carries out `order`; the first descriptor is the order itself."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(order.descriptors[0])]


def close_order(order: Order) -> None:
    """Close our side of the descriptors, once the launcher has them."""
    for descriptor in order.descriptors:
        os.close(descriptor)


def make_order(sandbox: Sandbox, spec: ContainerSpec, around: Surroundings, info: int | None) -> Order:
    """What starts the container: bubblewrap, its arguments in a descriptor, so that no process shows them.

    `info` is where bubblewrap writes the process id of the container's first process.
    """
    mounts: list[str] = []
    passwd, group = memory_file("passwd", _USERS.encode()), memory_file("group", _GROUPS.encode())
    arguments = [
        *_namespaces(sandbox, spec),
        *_system(sandbox),
        *(part for bind in spec.binds for part in _bind(sandbox, bind, mounts)),
        "--ro-bind-data", str(passwd), "/etc/passwd", "--ro-bind-data", str(group), "/etc/group",
        "--chdir", str(spec.workdir),
        "--clearenv",
        *(part for name, value in _environment(spec).items() for part in ("--setenv", name, value)),
        *(() if info is None else ("--info-fd", str(info))),
    ]  # fmt: skip
    inherited = [passwd, group]
    if Guard.SYSTEM_CALLS in sandbox.guards:
        inherited.append(memory_file("seccomp", filter_program(os.uname().machine) or b""))
        arguments += ["--seccomp", str(inherited[-1])]
    listed = memory_file("arguments", b"".join(os.fsencode(part) + b"\0" for part in arguments))
    inherited.append(listed)
    order = {
        "join": [str(procs) for procs in around.join],
        "rlimits": dict(around.rlimits),
        "mounts": mounts,
        "user": sandbox.user,
        "apart": Guard.SOCKETS in sandbox.guards,
        "parent": os.getpid(),
        "lifeline": None,
        "command": [sandbox.program, "--args", str(listed), "--", *spec.command],
        "environment": {},
        "directory": "/",
    }
    return Order((memory_file("order", json.dumps(order).encode()), *inherited))


def memory_file(name: str, content: bytes) -> int:
    """A descriptor that reads as `content`; it has no path."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def python_binds() -> list[Bind]:
    """The interpreter that runs core and its packages, where they are: not the whole home they may lie in."""
    prefixes = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    shown = [Path(place) for place in _SYSTEM]
    return [
        Bind(prefix, prefix)
        for prefix in sorted(prefixes)
        if not any(prefix.is_relative_to(place) for place in shown)
    ]


def _namespaces(sandbox: Sandbox, spec: ContainerSpec) -> list[str]:
    options = [
        "--unshare-user", "--uid", "0", "--gid", "0",
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", spec.container,
    ]  # fmt: skip
    # Older releases know no --disable-userns; then the container can make user namespaces, as anybody can.
    return [*options, "--disable-userns"] if "--disable-userns" in sandbox.options else options


def _system(sandbox: Sandbox) -> list[str]:
    parts = _tmpfs(sandbox, "/", ROOT_MAX_BYTES, "0755")
    for place in _SYSTEM:
        if os.path.islink(place) and place.count("/") == 1:
            parts += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            parts += ["--ro-bind", os.path.realpath(place), place]
    parts += ["--proc", "/proc", *_covered_proc(), "--dev", "/dev"]
    # Of /dev only shared memory is for writing, and bounded as the other places in memory are.
    parts += [*_tmpfs(sandbox, "/dev/shm", SHM_MAX_BYTES, "1777"), "--remount-ro", "/dev"]  # noqa: S108
    parts += _tmpfs(sandbox, "/tmp", TMP_MAX_BYTES, "1777")  # noqa: S108 - the container's own
    parts += _tmpfs(sandbox, "/root", HOME_MAX_BYTES, "0700")
    parts += ["--dir", "/run", "--dir", "/var/tmp", "--dir", "/opt", "--dir", "/etc"]  # noqa: S108
    for name in _ETC:
        source = os.path.realpath(f"/etc/{name}")
        if os.path.exists(source):
            parts += ["--ro-bind", source, f"/etc/{name}"]
            for keys in _PRIVATE_KEYS:
                # Root's alone; but where core is root and containers cannot be another user, that is them.
                if os.path.isdir(f"{source}/{keys}"):
                    hidden = f"/etc/{name}/{keys}"
                    parts += [*_tmpfs(sandbox, hidden, 4096, "0700"), "--remount-ro", hidden]
    return parts


def _tmpfs(sandbox: Sandbox, place: str, max_bytes: int, mode: str) -> list[str]:
    """An empty directory in memory, bounded where this bubblewrap can do that."""
    wanted = {"--size": str(max_bytes), "--perms": mode}
    options = [part for name, value in wanted.items() if name in sandbox.options for part in (name, value)]
    return [*options, "--tmpfs", place]


def _covered_proc() -> list[str]:
    """What of /proc goes by user id and not by capability, or tells about the host."""
    parts = []
    for name in _READ_ONLY_PROC:
        if os.path.exists(f"/proc/{name}"):
            parts += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    for name in _HIDDEN_PROC_FILES:
        if os.path.exists(f"/proc/{name}"):
            parts += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in _HIDDEN_PROC_DIRECTORIES:
        if os.path.exists(f"/proc/{name}"):
            parts += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    return parts


def _bind(sandbox: Sandbox, bind: Bind, mounts: list[str]) -> list[str]:
    source = str(bind.source)
    if sandbox.user is not None:
        mounts.append(source)
        source = f"{STAGING}/{len(mounts) - 1}"
    return ["--bind" if bind.writable else "--ro-bind", source, str(bind.target)]


def _environment(spec: ContainerSpec) -> dict[str, str]:
    return {"PATH": PATH_INSIDE, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", **spec.environment}
