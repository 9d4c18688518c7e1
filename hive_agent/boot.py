"""The files that the backend reads, written next to the socket when the harness starts (SPEC section 8)."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from hive_agent import mcp_relay
from hive_agent.backends.base import MCP_SERVER
from hive_agent.config import HarnessConfig
from hive_agent.tools import tools_for
from hive_shared.agent_options import ExtraMcpServer
from hive_shared.errors import Unavailable
from hive_shared.paths import ContainerPaths

# Names as Claude Code's settings have them. Compaction is the harness's own business, and durable
# notes belong into /state, where the agent can be told about them.
SETTINGS: dict[str, Any] = {
    "autoCompactEnabled": False,
    "autoMemoryEnabled": False,
    "effortLevel": "medium",
}

SYSTEM_GIT_CONFIG = Path("/etc/gitconfig")  # of the machine; git skips an include that is not there
GIT_HOST = "hyperhive.invalid"  # of an agent's mail address, which is nobody's

_PROMPT_PLACES = (
    Path(__file__).parent / "prompts",  # an installed wheel
    Path(__file__).parent.parent / "prompts",  # a checkout, and /opt/hyperhive in a container
)


def write_boot_files(config: HarnessConfig) -> None:
    """What the backend and its programs read; raises `Unavailable` if it cannot be written."""
    paths = config.paths
    try:
        for directory in (paths.run, paths.claude, paths.state):
            directory.mkdir(parents=True, exist_ok=True)
        _write(paths.mcp_config, json.dumps(mcp_config(paths.tools_socket, config.extra_mcp), indent=2))
        _write(paths.settings, json.dumps(SETTINGS, indent=2))
        _write(paths.system_prompt, system_prompt(config))
        _write(paths.git_config, git_config(config))
    except OSError as error:
        raise Unavailable(f"cannot write {error.filename}: {error.strerror}") from None


def git_config(config: HarnessConfig) -> str:
    """So that the agent can commit: an identity, which its own configuration goes before.

    Repositories of others (/applied, and the proposed ones of a hive that was restored) git refuses to work
    in, unless told. In its container the manager is told; without one, git's caution protects the operator.
    """
    lines = [
        "[include]",
        f"\tpath = {SYSTEM_GIT_CONFIG}",
        "[user]",
        f"\tname = {config.agent}",
        f"\temail = {config.agent}@{GIT_HOST}",
        "[init]",
        "\tdefaultBranch = main",
    ]
    if config.role == "manager" and config.isolated:
        lines += ["[safe]", "\tdirectory = *"]
    applied, in_a_container = config.paths.applied, ContainerPaths().applied
    if applied != in_a_container:  # the remote `applied` of a proposed repository names it as in a container
        lines += [f'[url "{applied}/"]', f"\tinsteadOf = {in_a_container}/"]
    return "\n".join(lines) + "\n"


def git_environment(paths: ContainerPaths) -> dict[str, str]:
    """What makes git read that configuration, and never wait for somebody at a keyboard."""
    return {"GIT_CONFIG_SYSTEM": str(paths.git_config), "GIT_TERMINAL_PROMPT": "0"}


def mcp_config(tools_socket: Path, extra: Mapping[str, ExtraMcpServer] | None = None) -> dict[str, Any]:
    """How the backend reaches the tools: the relay, run by this very interpreter, and the extra servers.

    `-I -S`: no site-packages and no environment, so that it is there in a few milliseconds.
    """
    others = {
        name: {"type": "stdio", "command": other.command, "args": list(other.args), "env": other.env}
        for name, other in (extra or {}).items()
    }
    relay = str(Path(mcp_relay.__file__).resolve())
    server = {"type": "stdio", "command": sys.executable, "args": ["-I", "-S", relay, str(tools_socket)]}
    return {"mcpServers": {**others, MCP_SERVER: server}}


def notes_prompt(config: HarnessConfig, due: str) -> str:
    """What the harness asks for before the conversation is made shorter (`due`: how)."""
    return _rendered("notes", state_dir=config.paths.state, due=due)


def system_prompt(config: HarnessConfig) -> str:
    """The prompt of this agent's role, rendered for it."""
    paths = config.paths
    return _rendered(
        config.role,
        label=config.agent,
        operator_pronouns=config.operator_pronouns,
        tools=[(f"mcp__{MCP_SERVER}__{tool.name}", tool.description) for tool in tools_for(config.role)],
        state_dir=paths.state,
        shared_dir=paths.shared,
        agents_dir=paths.agents,
        applied_dir=paths.applied,
        isolated=config.isolated,
    )


def _rendered(name: str, **values: Any) -> str:
    template = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the result is a prompt, not HTML
    ).from_string(_prompt_file(name).read_text())
    return template.render(**values)


def _prompt_file(name: str) -> Path:
    for place in _PROMPT_PLACES:
        if (place / f"{name}.md").is_file():
            return place / f"{name}.md"
    raise Unavailable(f"the prompt {name}.md is not installed; looked in {_PROMPT_PLACES[0].parent}")


def _write(path: Path, text: str) -> None:
    """Replace `path` in one step, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
