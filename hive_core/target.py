"""What an agent runs, as files: the system it was built to, its branch, its tree, the revision (SPEC 6)."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from hive_core.config_repo import ConfigRepo
from hive_core.containers.base import System
from hive_core.untrusted import write_file
from hive_shared.errors import Conflict, HiveError
from hive_shared.paths import HostPaths


@dataclass(frozen=True)
class Target:
    """A commit, and what building it gave. `system` is None for what was never built."""

    commit: str
    system: System | None
    revision: str  # of hyperhive, that built it; empty if that is not known

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Target":
        return cls(value["commit"], value["system"], value["revision"])


class Targets:
    """Reads and writes them; callers hold the agent's lock."""

    def __init__(self, paths: HostPaths, config: ConfigRepo) -> None:
        self._paths = paths
        self._config = config

    async def present(self, name: str) -> Target:
        """What is in place now; raises `HiveError` if there is no branch."""
        commit = await self._config.running(name)
        if commit is None:
            raise HiveError(
                f"agent {name}: {self._paths.applied(name)} has no branch main; "
                f"restore it from a backup, or destroy and purge {name}"
            )
        return Target(commit, self._system(name), self.revision(name))

    def revision(self, name: str) -> str:
        """What the agent was last built from; empty if nobody has noted it."""
        try:
            return self._paths.revision_file(name).read_text("utf-8").strip()
        except FileNotFoundError:
            return ""

    async def check(self, name: str, commits: Collection[str]) -> None:
        """Raises `Conflict` if the branch is at none of these."""
        running = await self._config.running(name)
        if running not in commits:
            raise Conflict(
                f"agent {name} runs {running or 'nothing'}, and not what it ran when this began; ask again"
            )

    async def put_in_place(self, name: str, target: Target) -> None:
        """Every file as `target` says; whatever was done before is simply done again."""
        running = await self._config.running(name)
        self._write_system(name, target.system)
        if running != target.commit:
            await self._config.advance(name, target.commit, expected=running)
        await self._config.place(name, target.commit)
        revision = self._paths.revision_file(name)
        write_file(revision.parent, revision.name, f"{target.revision}\n".encode())

    def _system(self, name: str) -> System | None:
        path = self._paths.system_file(name)
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return None  # unreadable is as good as never built: a rebuild makes it again
        return found if isinstance(found, dict) else None

    def _write_system(self, name: str, system: System | None) -> None:
        path = self._paths.system_file(name)
        if system is None:
            path.unlink(missing_ok=True)
        else:
            write_file(path.parent, path.name, json.dumps(system).encode())
