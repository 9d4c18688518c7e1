"""What core tells a harness through its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from hive_agent.session import check_model
from hive_shared.errors import BadRequest
from hive_shared.names import MANAGER, check_existing_name
from hive_shared.paths import ContainerPaths

Role = Literal["agent", "manager"]

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
        return cls(
            agent=check_existing_name(name),
            role=cast(Role, role),
            backend=env.get("HIVE_BACKEND", "claude"),
            model=check_model(env.get("HIVE_MODEL", "sonnet")),
            claude=Path(claude) if claude else None,
            operator_pronouns=env.get("HIVE_OPERATOR_PRONOUNS", "they/them"),
            isolation=env.get("HIVE_ISOLATION", NOT_ISOLATED),
            paths=ContainerPaths.from_environment(env),
            environment=_for_backend(env),
        )


def _for_backend(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if not name.startswith(_NOT_FOR_THE_BACKEND) and name not in _NOT_FOR_THE_BACKEND_EXACTLY
    }
