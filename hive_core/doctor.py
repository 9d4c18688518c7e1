"""`hive-c0re doctor`: what this machine has, lacks, and how to get it.

Every check tries the real thing where that is cheap (bubblewrap is run, ports are bound, files are
written); a package being installed says little about whether it works here. Programs are run from
this module too, besides `containers.command`: a diagnosis must work where the rest does not.
"""

import asyncio
import contextlib
import errno
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hive_core import disk
from hive_shared.names import DASHBOARD_PORT, MANAGER_PORT
from hive_shared.paths import HostPaths

PYTHON_MIN = (3, 11)
SQLITE_MIN = (3, 35, 0)  # RETURNING
NODE_MIN = 18  # what the Claude Code CLI asks for
DISK_MIN_BYTES = 1024**3
PROGRAM_SECONDS = 20.0
NIX_STORE = Path("/nix/store")
CGROUPS = Path("/sys/fs/cgroup")


class Verdict(StrEnum):
    """`missing` is something the hive needs; `optional` would add something and is not there.

    `broken` is something that must be true and is not; `repaired` was.
    """

    OK = "ok"
    MISSING = "missing"
    OPTIONAL = "optional"
    BROKEN = "broken"
    REPAIRED = "repaired"


@dataclass(frozen=True)
class Finding:
    """What one check found; `get` says in one line how to get what is not there."""

    name: str
    verdict: Verdict
    found: str
    get: str = ""


@dataclass(frozen=True)
class Machine:
    """What the checks look at: the hive that is meant, and what is configured for it."""

    paths: HostPaths
    environment: Mapping[str, str]
    daemon: str | None  # what a running daemon of this hive says of itself
    claude: Path | None
    api_key_file: Path | None = None
    notify_urls_file: Path | None = None
    dashboard_port: int = DASHBOARD_PORT
    configuration_error: str = ""
    system_call_filter: bool = True


def examine(machine: Machine) -> list[Finding]:
    """Every finding, in the order in which they matter."""
    return [
        _python(),
        _sqlite(),
        _git(),
        *_bubblewrap(machine),
        _user_namespaces(),
        _cgroups(),
        _claude(machine),
        _node(),
        _chromium(machine),
        _nspawn(),
        _configuration(machine),
        *_secret_file("API key file", machine.api_key_file, "the key"),
        *_secret_file("notification URLs", machine.notify_urls_file, "the URLs and their passwords"),
        *_ports(machine),
        *_roots(machine.paths),
        _disk(machine.paths),
        _daemon(machine.daemon),
    ]


