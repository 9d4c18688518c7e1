"""What an archive says of itself, and which names may be in one."""

import json
import re
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hive_shared.errors import HiveError
from hive_shared.names import MANAGER, is_agent_name

MANIFEST: Final = "manifest.json"  # the last member: only then the sums of the others are known
DATABASE: Final = "broker.sqlite"
AGENTS: Final = "agents"
APPLIED: Final = "applied"
REPOSITORIES: Final = "repositories"
SHARED: Final = "shared"
BUILDS: Final = "builds"
LOGS: Final = "logs"
AGENT_PARTS: Final = ("config", "claude", "state")  # what agents write; beside them are core's own files

MANIFEST_MAX_BYTES: Final = 512 * 2**20
DEPTH_MAX: Final = 160  # names in a path; the walk ends at 128 below a part
SKIPPED_SHOWN: Final = 200  # of one part; the others are counted

_REF = re.compile(
    r"refs/heads/main|refs/tags/[a-z]{1,20}/[0-9]{1,18}|refs/hive/imported/[0-9a-f]{40}", re.ASCII
)
_SHA = re.compile(r"[0-9a-f]{40}", re.ASCII)
_PACK = re.compile(r"[0-9]{1,6}\.pack", re.ASCII)


class BadArchive(HiveError):
    """That is no backup of a hive, or it is damaged."""


class Skipped(BaseModel):
    """One thing that is not in the archive, or not as it was."""

    path: str
    why: str


class Repository(BaseModel):
    """The refs of an agent's applied repository, and the packs that hold what they lead to."""

    model_config = ConfigDict(extra="forbid")

    refs: dict[str, str]
    packs: list[str]


class Manifest(BaseModel):
    """What there is to know of an archive; times are Unix milliseconds."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    created_at_ms: int
    hyperhive: str
    schema_revision: str
    credentials: bool
    files: dict[str, str] = Field(default_factory=dict)  # path → SHA-256
    links: dict[str, str] = Field(default_factory=dict)  # path → where it leads
    repositories: dict[str, Repository] = Field(default_factory=dict)
    skipped: list[Skipped] = Field(default_factory=list)
    skipped_count: int = 0


def read_manifest(data: bytes) -> Manifest:
    """Raises `BadArchive`, also for refs and packs that no hive writes."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadArchive(f"{MANIFEST}: {where}: {first['msg']}; it may be of a newer hyperhive") from None
    for name, repository in manifest.repositories.items():
        check_agent(name)
        for ref, sha in repository.refs.items():
            if not _REF.fullmatch(ref) or not _SHA.fullmatch(sha):
                raise BadArchive(f"repository {name}: {ref[:80]!r} is no ref of a hive")
        if not all(_PACK.fullmatch(pack) for pack in repository.packs):
            raise BadArchive(f"repository {name}: a pack has a name that no hive writes")
    return manifest


def written(name: str) -> str:
    """A name as the manifest has it: names of files need not be text, and no two become the same."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(name)[1:-1]
    return json.dumps(name)[1:-1] if "\\" in name else name


def is_ref_of_ours(name: str) -> bool:
    return _REF.fullmatch(name) is not None


def check_agent(name: str) -> str:
    if name == MANAGER or is_agent_name(name):
        return name
    raise BadArchive(f"{name[:40]!r} cannot be an agent's name")


def check_path(path: str) -> tuple[str, ...]:
    """The parts of a member's name, relative and inside of what a hive keeps; raises `BadArchive`."""
    parts = tuple(path.split("/"))
    if any(part in ("", ".", "..") or "\0" in part for part in parts) or len(parts) > DEPTH_MAX:
        raise BadArchive(f"{path[:120]!r}: a name that leads elsewhere; nothing was restored")
    if not _is_kept(parts):
        raise BadArchive(f"{path[:120]!r} is nothing that a hive keeps; nothing was restored")
    return parts


def is_of_agents(parts: tuple[str, ...]) -> bool:
    """Whether it is among what agents write."""
    return parts[0] == SHARED or (len(parts) > 2 and parts[0] == AGENTS and parts[2] in AGENT_PARTS)


def part_of(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The directory of agents' files that this lies in, such as `agents/alice/state`."""
    return parts[:1] if parts[0] == SHARED else parts[:3]


def stays_inside(parts: tuple[str, ...], target: str) -> bool:
    """Whether a link there leads, read as text, to a place within the same part."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    depth = len(parts) - len(part_of(parts)) - 1
    for step in target.split("/"):
        if step == "..":
            depth -= 1
        elif step not in ("", "."):
            depth += 1
        if depth < 0:
            return False
    return True


def _is_kept(parts: tuple[str, ...]) -> bool:
    top, depth = parts[0], len(parts)
    if top in (DATABASE, MANIFEST):
        return depth == 1
    if top == SHARED:
        return True
    if top == AGENTS and depth > 1:
        check_agent(parts[1])
        core_file = depth == 3 and parts[2] in ("port", "prepared")
        return depth == 2 or core_file or (depth > 2 and parts[2] in AGENT_PARTS)
    if top == APPLIED:
        return depth == 2 and _applied_file_of(parts[1]) is not None
    if top == REPOSITORIES:
        return depth == 3 and bool(check_agent(parts[1])) and _PACK.fullmatch(parts[2]) is not None
    if depth == 1 and top in (AGENTS, BUILDS, LOGS):
        return True
    if top == BUILDS:
        return depth in (2, 3) and re.fullmatch(r"[a-z0-9-]{1,40}(\.log)?", parts[1], re.ASCII) is not None
    return top == LOGS and depth == 2


def _applied_file_of(name: str) -> str | None:
    """The agent that a file of core's beside the applied repositories is about."""
    for suffix in (".system.json", ".hyperhive-rev"):
        if name.startswith(".") and name.endswith(suffix):
            return check_agent(name[1 : -len(suffix)])
    return None
