"""The command line and the environment of Claude Code (SPEC section 8).

Facts about the environment, tried with Claude Code 2.1.197:

- `CLAUDE_CODE_DISABLE_BACKGROUND_TASKS=1` is needed: otherwise a command begun with `run_in_background`
  starts a turn of its own when it ends, between ours, that nobody asked for and nobody sees.
- `CLAUDE_CODE_DISABLE_ATTACHMENTS=1` is a safeguard: otherwise an `@path` anywhere in a prompt, so also in a
  peer's message, makes the CLI read that file and put it into the conversation as a word of the system.
- `ENABLE_TOOL_SEARCH=false` keeps the hive's tools in the prompt; against Anthropic's own host they
  would hide behind a search tool, at the price of an inference.
- `CLAUDE_CODE_MAX_RETRIES` works; with 0 a `retry-after` is never told to us, so some stay allowed and
  `claude_outcome` cuts them short.
- `API_TIMEOUT_MS` bounds one request (600 seconds by itself, which is left so).
- `CLAUDE_CODE_SUBPROCESS_ENV_SCRUB=1` would hide the API key from Bash, but demands a sandbox of its own
  (socat, bubblewrap) within the container. The key is redacted from every line instead (`redact`); the
  agent can read it, as it can read its `.credentials.json`: it is the agent's own.
- Root is accepted as it is, without `IS_SANDBOX`, since permissions are not skipped but allowed by name.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from hive_agent.backends.base import MCP_SERVER, BackendConfig

API_KEY_FILE = "api-key"
API_KEY_MAX_BYTES = 4096
MAX_RETRIES = 8
CREDENTIAL_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_OTHER_PROVIDERS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")

# Marks of a session around us: a CLI that sees them takes itself for a nested one.
_OUTER_SESSION = ("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT", "CLAUDE_CODE_SESSION_ID")
_QUIET = {
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": str(MAX_RETRIES),
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "ENABLE_TOOL_SEARCH": "false",
}
# Not to be overridden: without it, a message could act before the model has read it.
_SAFEGUARDS = {"CLAUDE_CODE_DISABLE_ATTACHMENTS": "1"}


def arguments(config: BackendConfig, model: str, session_flags: Sequence[str], *, warm: bool) -> list[str]:
    """The whole command. A warm process takes JSON lines, another one its one prompt as plain text."""
    paths, tools = config.paths, list(config.builtin_tools)
    own = [f"mcp__{MCP_SERVER}__{name}" for name in config.mcp_tools]
    allowed, denied = [*tools, *config.extra_mcp_tools], list[str]()
    if config.gate is not None:
        allowed, denied = config.gate.command_rules(allowed, asks=warm)
    offered = dict.fromkeys(tool.partition("(")[0] for tool in tools)  # `Bash(git *)` offers Bash
    return [
        str(config.claude or "claude"),
        "--print",
        "--verbose",
        *(("--input-format", "stream-json") if warm else ()),
        "--output-format=stream-json",
        f"--model={model}",
        *session_flags,
        f"--settings={paths.settings}",
        f"--system-prompt-file={paths.system_prompt}",
        f"--mcp-config={paths.mcp_config}",
        "--strict-mcp-config",
        f"--tools={','.join(offered)}",
        f"--allowedTools={','.join([*own, *allowed])}",
        *((f"--disallowedTools={','.join(denied)}",) if denied else ()),
    ]


def environment(config: BackendConfig) -> dict[str, str]:
    """The environment of the CLI and of everything it starts."""
    paths = config.paths
    given = {name: value for name, value in config.environment.items() if name not in _OUTER_SESSION}
    result = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(paths.claude.parent if paths.claude.name == ".claude" else paths.state),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        **_QUIET,
        **given,
        **_SAFEGUARDS,
        "CLAUDE_CONFIG_DIR": str(paths.claude),
    }
    key = api_key(paths.claude)
    return result | {"ANTHROPIC_API_KEY": key} if key else result


def api_key(claude_directory: Path) -> str | None:
    """What core put into the `api-key` file, or None. Links and anything odd are passed over."""
    data = read_small_file(claude_directory / API_KEY_FILE, API_KEY_MAX_BYTES)
    key = data.decode("ascii", "replace").strip() if data else ""
    return key if key and key.isprintable() and " " not in key else None


def read_small_file(path: Path, max_bytes: int) -> bytes | None:
    """A regular file's content, without following a link; None if it is none, or larger."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(max_bytes + 1)
    return data if len(data) <= max_bytes else None


def has_credentials_in(environment: Mapping[str, str]) -> bool:
    """Whether an environment brings its own credentials, or another provider's."""
    return any(environment.get(name) for name in (*CREDENTIAL_VARIABLES, *_OTHER_PROVIDERS))