def is_fit(findings: Iterable[Finding]) -> bool:
    """Whether a hive can run here."""
    return not {Verdict.MISSING, Verdict.BROKEN} & {finding.verdict for finding in findings}


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `doctor --json` prints."""
    return {"ok": is_fit(findings), "checks": [asdict(finding) for finding in findings]}


# --- how to get things ------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """The name of one thing in the three families of distributions that are named."""

    debian: str
    nixos: str
    fedora: str

    def __str__(self) -> str:
        debian, fedora = f"apt install {self.debian}", f"dnf install {self.fedora}"
        return f"Debian/Ubuntu: {debian} · NixOS: {self.nixos} · Fedora: {fedora}"


_PYTHON = Package("python3 python3-venv", "python3", "python3")
_GIT = Package("git", "git", "git")
_BUBBLEWRAP = Package("bubblewrap", "bubblewrap", "bubblewrap")
_NODE = Package("nodejs npm", "nodejs", "nodejs npm")
_CHROMIUM = Package("chromium", "chromium", "chromium")
_NSPAWN = Package("systemd-container", "already part of it", "systemd-container")


# --- programs ---------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a program ended: whether with 0, and the last line it printed."""

    ok: bool
    line: str


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a program for at most 20 s, without input; never raises for what the program does."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_SECONDS,
            check=False,
            env=environment,
        )
    except OSError as error:
        return Outcome(False, error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return Outcome(False, f"did not end within {PROGRAM_SECONDS:g} s")
    ok = ended.returncode == 0
    first, second = (ended.stdout, ended.stderr) if ok else (ended.stderr, ended.stdout)
    lines = (first.strip() or second).decode("utf-8", "replace").strip().splitlines()
    return Outcome(ok, lines[-1][:200] if lines else f"exit code {ended.returncode}")


# --- checks -----------------------------------------------------------------


def _python() -> Finding:
    verdict = Verdict.OK if sys.version_info >= PYTHON_MIN else Verdict.MISSING
    get = "" if verdict is Verdict.OK else f"Python 3.11 or later; {_PYTHON}"
    return Finding("python", verdict, f"{platform.python_version()} at {sys.executable}", get)


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= SQLITE_MIN:
        return Finding("sqlite", Verdict.OK, sqlite3.sqlite_version)
    get = "SQLite 3.35 or later: use a Python that was built with it"
    return Finding("sqlite", Verdict.MISSING, sqlite3.sqlite_version, get)


def _git() -> Finding:
    path = shutil.which("git")
    if path is None:
        return Finding("git", Verdict.MISSING, "not found", str(_GIT))
    version = run([path, "--version"])
    return Finding(
        "git", Verdict.OK if version.ok else Verdict.MISSING, version.line, "" if version.ok else str(_GIT)
    )


def _bubblewrap(machine: Machine) -> list[Finding]:
    """The daemon's own trial: with the same arguments, as the same user."""
    from hive_core.containers.bubblewrap import Guard, NoBubblewrap, find_sandbox

    without = "without it agents run as plain processes, not isolated"
    path = shutil.which("bwrap")
    if path is None:
        return [Finding("bubblewrap", Verdict.OPTIONAL, f"not found; {without}", str(_BUBBLEWRAP))]
    try:
        sandbox = asyncio.run(find_sandbox(path, system_call_filter=machine.system_call_filter))
    except NoBubblewrap as error:
        get = "allow user namespaces (next line); in a container that needs the outer one's permission"
        return [Finding("bubblewrap", Verdict.OPTIONAL, f"{path}: {error.message}; {without}", get)]
    return [
        Finding("bubblewrap", Verdict.OK, f"{run([path, '--version']).line}, works"),
        _system_calls(Guard.SYSTEM_CALLS in sandbox.guards, machine.system_call_filter),
        _abstract_sockets(Guard.SOCKETS in sandbox.guards),
    ]


def _system_calls(filtered: bool, wanted: bool) -> Finding:
    """Whether a container of the trial really had the filter."""
    name = "system call filter"
    if filtered:
        return Finding(name, Verdict.OK, "agents' system calls are filtered (seccomp)")
    if not wanted:
        get = "system_call_filter = true in the configuration"
        return Finding(name, Verdict.OPTIONAL, "switched off; the rest of the sandbox holds", get)
    get = (
        f"a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64, bubblewrap with --seccomp; {_BUBBLEWRAP}"
    )
    found = "agents' system calls cannot be filtered here; the rest of the sandbox holds"
    return Finding(name, Verdict.OPTIONAL, found, get)


def _abstract_sockets(out_of_reach: bool) -> Finding:
    name = "Landlock"
    if out_of_reach:
        return Finding(name, Verdict.OK, "abstract sockets of this machine are out of agents' reach")
    found = (
        "agents can connect to abstract Unix sockets of this machine, such as those of a desktop's session"
    )
    return Finding(
        name, Verdict.OPTIONAL, found, "Linux 6.12 or later, with landlock among the kernel's lsm="
    )


def _user_namespaces() -> Finding:
    name = "user namespaces"
    path = shutil.which("unshare")
    if path is not None and run([path, "--user", "--map-root-user", "true"]).ok:
        return Finding(name, Verdict.OK, "can be created")
    for setting, wanted in (
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),
        ("kernel.unprivileged_userns_clone", "1"),
    ):
        value = _kernel_setting(setting)
        if value is not None and value != wanted:
            return Finding(name, Verdict.OPTIONAL, f"{setting} is {value}", f"sysctl -w {setting}={wanted}")
    if _kernel_setting("user.max_user_namespaces") == "0":
        get = "sysctl -w user.max_user_namespaces=15000"
        return Finding(name, Verdict.OPTIONAL, "user.max_user_namespaces is 0", get)
    get = "a kernel with CONFIG_USER_NS, or the permission of the container this runs in"
    return Finding(name, Verdict.OPTIONAL, "cannot be created", get)


