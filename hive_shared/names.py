"""Who and where: agent names, container names and page ports (SPEC section 2)."""

import re
from collections.abc import Collection

from hive_shared.errors import InvalidName

MANAGER = "hm1nd"
OPERATOR = "operator"
SYSTEM = "system"
BROADCAST = "*"

NAME_MAX_CHARACTERS = 9  # nixos-container allows 11, and "h-" takes two
RESERVED_NAMES = frozenset({OPERATOR, SYSTEM, "manager", MANAGER, "self", "all"})
CONTAINER_PREFIX = "h-"

DASHBOARD_PORT = 7000
MANAGER_PORT = 8000
AGENT_PORT_FIRST = 8100
AGENT_PORT_COUNT = 900  # 8100 to 8999

_LETTERS = re.compile(r"[a-z0-9-]*\Z")


def check_agent_name(name: str) -> str:
    """Return `name` if a new agent may be called that; else raise `InvalidName` with the broken rule."""
    broken = _broken_rule(name)
    if broken is not None:
        raise InvalidName(f"agent name {name[:40]!r}: {broken}", field="name")
    return name


def check_existing_name(name: str) -> str:
    """As `check_agent_name`, but the manager's own name passes too."""
    return name if name == MANAGER else check_agent_name(name)


def is_agent_name(name: str) -> bool:
    """Whether `name` can be an agent other than the manager."""
    return _broken_rule(name) is None


def _broken_rule(name: str) -> str | None:
    if not name:
        return "is empty; use 1 to 9 characters"
    if name in RESERVED_NAMES:
        return "is reserved; choose another"
    if len(name) > NAME_MAX_CHARACTERS:
        return f"has {len(name)} characters; at most {NAME_MAX_CHARACTERS} fit a container name"
    if not _LETTERS.match(name):
        return "may hold only a-z, 0-9 and hyphens"
    if not "a" <= name[0] <= "z":
        return "must begin with a letter a-z"
    if name.endswith("-"):
        return "must not end with a hyphen"
    if "--" in name:
        return "must not hold two hyphens in a row"
    return None


def container_name(agent: str) -> str:
    """`alice` → `h-alice`; the manager's container is called as the manager is."""
    return MANAGER if agent == MANAGER else CONTAINER_PREFIX + agent


def agent_of_container(container: str) -> str | None:
    """The agent a container belongs to, or None if the container is not one of ours."""
    if container == MANAGER:
        return MANAGER
    name = container.removeprefix(CONTAINER_PREFIX)
    return name if name != container and is_agent_name(name) else None


def fnv1a32(text: str) -> int:
    """The 32-bit FNV-1a hash of the UTF-8 bytes of `text`."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def hashed_port(agent: str) -> int:
    """The port an agent's page has before any probing: 8100 + fnv1a32(name) % 900."""
    return MANAGER_PORT if agent == MANAGER else AGENT_PORT_FIRST + fnv1a32(agent) % AGENT_PORT_COUNT


def choose_port(agent: str, *, recorded: int | None, legacy: bool, taken: Collection[int]) -> int:
    """The port of an agent's page: the recorded one for ever, else a hashed one (SPEC section 2).

    `legacy` agents (an applied repository but no port file) keep the bare hash: probing would
    move them away from where their container already listens. Fresh ones probe forward from the
    hash and wrap within 8100–8999. Raises `InvalidName` when every port is taken.
    """
    if recorded is not None:
        return recorded
    first = hashed_port(agent)
    if agent == MANAGER or legacy:
        return first
    for step in range(AGENT_PORT_COUNT):
        port = AGENT_PORT_FIRST + (first - AGENT_PORT_FIRST + step) % AGENT_PORT_COUNT
        if port not in taken:
            return port
    raise InvalidName(f"agent {agent}: all {AGENT_PORT_COUNT} page ports are taken; destroy an agent first")
