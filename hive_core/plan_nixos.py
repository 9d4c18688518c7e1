"""What a NixOS container is made from: the built system, which brings the harness, and the binds."""

import json
from pathlib import Path

from hive_core.config import Settings
from hive_core.containers.base import ContainerSpec, System
from hive_core.containers.local_system import LocalSystem
from hive_core.containers.nixos import Options
from hive_core.containers.nixos_system import NixosSystem, described
from hive_core.flake import ContainerValues, Pin, flake_files, host_system
from hive_core.plan import Planner
from hive_core.registry import AgentRecord
from hive_shared.errors import HiveError
from hive_shared.names import container_name
from hive_shared.paths import ContainerPaths


class NixosPlanner(Planner):
    """Makes a container's description out of settings, the registry, and what was built."""

    def __call__(self, record: AgentRecord) -> ContainerSpec:
        """The description of an agent's container; raises `HiveError` if it was never built for NixOS."""
        system = NixosSystem.of(record.name, self._built(record.name))
        return ContainerSpec(
            agent=record.name,
            container=container_name(record.name),
            command=[],
            environment={},
            binds=self.hive_binds(record),
            workdir=ContainerPaths().state,
            limits=system.limits.within(self._settings.limits),
            system=system.model_dump(mode="json"),
        )

    def system_of(self, agent: str) -> LocalSystem:
        """What the built system says of itself; raises `HiveError` if that cannot be read."""
        return described(Path(NixosSystem.of(agent, self._built(agent)).path))

    def _built(self, name: str) -> System:
        try:
            found = json.loads(self._paths.system_file(name).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def options_of(settings: Settings) -> Options:
    """How containers are made here."""
    return Options(
        private_users=settings.user_namespaces,
        private_network=settings.private_network,
        system_call_filter=settings.system_call_filter,
        limits=settings.limits,
        stop_grace_seconds=settings.stop_grace_seconds,
        build_timeout_seconds=settings.build_timeout_seconds,
        parallel=settings.build_parallel,
    )


def pin_of(settings: Settings) -> Pin:
    """Where containers take hyperhive from; raises `HiveError` if that is not set, or not pinned."""
    if settings.hyperhive_flake is None:
        raise HiveError(
            "runtime nixos: hyperhive_flake is not set, so that no container can be built; "
            "on NixOS, services.hive-c0re.enable = true sets it"
        )
    return Pin.parse(settings.hyperhive_flake)


def flake_of(settings: Settings, pin: Pin, agent: str) -> dict[str, str]:
    """The generated files of an agent's flake."""
    values = ContainerValues(
        system=host_system(),
        model=settings.model,
        backend=settings.chosen_backend(),
        allow_claude=settings.allow_unfree_claude_code,
        environment={
            **settings.agent_environment,
            "HIVE_ISOLATION": options_of(settings).isolation,
            "HIVE_OPERATOR_PRONOUNS": settings.operator_pronouns,
        },
    )
    return flake_files(agent, pin, values)
