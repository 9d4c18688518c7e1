"""The command line and the environment of the Codex CLI.

Facts, tried with Codex CLI 0.169.0 against a scripted Responses API:

- `codex exec --json` prints one event a line; `codex exec resume <thread>` takes the same options.
- `developer_instructions` is a message of its own after Codex's own instructions.
- A provider with `base_url` and `wire_api = "responses"` needs no login; `env_key` names its key's variable.
- `web_search = "disabled"`, and the features `multi_agent` and `goals` off, leave the tools `exec_command`,
  `write_stdin`, `request_user_input`, `view_image`, and those of the MCP servers. Calls of these run without
  a question only with `--dangerously-bypass-approvals-and-sandbox`: the container is the sandbox.
- Values of `-c` are TOML. What JSON writes of texts, lists and objects of ours is put into it piece by piece.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hive_agent import mcp_launch
from hive_agent.backends.base import MCP_SERVER, BackendConfig
from hive_agent.backends.claude_command import api_key, read_small_file

DIRECTORY = "codex"  # below the agent's directory for credentials: CODEX_HOME
LOGIN_FILE = "auth.json"  # what `codex login`, run by hand, leaves there
LOGIN_MAX_BYTES = 256 * 1024
KEY_VARIABLE = "CODEX_API_KEY"
CALL_SECONDS = 900
SYSTEM_PROMPT_MAX_BYTES = 100 * 1024  # an argument has at most 128 KiB
_OFF = ("multi_agent", "goals")


def find(config: BackendConfig) -> str | None:
    """The program, on the agent's own PATH."""
    return shutil.which("codex", path=environment(config)["PATH"])


def home(config: BackendConfig) -> Path:
    return config.paths.claude / DIRECTORY


def has_credentials(config: BackendConfig) -> bool:
    """Whether there is a key, a login of `codex login`, or an API of the agent's own, which may need none."""
    kept = read_small_file(home(config) / LOGIN_FILE, LOGIN_MAX_BYTES)
    return bool(kept or api_key(config.paths.claude) or config.environment.get("OPENAI_BASE_URL"))


def arguments(program: str, config: BackendConfig, model: str, thread: str | None) -> list[str]:
    """The whole command; the prompt is its input."""
    resume = ["resume", thread] if thread else []
    settings = {
        "web_search": "live" if "WebSearch" in config.builtin_tools else "disabled",
        "developer_instructions": _system_prompt(config.paths.system_prompt),
        **_provider(config),
        **{f"mcp_servers.{name}": server for name, server in _servers(config).items()},
        "shell_environment_policy.exclude": [KEY_VARIABLE],
    }
    return [
        *(program, "exec", *resume, "--json", "--skip-git-repo-check", "--ignore-user-config"),
        "--dangerously-bypass-approvals-and-sandbox",
        *(word for feature in _OFF for word in ("--disable", feature)),
        *(() if "Bash" in config.builtin_tools else ("--disable", "shell_tool")),
        *(word for name, value in settings.items() for word in ("-c", f"{name}={toml(value)}")),
        *("--model", model, "-"),
    ]


def environment(config: BackendConfig) -> dict[str, str]:
    """The environment of the CLI. Its key is not passed on to the commands that it runs."""
    result = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(config.paths.state),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        **{name: value for name, value in config.environment.items() if name != KEY_VARIABLE},
        "CODEX_HOME": str(home(config)),
    }
    key = api_key(config.paths.claude)
    return result | {KEY_VARIABLE: key} if key else result


def unenforceable(config: BackendConfig) -> str:
    """Why this agent's rules cannot be kept here, or nothing: Codex knows neither patterns nor questions."""
    kept: Sequence[str] = config.builtin_tools
    denied: Sequence[str] = ()
    if config.gate is not None:
        kept, denied = config.gate.command_rules(config.builtin_tools, asks=False)
    rules = (*config.builtin_tools, *kept)
    narrowed = [rule for rule in rules if "(" in rule and rule.partition("(")[0] not in kept]
    asked_for = [tool for tool in config.builtin_tools if tool == "Bash" and tool not in kept]
    if named := ", ".join(dict.fromkeys([*narrowed, *denied, *asked_for])):
        return f"Codex cannot keep to the rules for {named[:200]}; use another backend"
    return ""


def toml(value: Any) -> str:
    """A value as TOML on one line: texts, numbers, booleans, lists, and tables."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{" + ", ".join(f"{toml(str(name))} = {toml(each)}" for name, each in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(toml(each) for each in value) + "]"
    raise TypeError(f"{type(value).__name__} is not for a configuration")


def _provider(config: BackendConfig) -> dict[str, Any]:
    base_url = config.environment.get("OPENAI_BASE_URL")
    if not base_url:
        return {}
    provider: dict[str, Any] = {
        "name": "the agent's API",
        "base_url": base_url,
        "wire_api": "responses",
        "request_max_retries": 1,
        "stream_max_retries": 1,
    }
    if api_key(config.paths.claude):
        provider["env_key"] = KEY_VARIABLE
    return {"model_provider": "hive", "model_providers.hive": provider}


def _servers(config: BackendConfig) -> dict[str, dict[str, Any]]:
    """What the harness wrote for its backends, narrowed to the tools that are allowed."""
    allowed = [f"mcp__{MCP_SERVER}__{name}" for name in config.mcp_tools] + list(config.extra_mcp_tools)
    servers: dict[str, dict[str, Any]] = {}
    for name, declared in json.loads(config.paths.mcp_config.read_bytes())["mcpServers"].items():
        tools = [rule.removeprefix(f"mcp__{name}__") for rule in allowed if rule.startswith(f"mcp__{name}__")]
        whole = f"mcp__{name}" in allowed
        if not tools and not whole:
            continue
        servers[name] = {
            **_start(name, declared, config.paths.mcp_config),
            "tool_timeout_sec": CALL_SECONDS,
            **({} if whole else {"enabled_tools": tools}),
        }
    return servers


def _start(name: str, declared: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """How to start it. An environment may hold secrets, so none is on this command line."""
    if not declared.get("env"):
        return {"command": declared["command"], "args": declared.get("args", [])}
    launch = str(Path(mcp_launch.__file__).resolve())
    return {"command": sys.executable, "args": ["-I", "-S", launch, str(file), name]}


def _system_prompt(file: Path) -> str:
    text = file.read_bytes()[:SYSTEM_PROMPT_MAX_BYTES].decode("utf-8", "ignore")
    return text.replace("\0", "")