def _kernel_setting(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name.replace(".", "/")).read_text().strip()
    except OSError:
        return None


def _cgroups() -> Finding:
    """Whether groups could be made where we are; only the daemon itself makes any."""
    name = "cgroup limits"
    for version, directory in _own_groups():
        if directory.is_dir() and os.access(directory, os.W_OK):
            return Finding(name, Verdict.OK, f"cgroup v{version}, {directory} can be divided")
    found = "no cgroup that can be divided; limits hold for each process alone, not for an agent as a whole"
    get = "systemd-run --user --scope -p Delegate=yes hive-c0re serve, or a service with Delegate=yes"
    return Finding(name, Verdict.OPTIONAL, found, get)


def _own_groups() -> Iterator[tuple[int, Path]]:
    """The groups of this process that can limit memory or tasks: of v2, then of v1."""
    ours = _own_group_paths()
    for mount in (CGROUPS, CGROUPS / "unified"):
        group = _below(mount, ours.get("", "/"))
        with contextlib.suppress(OSError):
            if {"memory", "pids"} & set((group / "cgroup.controllers").read_text().split()):
                yield 2, group
    for controller in ("memory", "pids"):
        yield 1, _below(CGROUPS / controller, ours.get(controller, "/"))


def _own_group_paths() -> dict[str, str]:
    """Controller, or an empty text for v2 → the path of our group."""
    ours: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            ours |= dict.fromkeys(controllers.split(","), path)
    return ours


def _below(mount: Path, path: str) -> Path:
    """Our group under its mount; in a container the mount itself is ours, and the path is the host's."""
    group = mount / path.lstrip("/")
    return group if group.is_dir() else mount


