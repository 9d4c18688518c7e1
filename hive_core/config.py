"""Settings of the daemon: config file, then `HIVE_*` environment, then command-line flags.

Later ones win. The file is TOML, named by `--config` or `HIVE_CONFIG`; nested values are tables
there and use two underscores in the environment (`HIVE_LIMITS__MEMORY_MAX_BYTES=2G`).
"""

import ipaddress
import json
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict, SettingsError

from hive_core.days import zone_named
from hive_core.notify.quiet import QuietHours
from hive_shared.backends import BackendName
from hive_shared.counts import parse_count
from hive_shared.errors import HiveError
from hive_shared.names import BROADCAST, DASHBOARD_PORT, MANAGER, OPERATOR, is_agent_name
from hive_shared.paths import HostPaths

CONFIG_VARIABLE = "HIVE_CONFIG"
ENVIRONMENT_PREFIX = "HIVE_"
PROJECT_CLAUDE = Path(__file__).resolve().parent.parent / ".claude-cli" / "claude"  # in a checkout
_SECRET_NAME = re.compile(r"API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ALLOWED_HOST = re.compile(
    r"(?P<origin>(?:https?://)?(?:[\w.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?)(?P<base>(?:/[\w.~-]+)*)/?",
    re.ASCII | re.IGNORECASE,
)
_OWN_PATHS = frozenset({"agents", "api", "login", "messages", "metrics", "static"})  # of the dashboard itself
_WEB_ADDRESS = re.compile(
    r"https?://(?:[\w.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:/[\w.~-]+)*/?", re.ASCII | re.IGNORECASE
)
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class BadConfig(HiveError):
    """The configuration cannot be used."""


def _size(value: Any) -> Any:
    """Bytes, also written as `512M` or `2 GiB` (powers of 1024)."""
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    return int(match[1]) * _SIZE_UNITS[match[2].upper()] if match else value


def _count(value: Any) -> Any:
    """A number, also written as `500k`, `5M` or `1.5G` (powers of 1000)."""
    return parse_count(value) if isinstance(value, str) else value


def _list(value: Any) -> Any:
    """A list, in the environment also written with commas."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _table(value: Any) -> Any:
    """A table, in the environment written as a JSON object."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError:
        raise ValueError('must be a JSON object, such as {"name": "value"}') from None


def _absolute(path: Path) -> Path:
    # Lexically: a root that does not exist yet, or is a link on purpose, stays what was written.
    return Path(os.path.abspath(path.expanduser()))


def _allowed_hosts(entries: list[str]) -> list[str]:
    """Names, `name:port`, or addresses of a proxy; one base path for each."""
    base_of: dict[str, str] = {}
    for entry in entries:
        match = _ALLOWED_HOST.fullmatch(entry.strip())
        if match is None:
            raise ValueError(
                f"{entry[:80]!r} is neither a name, name:port, nor the address of a proxy such as "
                "https://example.org/hive"
            )
        parts = match["base"].split("/")[1:]
        if parts and (parts[0] in _OWN_PATHS or {".", ".."} & set(parts)):
            raise ValueError(f"{entry[:80]!r}: the dashboard cannot be under {match['base'][:40]}")
        if base_of.setdefault(match["origin"].lower(), match["base"]) != match["base"]:
            raise ValueError(f"{match['origin'][:80]} is there twice, with different paths")
    return entries


def _networks(entries: list[str]) -> list[str]:
    """Addresses and networks, and never everybody."""
    for entry in entries:
        try:
            network = ipaddress.ip_network(entry)
        except ValueError as error:
            raise ValueError(f"{entry[:80]!r} is not an address or a network: {error}") from None
        if network.prefixlen == 0:
            raise ValueError(f"{entry} is everybody; name the proxy's own address")
    return entries


