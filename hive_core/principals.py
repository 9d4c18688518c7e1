"""Who asks: the principals of SECURITY.md, as every action receives them first.

A principal is made where a connection or a web session was recognised, never from anything that a
peer wrote.
"""

from dataclasses import dataclass
from enum import StrEnum

from hive_shared.names import MANAGER, OPERATOR, SYSTEM


class Kind(StrEnum):
    """What sort of principal; authority depends on nothing else."""

    OPERATOR = "operator"
    MANAGER = "manager"
    AGENT = "agent"
    SYSTEM = "system"


@dataclass(frozen=True)
class Principal:
    """One principal. `via` says how it was recognised, for the audit; it is no secret."""

    kind: Kind
    name: str
    via: str = ""

    @classmethod
    def operator(cls, via: str = "") -> "Principal":
        return cls(Kind.OPERATOR, OPERATOR, via)

    @classmethod
    def manager(cls, via: str = "") -> "Principal":
        return cls(Kind.MANAGER, MANAGER, via)

    @classmethod
    def agent(cls, name: str, via: str = "") -> "Principal":
        return cls(Kind.AGENT, name, via)

    @classmethod
    def system(cls, via: str = "") -> "Principal":
        return cls(Kind.SYSTEM, SYSTEM, via)

    def __str__(self) -> str:
        return f"{self.name} ({self.via})" if self.via else self.name
