"""Agents that are prepared and not spawned: the manager configures them before the operator is asked.

A file of core's own in the agent's directory says so; it goes when the agent runs.
"""

from typing import Final

from hive_core.registry import Registry
from hive_core.untrusted import write_file
from hive_shared.names import is_agent_name
from hive_shared.paths import HostPaths

PREPARED_MAX: Final = 20  # at once
_MARK: Final = "prepared"


def mark_prepared(paths: HostPaths, name: str) -> None:
    write_file(paths.agent_dir(name), _MARK, b"")


def unmark_prepared(paths: HostPaths, name: str) -> None:
    (paths.agent_dir(name) / _MARK).unlink(missing_ok=True)


def is_marked(paths: HostPaths, name: str) -> bool:
    """Whether it was prepared, though its spawn may be under way."""
    return is_agent_name(name) and (paths.agent_dir(name) / _MARK).is_file()


def is_prepared(paths: HostPaths, registry: Registry, name: str) -> bool:
    """Whether the agent has been prepared, and is neither live nor a tombstone."""
    return registry.get(name) is None and is_marked(paths, name)


def awaited_agents(paths: HostPaths, registry: Registry) -> list[str]:
    """Those and the tombstones that are configured to be revived: whose files the manager works on."""
    tombstones = [record.name for record in registry.tombstones() if is_marked(paths, record.name)]
    return [*prepared_agents(paths, registry), *tombstones]


def prepared_agents(paths: HostPaths, registry: Registry) -> list[str]:
    """Their names, in order."""
    if not paths.agents.is_dir():
        return []
    names = sorted(entry.name for entry in paths.agents.iterdir())
    return [name for name in names if is_prepared(paths, registry, name)]