def _not_secret(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not _VARIABLE_NAME.match(name) or "\0" in value:
            raise ValueError(f"{name[:40]!r} is not an environment variable")
        if name.startswith(ENVIRONMENT_PREFIX):
            raise ValueError(f"{name} is set by hyperhive itself")
        if _SECRET_NAME.search(name):
            raise ValueError(
                f"{name} looks like a secret; put an API key into a file and name it api_key_file"
            )
    return variables


def _names(allow: dict[str, list[str]]) -> dict[str, list[str]]:
    """Names that there could be: a list may be written before its agents are spawned."""
    for sender, recipients in allow.items():
        for name in (sender, *(name for name in recipients if name != OPERATOR)):
            if name not in (BROADCAST, MANAGER) and not is_agent_name(name):
                raise ValueError(f"{name[:40]!r} cannot be the name of an agent")
    return allow


def _quiet_hours(text: str) -> str:
    QuietHours.parse(text)
    return text


def _time_zone(name: str) -> str:
    zone_named(name)
    return name


def _web_address(text: str) -> str:
    """An address that a link can begin with: no password, query or fragment."""
    if not _WEB_ADDRESS.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no address such as https://hive.example.org or …/hive")
    return text


Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AgentLimits(BaseModel):
    """What one agent's container may use, where the machine can enforce it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_max_bytes: Bytes = 4 * 2**30
    tasks_max: Annotated[int, Field(ge=16)] = 512
    cpu_quota_percent: Annotated[int, Field(ge=1)] | None = None  # 100 is one whole core
    open_files: Annotated[int, Field(ge=64)] = 8192


class Settings(BaseSettings):
    """Everything the operator can set. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    root: AbsolutePath | None = None  # a whole hive under one directory, such as ./.hive
    state_root: AbsolutePath = Path("/var/lib/hyperhive")
    run_root: AbsolutePath = Path("/run/hyperhive")
    host_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = "local"

    listen_address: str = "127.0.0.1"
    dashboard_port: Port = DASHBOARD_PORT  # 0: any free one
    agent_page_ports: bool = True  # also answer on 8000 and 8100–8999, one port an agent
    allowed_hosts: Annotated[list[str], NoDecode, BeforeValidator(_list), AfterValidator(_allowed_hosts)] = []
    trusted_proxies: Annotated[list[str], NoDecode, BeforeValidator(_list), AfterValidator(_networks)] = []
    forwarded_headers: Literal["x-forwarded", "forwarded"] = "x-forwarded"  # which ones the proxy sets
    listen_socket: AbsolutePath | None = None  # for a reverse proxy, which is believed there
    listen_socket_group: str | None = None  # may use it beside the daemon's own user
    session_idle_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 7.0
    session_max_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    operator_pronouns: Annotated[str, Field(min_length=1, max_length=40)] = "they/them"

    runtime: Literal["local", "nixos"] = "local"
    isolation: Literal["auto", "bubblewrap", "none"] = "auto"
    system_call_filter: bool = True  # of agents in bubblewrap
    backend: Literal["auto", BackendName] = "auto"
    model: Annotated[str, Field(min_length=1, max_length=128)] = "sonnet"
    claude_path: AbsolutePath | None = None
    api_key_file: AbsolutePath | None = None
    agent_environment: Annotated[
        dict[str, str], NoDecode, BeforeValidator(_table), AfterValidator(_not_secret)
    ] = {}
    hyperhive_flake: str | None = None  # pinned; where NixOS containers take hyperhive from
    private_network: bool = False  # of each NixOS container
    user_namespaces: bool = True  # root in a NixOS container is nobody outside; else it is the host's root
    allow_unfree_claude_code: bool = False  # in NixOS containers
    group: str = "hive"  # may use host.sock, if the group exists
    limits: AgentLimits = AgentLimits()

    restart_backoff_first_seconds: Seconds = 1.0
    restart_backoff_max_seconds: Seconds = 60.0
    healthy_after_seconds: Seconds = 60.0  # running that long forgets earlier crashes
    silent_after_seconds: Seconds = 20.0  # a harness that has not been heard of for so long is offline
    stuck_after_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 120.0  # is restarted; 0: never
    stop_grace_seconds: Seconds = 10.0
    start_parallel: Annotated[int, Field(ge=1, le=64)] = 4
    log_max_bytes: Bytes = 4 * 2**20  # of one agent's console log; one older file is kept

    auto_update: bool = True  # at start, rebuild the agents that were built from another revision
    build_timeout_seconds: Seconds = 1800.0
    build_parallel: Annotated[int, Field(ge=1, le=16)] = 2  # builds at once, over all agents

    sends_per_minute: Annotated[int, Field(ge=1)] = 120
    send_burst: Annotated[int, Field(ge=1)] = 60
    inbox_depth: Annotated[int, Field(ge=1)] = 10_000
    retention_days: Annotated[float, Field(gt=0)] = 30.0
    crashes_per_message: Annotated[int, Field(ge=0)] = 5  # then it is set aside; 0: it never is
    loop_messages: Annotated[int, Field(ge=0)] = 40  # of two agents to each other; 0: nobody is paused
    loop_window_seconds: Seconds = 300.0
    next_turns_in_a_row: Annotated[int, Field(ge=0)] = 50  # that an agent asks for itself; 0: nobody is asked

    budget_turns: Annotated[int, Field(ge=0)] = 0  # of one agent and day; 0: no limit
    budget_tokens: Annotated[int, BeforeValidator(_count), Field(ge=0)] = 0  # without those read from a cache
    budget_dollars: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] = 0.0
    budget_warn_percent: Annotated[int, Field(ge=1, le=100)] = 80  # of a limit; then the agent is told
    time_zone: Annotated[str, AfterValidator(_time_zone)] | None = None  # of days; None: the host's

    send_allow: Annotated[
        dict[str, list[str]], NoDecode, BeforeValidator(_table), AfterValidator(_names)
    ] = {}  # whom an agent may write to; one that is not named, everyone

    notify_urls_file: AbsolutePath | None = None  # Apprise URLs, one a line, mode 0600
    notify_base_url: Annotated[str, AfterValidator(_web_address)] | None = None  # of links in notifications
    notify_detail: Literal["excerpt", "count"] = "excerpt"
    notify_quiet_hours: Annotated[str, AfterValidator(_quiet_hours)] | None = None
    notify_pause_seconds: Seconds = 120.0  # at least, between two notifications to one target

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json", "journal"] = "auto"
    slow_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0  # 0: nothing is called slow
    loop_blocked_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0  # 0: nobody looks
    metrics_socket: AbsolutePath | None = None  # where a scraper reads metrics, without a login

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Only what the caller passes: `load_settings` merges the sources itself, to name them in errors."""
        return (sources["init_settings"],)

    @property
    def paths(self) -> HostPaths:
        return HostPaths(state_root=self.state_root, run_root=self.run_root)

    def find_claude(self) -> Path | None:
        """The Claude Code CLI: `claude_path`, that of `make claude`, or the one on PATH; else None."""
        if self.claude_path is not None:
            return self.claude_path.resolve() if self.claude_path.is_file() else None
        if PROJECT_CLAUDE.is_file():
            return PROJECT_CLAUDE.resolve()
        found = shutil.which("claude")
        return Path(found).resolve() if found else None

    def chosen_backend(self) -> BackendName:
        """`backend`, with `auto` decided by whether the Claude CLI is there, or may be built in."""
        if self.backend != "auto":
            return self.backend
        if self.runtime == "nixos":
            return "claude" if self.allow_unfree_claude_code else "rehearsal"
        return "claude" if self.find_claude() else "rehearsal"


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Settings from file, environment and `flags` (None values are flags that were not given).

    Raises `BadConfig` with one line that names the field and where it was set.
    """
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    layers = [
        (f"config file {named}", _from_file(named)),
        ("environment", _from_environment()),
        ("command line", given),
    ]
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged = _merge(merged, _with_roots(layer))
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise _explained(error, layers) from None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadConfig(f"config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"config file {path}: not TOML: {error}") from None


def _from_environment() -> dict[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise BadConfig(f"environment: {error}; nested values use HIVE_LIMITS__TASKS_MAX=…") from None


def _with_roots(layer: dict[str, Any]) -> dict[str, Any]:
    """`root` is short for both roots, unless the same layer says otherwise."""
    if layer.get("root") is None:
        return layer
    whole = HostPaths.under(Path(layer["root"]))
    return {"state_root": whole.state_root, "run_root": whole.run_root} | layer


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        # Limits merge field by field; an environment table is one value and replaces the other.
        if name == "limits" and isinstance(value, dict) and isinstance(below.get(name), dict):
            value = {**below[name], **value}
        merged[name] = value
    return merged


def _explained(error: ValidationError, layers: list[tuple[str, dict[str, Any]]]) -> BadConfig:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    loc = [str(part) for part in first["loc"]]
    field = ".".join(loc)
    source = next((name for name, layer in reversed(layers) if loc and loc[0] in layer), "settings")
    if source == "environment":
        source = f"environment variable {ENVIRONMENT_PREFIX}{'__'.join(loc).upper()}"
    if source == "command line":
        source = f"flag --{loc[0].replace('_', '-')}"
    if first["type"] == "extra_forbidden":
        return BadConfig(f"{source}: {field}: there is no such setting", field=field)
    return BadConfig(f"{source}: {field}: {first['msg'].removeprefix('Value error, ')}", field=field)
