"""Building a configuration for the local runtime: what of `agent.nix` can be honoured without Nix.

The configuration is hostile until the operator has read it, and perhaps after. It is evaluated in a process
of its own, with limits from the kernel, beside those that the evaluation has itself. That process reads its
order as JSON, prints the log as lines to standard error, and the system as JSON to standard output.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hive_core.config import AgentLimits
from hive_core.containers.base import BuildFailed
from hive_core.containers.command import CommandFailed, Limits, capture
from hive_core.containers.local_options import Options, Programs
from hive_core.containers.local_system import LocalLimits, LocalSystem, system_of
from hive_core.nix_module.modules import TOP, Configuration
from hive_core.nix_module.values import Fault
from hive_shared.agent_options import VARIABLES_MAX, ExtraMcpServer, builtin_tools, check_servers
from hive_shared.errors import BadRequest, HiveError

BUILD_SECONDS = 60.0
BUILD_CPU_SECONDS = 20
BUILD_MEMORY_BYTES = 2**30
OUTPUT_MAX_BYTES = 4 * 2**20
MCP_MAX_BYTES = 64 * 1024  # of all extra servers: they travel in one environment variable
RECURSION_MAX = 8000
SHOWN_LINES = 12
EXIT_REFUSED = 3  # the configuration is wrong; anything else but 0 is the build's own end

Log = Callable[[str], None]

_LIMITS: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "memory_max_bytes": ("memory", lambda value: f"{value / 2**30:g} GiB"),
    "tasks_max": ("tasks", lambda value: f"{value:,}"),
    "cpu_quota_percent": ("processor time", lambda value: f"{value} % of a core"),
    "open_files": ("open files", lambda value: f"{value:,}"),
}


class Machine(BaseModel):
    """What a build has to know of the machine that the agent will run on."""

    model_config = ConfigDict(frozen=True)

    search_path: str = "/usr/local/bin:/usr/bin:/bin"  # where the agent's shell looks for programs
    limits: AgentLimits = AgentLimits()
    has_claude: bool = True


class BuildOrder(BaseModel):
    """What the process that builds is told."""

    tree: Path
    machine: Machine


def build_local(tree: Path, log: Log, machine: Machine | None = None) -> LocalSystem:
    """What the local runtime honours of the configuration in `tree`; raises `BuildFailed` with the reason."""
    try:
        options = Options(Configuration(tree), (machine or Machine()).search_path)
        return _built(options, log, machine or Machine())
    except RecursionError:
        raise BuildFailed(f"{TOP}: its values are nested too deep") from None
    except Fault as fault:
        raise BuildFailed(fault.message if fault.place else f"{TOP}: {fault.message}") from None
    except BadRequest as error:
        raise BuildFailed(f"{TOP}: {error.message}") from None
    except BuildFailed:
        raise
    except HiveError as error:  # a syntax error, with its place
        raise BuildFailed(error.message) from None


async def build_apart(tree: Path, log: Log, machine: Machine) -> LocalSystem:
    """As `build_local`, in a process of its own with limits on time and memory."""
    order = BuildOrder(tree=tree, machine=machine).model_dump_json().encode()
    package_root = str(Path(__file__).parents[2])
    try:
        ended = await capture(
            [sys.executable, "-P", "-m", "hive_core.containers.local_build"],
            timeout_seconds=BUILD_SECONDS,
            output_max_bytes=OUTPUT_MAX_BYTES,
            limits=Limits(BUILD_MEMORY_BYTES, BUILD_CPU_SECONDS, file_bytes=0),
            given=order,
            environment={"PYTHONPATH": package_root, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    except CommandFailed as error:
        raise BuildFailed(f"{TOP} could not be evaluated: {error.message}") from None
    lines = ended.errors.splitlines()
    if ended.exit_code == 0 and not ended.cut:
        _tell(log, lines)
        return system_of(json.loads(ended.output), "this build")
    if ended.exit_code == EXIT_REFUSED and lines:
        _tell(log, lines[:-1])
        raise BuildFailed(lines[-1])
    _tell(log, lines[-SHOWN_LINES:])
    raise BuildFailed(
        f"{TOP} could not be evaluated: it takes more than {BUILD_CPU_SECONDS} seconds or "
        f"{BUILD_MEMORY_BYTES // 2**20} MiB (exit code {ended.exit_code})"
    )


def _tell(log: Log, lines: Sequence[str]) -> None:
    for line in lines:
        log(line)


# --- the steps ----------------------------------------------------------------


def _built(options: Options, log: Log, machine: Machine) -> LocalSystem:
    log("evaluating agent.nix for the local runtime, without Nix")
    options.check_names()
    backend = _backend(options, machine)
    servers = options.servers()
    check_servers(servers)
    _check_size(servers)
    allowed, bash = options.allowed_tools(list(servers)), options.bash_allow()
    tools = builtin_tools(allowed, bash)
    environment = options.environment()
    if len(environment) > VARIABLES_MAX:
        raise BuildFailed(f"{TOP}: {len(environment)} environment variables; at most {VARIABLES_MAX}")
    programs = options.packages()
    limits = options.limits()
    others = options.others()
    system = LocalSystem(
        environment=environment,
        packages=programs.packages,
        missing=programs.missing,
        model=options.model(),
        backend=backend,
        extra_mcp_servers=servers,
        allowed_tools=allowed,
        bash_allow=bash,
        permissions=options.permissions(list(servers)),
        context=options.context(),
        limits=limits,
        not_honoured=tuple(others),
    )
    _tell_settings(system, tools, log)
    _tell_packages(programs, log)
    _tell_limits(limits, machine.limits, log)
    _tell_the_rest(options, system, log)
    return system


def _backend(options: Options, machine: Machine) -> str | None:
    asked = options.backend()
    if asked is None:
        return None
    backend, place = asked
    if backend == "claude" and not machine.has_claude:
        raise Fault(
            place,
            'hyperhive.backend is "claude", but the Claude Code CLI is not on this machine; install it '
            '(`make claude`), name it with claude_path, or use "rehearsal"',
        )
    return backend


def _check_size(servers: Mapping[str, ExtraMcpServer]) -> None:
    size = sum(len(server.model_dump_json().encode()) for server in servers.values())
    if size > MCP_MAX_BYTES:
        raise BuildFailed(
            f"{TOP}: hyperhive.extraMcpServers take {size:,} bytes together; at most {MCP_MAX_BYTES:,}"
        )


def _tell_settings(system: LocalSystem, tools: Sequence[str], log: Log) -> None:
    if system.model:
        log(f"model: {system.model}")
    if system.backend:
        log(f"backend: {system.backend}")
    if system.environment:
        log(f"environment: {', '.join(sorted(system.environment))}")
    for name, server in system.extra_mcp_servers.items():
        log(f"MCP server {name}: {_shown(' '.join((server.command, *server.args)))}")
    if system.allowed_tools is not None or system.bash_allow is not None:
        log(f"tools: {_shown(', '.join(tools)) or 'none of its own'}")
    if system.permissions is not None:
        log(f"allowed without asking: {_shown(', '.join(system.permissions.allow)) or 'nothing'}")
        log(f"denied: {_shown(', '.join(system.permissions.deny)) or 'nothing by itself'}")
        rest = "the operator is asked" if system.permissions.default == "ask" else "is denied"
        log(f"any other tool call: {rest}")
    if system.context is not None:
        log(f"its conversation is compacted at {_mark(system.context.compact_at)}")
        log(f"and begun anew, once it is cold, at {_mark(system.context.reset_at)}")


def _mark(watermark: float) -> str:
    if watermark == 0:
        return "no size"
    return f"{watermark:.0%} of the model's context" if watermark < 1 else f"{watermark:,.0f} tokens"


def _tell_packages(programs: Programs, log: Log) -> None:
    if programs.present:
        log(f"packages on this machine: {', '.join(programs.present)}")
    if programs.missing:
        log(
            f"packages NOT on this machine: {', '.join(programs.missing)}; the agent runs without them "
            "until they are installed here"
        )
    if programs.unchecked:
        log(f"packages that only Nix can make, left out: {', '.join(programs.unchecked)}")


def _tell_limits(asked: LocalLimits, operators: AgentLimits, log: Log) -> None:
    holds = asked.within(operators).model_dump()
    for name, value in asked.model_dump(exclude_none=True).items():
        words, shown = _LIMITS[name]
        if holds[name] == value:
            log(f"limit: {words} {shown(value)}")
        else:
            log(f"limit: {words} {shown(value)} is above the operator's {shown(holds[name])}, which holds")


def _tell_the_rest(options: Options, system: LocalSystem, log: Log) -> None:
    for note in options.notes:
        log(f"left out: {note}")
    if options.configuration.outside:
        log(f"left out, modules that only NixOS has: {', '.join(options.configuration.outside)}")
    if system.not_honoured:
        log(f"only a NixOS host honours: {', '.join(system.not_honoured)}")


def _shown(text: str, characters: int = 300) -> str:
    return text if len(text) <= characters else text[:characters] + "…"


# --- the process that builds -----------------------------------------------------


def main() -> None:
    """Build what standard input orders; the exit code is 0, or EXIT_REFUSED with the reason as last line."""
    sys.setrecursionlimit(RECURSION_MAX)
    order = BuildOrder.model_validate_json(sys.stdin.buffer.read())
    try:
        system = build_local(order.tree, _print, order.machine)
    except BuildFailed as error:
        _print(error.message)
        sys.exit(EXIT_REFUSED)
    sys.stdout.write(system.model_dump_json())


def _print(line: str) -> None:
    plain = "".join(character if character.isprintable() else "·" for character in line)
    sys.stderr.write(f"{plain}\n")


if __name__ == "__main__":
    main()
