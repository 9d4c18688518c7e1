"""What an agent's container is made from: command, binds, environment (SPEC sections 3 and 8)."""

import json
import sys
from pathlib import Path

from hive_core.config import Settings
from hive_core.containers.base import Bind, ContainerRuntime, ContainerSpec
from hive_core.containers.bubblewrap import python_binds
from hive_core.containers.code import package, prompts
from hive_core.containers.local_system import LocalSystem, read_system
from hive_core.prepared import awaited_agents
from hive_core.registry import AgentRecord, Registry
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER, container_name
from hive_shared.paths import ContainerPaths, HostPaths

CODE = Path("/opt/hyperhive")
ELF_MAGIC = b"\x7fELF"


class Planner:
    """Makes a container's description out of settings and the registry."""

    def __init__(self, settings: Settings, registry: Registry, runtime: ContainerRuntime) -> None:
        self._settings = settings
        self._paths = settings.paths
        self._registry = registry
        self._runtime = runtime
        self.backend = settings.chosen_backend()

    def __call__(self, record: AgentRecord) -> ContainerSpec:
        """The description of an agent's container; raises `HiveError` if a part of it is missing."""
        isolated = self._runtime.isolated
        system = read_system(self._paths, record.name)
        backend = system.backend or self.backend
        return ContainerSpec(
            agent=record.name,
            container=container_name(record.name),
            # -P: what an agent puts into its working directory is no module of its harness.
            command=[sys.executable, "-P", "-m", "hive_agent", "serve"],
            environment=self._inside(record, system) if isolated else self._outside(record, system),
            binds=self._binds(record, backend) if isolated else [],
            workdir=ContainerPaths().state if isolated else self._paths.state(record.name),
            limits=system.limits.within(self._settings.limits),
            system=system.as_system(),
        )

    def system_of(self, agent: str) -> LocalSystem:
        """What the configuration says that an agent runs; raises `HiveError` if that cannot be read."""
        return read_system(self._paths, agent)

    def _common(self, record: AgentRecord, system: LocalSystem) -> dict[str, str]:
        """The agent's own variables first: neither the operator's nor ours give way to them."""
        backend = system.backend or self.backend
        claude = self._claude(backend)
        variables = {
            "HIVE_AGENT": record.name,
            "HIVE_ROLE": record.role,
            "HIVE_BACKEND": backend,
            "HIVE_MODEL": system.model or self._settings.model,
            "HIVE_OPERATOR_PRONOUNS": self._settings.operator_pronouns,
            "HIVE_ISOLATION": self._runtime.isolation,
            "PYTHONUNBUFFERED": "1",
        }
        if claude is not None:
            variables["HIVE_CLAUDE"] = str(claude)
        return {**system.environment, **self._settings.agent_environment, **variables, **_tools(system)}

    def _inside(self, record: AgentRecord, system: LocalSystem) -> dict[str, str]:
        return {**self._common(record, system), "PYTHONPATH": str(CODE), "PYTHONDONTWRITEBYTECODE": "1"}

    def _outside(self, record: AgentRecord, system: LocalSystem) -> dict[str, str]:
        """Without isolation the harness is told where on the host its directories are."""
        paths = self._paths
        return {
            **self._common(record, system),
            "PYTHONPATH": str(package("hive_agent").parent),
            "HOME": str(paths.state(record.name)),
            "HIVE_RUN_DIR": str(paths.run_dir(record.name)),
            "HIVE_CLAUDE_DIR": str(paths.claude(record.name)),
            "HIVE_STATE_DIR": str(paths.state(record.name)),
            "HIVE_SHARED_DIR": str(paths.shared),
            "HIVE_AGENTS_DIR": str(paths.agents),
            "HIVE_APPLIED_DIR": str(paths.applied_root),
        }

    def _binds(self, record: AgentRecord, backend: str) -> list[Bind]:
        return [*code_binds(), *python_binds(), *self._claude_binds(backend), *self.hive_binds(record)]

    def hive_binds(self, record: AgentRecord) -> list[Bind]:
        """What an agent has of the hive: its own directories, and for the manager everybody's."""
        paths, inside = self._paths, ContainerPaths()
        own = [
            Bind(paths.run_dir(record.name), inside.run, writable=True),
            Bind(paths.claude(record.name), inside.claude, writable=True),
            Bind(paths.state(record.name), inside.state, writable=True),
            Bind(paths.shared, inside.shared, writable=True),
        ]
        seen = self._of_the_manager() if record.name == MANAGER else []
        return [*own, *seen]

    def _of_the_manager(self) -> list[Bind]:
        inside = ContainerPaths()
        applied = Bind(self._paths.applied_root, inside.applied)
        others = [record.name for record in self._registry.live() if record.host == self._registry.host]
        others += awaited_agents(self._paths, self._registry)
        binds = [bind for name in others for bind in agent_binds(self._paths, name)]
        return [applied, *(bind for bind in binds if bind.source.is_dir())]

    def _claude(self, backend: str) -> Path | None:
        if backend != "claude":
            return None
        found = self._settings.find_claude()
        if found is None:
            raise HiveError(
                "backend claude: the Claude Code CLI is not there; install it (`make claude`), "
                "name it with claude_path, or use backend rehearsal"
            )
        return found

    def _claude_binds(self, backend: str) -> list[Bind]:
        claude = self._claude(backend)
        if claude is None or claude.is_relative_to("/usr"):
            return []
        alone = _is_one_file(claude) or self._is_private(claude.parent)
        shown = claude if alone else claude.parent
        return [Bind(shown, shown)]

    def _is_private(self, directory: Path) -> bool:
        """Whether showing the directory would show the hive, or a whole home."""
        kept = (self._paths.state_root, self._paths.run_root, Path.home())
        return any(place.is_relative_to(directory) for place in kept)


def agent_binds(paths: HostPaths, name: str) -> list[Bind]:
    """What the manager sees of an agent: its proposed repository and its state, not its credentials."""
    inside = ContainerPaths().agents / name
    return [
        Bind(paths.config(name), inside / "config", writable=True),
        Bind(paths.state(name), inside / "state", writable=True),
    ]


def code_binds() -> list[Bind]:
    """The harness and what it speaks, not the rest of the project: its directory may hold the hive."""
    harness = package("hive_agent")
    binds = [Bind(harness, CODE / "hive_agent"), Bind(package("hive_shared"), CODE / "hive_shared")]
    shown = prompts()
    if shown is not None and shown.parent != harness:
        binds.append(Bind(shown, CODE / "prompts"))
    return binds


def _tools(system: LocalSystem) -> dict[str, str]:
    """What of the agent's tools its configuration says, as its harness reads it (`hive_agent/config.py`)."""
    servers = {name: server.model_dump(mode="json") for name, server in system.extra_mcp_servers.items()}
    policy, context = system.permissions, system.context
    values: dict[str, object] = {
        "HIVE_EXTRA_MCP": servers or None,
        "HIVE_ALLOWED_TOOLS": system.allowed_tools,
        "HIVE_BASH_ALLOW": system.bash_allow,
        "HIVE_PERMISSIONS": policy.model_dump(mode="json") if policy is not None else None,
        "HIVE_CONTEXT": context.model_dump(mode="json") if context is not None else None,
    }
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def _is_one_file(program: Path) -> bool:
    """A binary needs nothing beside it; a script may."""
    with program.open("rb") as file:
        return file.read(len(ELF_MAGIC)) == ELF_MAGIC