def _claude(machine: Machine) -> Finding:
    name = "claude"
    get = "make claude (npm, under the project), or npm install -g @anthropic-ai/claude-code"
    if machine.claude is None:
        return Finding(
            name, Verdict.OPTIONAL, "not found; agents use the rehearsal backend, not a model", get
        )
    quiet = {
        **machine.environment,
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    with tempfile.TemporaryDirectory(prefix="hive-doctor-") as elsewhere:
        version = run([str(machine.claude), "--version"], {**quiet, "CLAUDE_CONFIG_DIR": elsewhere})
    if not version.ok:
        return Finding(name, Verdict.OPTIONAL, f"{machine.claude} does not run: {version.line}", get)
    return Finding(name, Verdict.OK, f"{version.line} at {machine.claude}")


def _node() -> Finding:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        lacking = " and ".join(name for name, path in (("node", node), ("npm", npm)) if path is None)
        return Finding(
            "node and npm", Verdict.OPTIONAL, f"no {lacking}; only `make claude` needs them", str(_NODE)
        )
    version = run([node, "--version"]).line
    number = version.removeprefix("v").split(".")[0]
    if number.isdigit() and int(number) < NODE_MIN:
        get = f"Node.js {NODE_MIN} or later; {_NODE}"
        return Finding("node and npm", Verdict.OPTIONAL, f"node {version} is too old for the Claude CLI", get)
    return Finding("node and npm", Verdict.OK, f"node {version}, npm {run([npm, '--version']).line}")


def _chromium(machine: Machine) -> Finding:
    named = machine.environment.get("HIVE_CHROMIUM")
    path = named or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        return Finding(
            "chromium", Verdict.OPTIONAL, "not found; only the browser tests need it", str(_CHROMIUM)
        )
    version = run([path, "--version"])
    if not version.ok:
        return Finding("chromium", Verdict.OPTIONAL, f"{path} does not run: {version.line}", str(_CHROMIUM))
    return Finding("chromium", Verdict.OK, f"{version.line.strip()} at {path}")


def _nspawn() -> Finding:
    name = "nixos containers"
    if shutil.which("nixos-container"):
        return Finding(name, Verdict.OK, "nixos-container is here")
    if shutil.which("systemd-nspawn"):
        get = "needs NixOS; the local runtime does without"
        return Finding(name, Verdict.OPTIONAL, "systemd-nspawn is here, nixos-container is not", get)
    return Finding(name, Verdict.OPTIONAL, "not found; the local runtime does without", str(_NSPAWN))


def _configuration(machine: Machine) -> Finding:
    if not machine.configuration_error:
        return Finding("configuration", Verdict.OK, "can be read")
    return Finding("configuration", Verdict.MISSING, machine.configuration_error, "see docs/operating.md")


def _secret_file(name: str, file: Path | None, what: str) -> list[Finding]:
    """Nothing where none is configured: neither is needed."""
    if file is None:
        return []
    try:
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        return [Finding(name, Verdict.MISSING, f"{file}: {error.strerror}", f"put {what} there, mode 0600")]
    if mode & 0o077:
        found = f"{file} has mode {mode:04o}: others can read {what}"
        in_store = NIX_STORE in file.resolve().parents
        get = f"name a file outside {NIX_STORE}, mode 0600" if in_store else f"chmod 600 {file}"
        return [Finding(name, Verdict.MISSING, found, get)]
    return [Finding(name, Verdict.OK, str(file))]


def _ports(machine: Machine) -> list[Finding]:
    if machine.daemon is not None:
        return [Finding("ports", Verdict.OK, "the running daemon has them")]
    another = "choose another: serve --port N, or dashboard_port in the configuration"
    return [
        _port("dashboard port", machine.dashboard_port, Verdict.MISSING, another),
        _port("manager page port", MANAGER_PORT, Verdict.OPTIONAL, "its page is also under the dashboard"),
    ]


def _port(name: str, port: int, if_taken: Verdict, get: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(name, if_taken, f"{port} is taken: {error.strerror}", get)
    return Finding(name, Verdict.OK, f"{port} is free")


def _roots(paths: HostPaths) -> list[Finding]:
    return [_root("state directory", paths.state_root), _root("run directory", paths.run_root)]


def _root(name: str, directory: Path) -> Finding:
    existing = _nearest_existing(directory)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        if error.errno == errno.EROFS:
            return Finding(name, Verdict.BROKEN, f"{existing}: {disk.READ_ONLY}", disk.WAY_OUT)
        get = "run as root, or keep a whole hive under a directory of yours: --root ./.hive"
        return Finding(name, Verdict.MISSING, f"{existing} cannot be written: {error.strerror}", get)
    where = f"{directory} can be written" if existing == directory else f"{directory} can be created"
    return Finding(name, Verdict.OK, where)


def _nearest_existing(directory: Path) -> Path:
    return next(place for place in (directory, *directory.parents) if place.is_dir())


def _disk(paths: HostPaths) -> Finding:
    place = _nearest_existing(paths.state_root)
    free_bytes = shutil.disk_usage(place).free
    found = f"{free_bytes / 1024**3:.1f} GiB free at {place}"
    if free_bytes >= DISK_MIN_BYTES:
        return Finding("disk space", Verdict.OK, found)
    return Finding(
        "disk space", Verdict.MISSING, found, "free at least 1 GiB, or choose another place with --root"
    )


def _daemon(running: str | None) -> Finding:
    if running is not None:
        return Finding("daemon", Verdict.OK, running)
    return Finding("daemon", Verdict.OPTIONAL, "not running", "hive-c0re serve (in a checkout: make up)")
