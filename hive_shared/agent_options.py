"""What `agent.nix` may say about an agent's tools, environment and model (SPEC sections 8 and 10).

Core checks it when it builds the configuration, the harness when it starts: the same rules, written once.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from hive_shared.errors import BadRequest
from hive_shared.permissions import PermissionOptions

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}\Z")
VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
SECRET_NAME: Final = re.compile(r"API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
VARIABLE_MAX_CHARACTERS: Final = 32 * 1024
VARIABLES_MAX: Final = 200

HIVE_SERVER: Final = "hyperhive"
DEFAULT_TOOLS: Final = ("Bash", "Edit", "Glob", "Grep", "Read", "TodoWrite", "Write")
EXTRA_TOOLS: Final = (
    "NotebookEdit",
    "Task",
    "WebFetch",
    "WebSearch",
)  # only where a configuration names them
TOOLS_MAX: Final = 100
MCP_SERVERS_MAX: Final = 16

# Ours, the interpreter's, or what every program is found and started by.
_OURS = ("HIVE_", "LD_", "PYTHON")
_OURS_EXACTLY = frozenset(
    {
        "BASH_ENV",
        "CLAUDE_CONFIG_DIR",
        "ENV",
        "GCONV_PATH",
        "HOME",
        "IFS",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHELLOPTS",
    }
)
# Commas divide the tools of a command line; parentheses end a pattern.
_PATTERN = re.compile(r"[^\x00-\x1f\x7f-\x9f,()]{1,200}\Z")
_TOOL = re.compile(r"([A-Za-z]+)(?:\((.*)\))?\Z", re.DOTALL)
_MCP_TOOL = re.compile(r"mcp__([A-Za-z0-9_-]+?)(?:__([A-Za-z0-9_-]{1,64}))?\Z")
_SERVER_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_(?!_)){0,30}\Z")

_Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]


class ExtraMcpServer(BaseModel):
    """A server of tools beside the hive's own, started by the backend inside the container."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[_Text, Field(min_length=1)]
    args: Annotated[tuple[_Text, ...], Field(max_length=64)] = ()
    env: Annotated[dict[str, str], Field(max_length=64)] = {}


def check_server_name(name: str) -> str:
    """The name of an extra MCP server, which becomes part of its tools' names; raises `BadRequest`."""
    if name == HIVE_SERVER:
        raise BadRequest(f"the MCP server {HIVE_SERVER} is the hive's own and cannot be replaced")
    if not _SERVER_NAME.match(name):
        raise BadRequest(
            f"MCP server {name[:40]!r}: a name has at most 31 letters, digits, - and single _, "
            "and begins with a letter or digit"
        )
    return name


def check_variable(name: str, value: str) -> str:
    """An environment variable that a configuration may set, and its value; raises `BadRequest`."""
    if not VARIABLE_NAME.match(name):
        raise BadRequest(f"{name[:40]!r} cannot be the name of an environment variable")
    if name.startswith(_OURS) or name in _OURS_EXACTLY:
        raise BadRequest(f"{name} is set by hyperhive itself; a configuration cannot change it")
    if SECRET_NAME.search(name):
        raise BadRequest(
            f"{name} looks like a secret; a configuration is kept in git for ever. "
            "Have the program read it from a file below /state"
        )
    if "\0" in value or len(value) > VARIABLE_MAX_CHARACTERS:
        raise BadRequest(f"{name}: at most {VARIABLE_MAX_CHARACTERS // 1024} KiB, and no NUL character")
    return value


def check_tool(rule: str, servers: Collection[str] = ()) -> str:
    """One entry of `allowedTools`: `Read`, `Bash(git *)`, `mcp__<server>__<tool>`; raises `BadRequest`."""
    if rule.startswith("mcp__"):
        return _check_mcp_tool(rule, servers)
    match = _TOOL.match(rule)
    known = (*DEFAULT_TOOLS, *EXTRA_TOOLS)
    if match is None or match[1] not in known:
        raise BadRequest(
            f"tool {rule[:60]!r} is not known; there are {', '.join(known)}, those with a pattern "
            "such as Bash(git *), and mcp__<server>__<tool>"
        )
    if match[2] is not None:
        check_pattern(match[2])
    return rule


def _check_mcp_tool(rule: str, servers: Collection[str]) -> str:
    match = _MCP_TOOL.match(rule)
    if match is not None and match[1] == HIVE_SERVER:
        raise BadRequest(f"{rule[:60]}: the hive's own tools are always allowed; leave them out")
    if match is None or match[1] not in servers:
        declared = ", ".join(sorted(servers)) or "none"
        raise BadRequest(f"tool {rule[:60]!r}: no such MCP server in extraMcpServers (declared: {declared})")
    return rule


def check_pattern(pattern: str) -> str:
    """What may follow a command in `Bash(…)`; raises `BadRequest`."""
    if not _PATTERN.match(pattern) or not pattern.strip():
        raise BadRequest(
            f"pattern {pattern[:60]!r}: such as `git *`; 1 to 200 characters, no commas or parentheses"
        )
    return pattern


def builtin_tools(allowed: Sequence[str] | None, bash: Sequence[str] | None) -> tuple[str, ...]:
    """The backend's own tools that are offered, with their patterns.

    `allowed` replaces the default ones; `bash` narrows Bash to the commands of its patterns.
    Raises `BadRequest` where the two contradict each other.
    """
    tools = [rule for rule in (DEFAULT_TOOLS if allowed is None else allowed) if not rule.startswith("mcp__")]
    if bash is None:
        return tuple(dict.fromkeys(tools))
    if "Bash" not in tools:
        raise BadRequest(
            "bashAllow narrows the tool Bash, which allowedTools does not name; name it, or drop one"
        )
    narrowed = [f"Bash({pattern})" for pattern in bash]
    return tuple(dict.fromkeys([*(rule for rule in tools if rule != "Bash"), *narrowed]))


def mcp_tools(allowed: Sequence[str] | None, servers: Collection[str]) -> tuple[str, ...]:
    """What is allowed of the extra servers: all of one, unless single tools of it are named."""
    named = [rule for rule in allowed or () if rule.startswith("mcp__")]
    narrowed = {match[1] for rule in named if (match := _MCP_TOOL.match(rule))}
    return tuple(dict.fromkeys([*(f"mcp__{name}" for name in servers if name not in narrowed), *named]))


def check_permissions(options: PermissionOptions, servers: Collection[str] = ()) -> None:
    """The rules of `hyperhive.permissions`, which are written like those of `allowedTools`."""
    for rule in (*options.allow, *options.deny):
        check_tool(rule, servers)


def check_servers(servers: Mapping[str, ExtraMcpServer]) -> None:
    """Names and environments of all; raises `BadRequest`."""
    if len(servers) > MCP_SERVERS_MAX:
        raise BadRequest(f"at most {MCP_SERVERS_MAX} extra MCP servers")
    for name, server in servers.items():
        check_server_name(name)
        for variable, value in server.env.items():
            check_variable(variable, value)
