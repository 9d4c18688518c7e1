"""Where things are, on a host and inside a container (SPEC section 3).

The roots are configurable so that a whole hive also lives under one directory,
unprivileged, such as `./.hive/`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hive_shared.names import MANAGER

SOCKET_NAME = "mcp.sock"  # core listens, the harness connects
PAGE_SOCKET_NAME = "page.sock"  # the harness listens, core relays its JSON and SSE
TOOLS_SOCKET_NAME = "tools.sock"  # the harness's MCP server; `hive-ag3nt mcp` relays stdio to it


@dataclass(frozen=True)
class HostPaths:
    """The directories and files of one hive on its host."""

    state_root: Path = Path("/var/lib/hyperhive")
    run_root: Path = Path("/run/hyperhive")

    @classmethod
    def under(cls, root: Path) -> "HostPaths":
        """A whole hive under one directory: `root/lib` and `root/run`."""
        return cls(state_root=root / "lib", run_root=root / "run")

    @property
    def lock_file(self) -> Path:
        """Held by the one daemon that may replace sockets here."""
        return self.run_root / "hive-c0re.lock"

    @property
    def host_socket(self) -> Path:
        return self.run_root / "host.sock"

    @property
    def database(self) -> Path:
        return self.state_root / "broker.sqlite"

    @property
    def agents(self) -> Path:
        return self.state_root / "agents"

    @property
    def applied_root(self) -> Path:
        return self.state_root / "applied"

    @property
    def shared(self) -> Path:
        return self.state_root / "shared"

    @property
    def logs(self) -> Path:
        """Console logs of containers of the local runtime."""
        return self.state_root / "logs"

    @property
    def last_backup(self) -> Path:
        """Empty; its time is when `hive-c0re backup` last succeeded."""
        return self.state_root / "last-backup"

    @property
    def notify_ledger(self) -> Path:
        """Which notifications were sent."""
        return self.state_root / "notify.json"

    def run_dir(self, agent: str) -> Path:
        """The directory that is `/run/hive` in the agent's container."""
        return self.run_root / "manager" if agent == MANAGER else self.run_root / "agents" / agent

    def socket(self, agent: str) -> Path:
        return self.run_dir(agent) / SOCKET_NAME

    def page_socket(self, agent: str) -> Path:
        return self.run_dir(agent) / PAGE_SOCKET_NAME

    def agent_dir(self, agent: str) -> Path:
        return self.agents / agent

    def config(self, agent: str) -> Path:
        """The proposed repository: hostile input, never run git here (SECURITY 6)."""
        return self.agent_dir(agent) / "config"

    def claude(self, agent: str) -> Path:
        return self.agent_dir(agent) / "claude"

    def state(self, agent: str) -> Path:
        return self.agent_dir(agent) / "state"

    def port_file(self, agent: str) -> Path:
        """Beside the agent's state and not in it: the container cannot write here."""
        return self.agent_dir(agent) / "port"

    def applied(self, agent: str) -> Path:
        return self.applied_root / agent

    def revision_file(self, agent: str) -> Path:
        return self.applied_root / f".{agent}.hyperhive-rev"

    def system_file(self, agent: str) -> Path:
        """What building the agent's running configuration gave; core's own, read at each start."""
        return self.applied_root / f".{agent}.system.json"

    @property
    def builds(self) -> Path:
        """Work and logs of approvals that are or were built, by number."""
        return self.state_root / "builds"

    def build_log(self, approval_id: int) -> Path:
        return self.builds / f"{approval_id}.log"

    def log_file(self, agent: str) -> Path:
        return self.logs / f"{agent}.log"


@dataclass(frozen=True)
class ContainerPaths:
    """The same hive as its harness sees it. Without isolation these are host paths, set by environment."""

    run: Path = Path("/run/hive")
    claude: Path = Path("/root/.claude")
    state: Path = Path("/state")
    shared: Path = Path("/shared")
    agents: Path = Path("/agents")
    applied: Path = Path("/applied")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ContainerPaths":
        """`HIVE_RUN_DIR`, `HIVE_CLAUDE_DIR`, `HIVE_STATE_DIR`, `HIVE_SHARED_DIR`, … over the defaults."""
        env = os.environ if environment is None else environment
        here = cls()
        return cls(
            run=Path(env.get("HIVE_RUN_DIR", here.run)),
            claude=Path(env.get("HIVE_CLAUDE_DIR", here.claude)),
            state=Path(env.get("HIVE_STATE_DIR", here.state)),
            shared=Path(env.get("HIVE_SHARED_DIR", here.shared)),
            agents=Path(env.get("HIVE_AGENTS_DIR", here.agents)),
            applied=Path(env.get("HIVE_APPLIED_DIR", here.applied)),
        )

    @property
    def socket(self) -> Path:
        return self.run / SOCKET_NAME

    @property
    def page_socket(self) -> Path:
        return self.run / PAGE_SOCKET_NAME

    @property
    def tools_socket(self) -> Path:
        return self.run / TOOLS_SOCKET_NAME

    @property
    def mcp_config(self) -> Path:
        return self.run / "claude-mcp-config.json"

    @property
    def settings(self) -> Path:
        return self.run / "claude-settings.json"

    @property
    def system_prompt(self) -> Path:
        return self.run / "claude-system-prompt.md"

    @property
    def git_config(self) -> Path:
        """What git takes for the system's configuration, in whatever the backend starts."""
        return self.run / "gitconfig"

    @property
    def events_database(self) -> Path:
        return self.state / "hyperhive-events.sqlite"
