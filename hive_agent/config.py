"""What core tells a harness through its environment."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from pydantic import TypeAdapter, ValidationError

from hive_agent.session import check_model
from hive_shared.agent_options import (
    ExtraMcpServer,
    builtin_tools,
    check_pattern,
    check_permissions,
    check_servers,
    check_tool,
)
from hive_shared.context_options import ContextOptions
from hive_shared.errors import BadRequest
from hive_shared.names import MANAGER, check_existing_name
from hive_shared.paths import ContainerPaths
from hive_shared.permissions import PermissionOptions

Role = Literal["agent", "manager"]
Tools = tuple[str, ...] | None

_SERVERS = TypeAdapter(dict[str, ExtraMcpServer])
_STRINGS = TypeAdapter(list[str])

NOT_ISOLATED = "not isolated"  # core's words, which the pages show too

# Ours, or about our own interpreter: the backend's programs must not inherit them. The backend
# chooses its own HOME, so that credentials stay in the agent's directory.
_NOT_FOR_THE_BACKEND = ("HIVE_", "PYTHON")
_NOT_FOR_THE_BACKEND_EXACTLY = frozenset({"HOME", "PWD", "OLDPWD", "SHLVL", "_", "VIRTUAL_ENV"})


@dataclass(frozen=True)
class HarnessConfig:
    """Who this harness is, what thinks in it, and where its directories are."""

    agent: str
    role: Role
    backend: str
    model: str
    claude: Path | None = None
    operator_pronouns: str = "they/them"
    isolation: str = NOT_ISOLATED
    paths: ContainerPaths = field(default_factory=ContainerPaths)
    extra_mcp: Mapping[str, ExtraMcpServer] = field(default_factory=dict)  # beside the hive's own server
    allowed_tools: Sequence[str] | None = None  # instead of the backend's usual tools
    bash_allow: Sequence[str] | None = None  # commands that Bash is narrowed to, such as `git *`
    permissions: PermissionOptions | None = None  # None: what is allowed is allowed, the rest is denied
    context: ContextOptions = field(default_factory=ContextOptions)
    environment: Mapping[str, str] = field(default_factory=dict)  # for the backend's programs

    @property
    def isolated(self) -> bool:
        return self.isolation not in ("", "none", NOT_ISOLATED)

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "HarnessConfig":
        """Read `HIVE_*`; raises `HiveError` naming the variable that is missing or wrong."""
        name = env.get("HIVE_AGENT", "")
        if not name:
            raise BadRequest("HIVE_AGENT is not set; core starts the harness with the agent's name in it")
        role = env.get("HIVE_ROLE", "manager" if name == MANAGER else "agent")
        if role not in ("agent", "manager"):
            raise BadRequest(f"HIVE_ROLE is {role!r}; it must be agent or manager")
        claude = env.get("HIVE_CLAUDE")
        servers = _servers(env)
        allowed, bash = _tools(env, servers)
        return cls(
            agent=check_existing_name(name),
            role=cast(Role, role),
            backend=env.get("HIVE_BACKEND", "claude"),
            model=check_model(env.get("HIVE_MODEL", "sonnet")),
            claude=Path(claude) if claude else None,
            operator_pronouns=env.get("HIVE_OPERATOR_PRONOUNS", "they/them"),
            isolation=env.get("HIVE_ISOLATION", NOT_ISOLATED),
            paths=ContainerPaths.from_environment(env),
            extra_mcp=servers,
            allowed_tools=allowed,
            bash_allow=bash,
            permissions=_permissions(env, servers),
            context=_context(env),
            environment=_for_backend(env),
        )


def _servers(env: Mapping[str, str]) -> dict[str, ExtraMcpServer]:
    """`HIVE_EXTRA_MCP`: `{"name": {"command", "args", "env"}}` as JSON."""
    variable = "HIVE_EXTRA_MCP"
    if variable not in env:
        return {}
    try:
        servers = _SERVERS.validate_json(env[variable])
        check_servers(servers)
    except ValidationError as error:
        raise BadRequest(f"{variable} is wrong: {_first(error)}") from None
    except BadRequest as error:
        raise BadRequest(f"{variable} is wrong: {error.message}") from None
    return servers


def _tools(env: Mapping[str, str], servers: Collection[str]) -> tuple[Tools, Tools]:
    """`HIVE_ALLOWED_TOOLS` and `HIVE_BASH_ALLOW`: lists of strings as JSON, which must fit each other."""
    allowed = _strings(env, "HIVE_ALLOWED_TOOLS", lambda rule: check_tool(rule, servers))
    bash = _strings(env, "HIVE_BASH_ALLOW", check_pattern)
    try:
        builtin_tools(allowed, bash)
    except BadRequest as error:
        raise BadRequest(f"HIVE_BASH_ALLOW does not fit HIVE_ALLOWED_TOOLS: {error.message}") from None
    return allowed, bash


def _permissions(env: Mapping[str, str], servers: Collection[str]) -> PermissionOptions | None:
    """`HIVE_PERMISSIONS`: the policy as JSON."""
    variable = "HIVE_PERMISSIONS"
    if variable not in env:
        return None
    try:
        options = PermissionOptions.model_validate_json(env[variable])
        check_permissions(options, servers)
    except ValidationError as error:
        raise BadRequest(f"{variable} is wrong: {_first(error)}") from None
    except BadRequest as error:
        raise BadRequest(f"{variable} is wrong: {error.message}") from None
    return options


def _context(env: Mapping[str, str]) -> ContextOptions:
    """`HIVE_CONTEXT`: when a conversation is made shorter, as JSON."""
    variable = "HIVE_CONTEXT"
    try:
        return ContextOptions.model_validate_json(env.get(variable, "{}"))
    except ValidationError as error:
        raise BadRequest(f"{variable} is wrong: {_first(error)}") from None


def _strings(env: Mapping[str, str], variable: str, check: Callable[[str], str]) -> Tools:
    if variable not in env:
        return None
    try:
        return tuple(check(text) for text in _STRINGS.validate_json(env[variable]))
    except ValidationError as error:
        raise BadRequest(f"{variable} is wrong: {_first(error)}") from None
    except BadRequest as error:
        raise BadRequest(f"{variable} is wrong: {error.message}") from None


def _first(error: ValidationError) -> str:
    """What is wrong and where, without the value: it may be long."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _for_backend(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if not name.startswith(_NOT_FOR_THE_BACKEND) and name not in _NOT_FOR_THE_BACKEND_EXACTLY
    }
