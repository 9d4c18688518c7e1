"""What building a configuration for the local runtime gives, and the file it is kept in."""

import os
import re
import stat
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hive_core.config import AgentLimits
from hive_core.containers.base import System
from hive_core.untrusted import write_file
from hive_shared.agent_options import ExtraMcpServer
from hive_shared.backends import BackendName
from hive_shared.context_options import ContextOptions
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths
from hive_shared.permissions import PermissionOptions

SYSTEM_MAX_BYTES = 4 * 2**20


class LocalLimits(BaseModel):
    """The limits that a configuration asks for. None: the operator's alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_max_bytes: Annotated[int, Field(gt=0)] | None = None
    tasks_max: Annotated[int, Field(ge=16)] | None = None
    cpu_quota_percent: Annotated[int, Field(ge=1)] | None = None
    open_files: Annotated[int, Field(ge=64)] | None = None

    def within(self, operators: AgentLimits) -> AgentLimits:
        """Whatever is lower: a configuration never raises a limit of the operator's."""
        wanted = self.model_dump(exclude_none=True)
        lower = {
            name: value
            for name, value in wanted.items()
            if (limit := getattr(operators, name)) is None or value < limit
        }
        return operators.model_copy(update=lower)


class LocalSystem(BaseModel):
    """What of a configuration the local runtime honours. Empty: everything as the operator set it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    environment: dict[str, str] = {}
    packages: tuple[str, ...] = ()  # asked for, as their attributes in nixpkgs
    missing: tuple[str, ...] = ()  # of these: what this machine did not have when it was built
    model: str | None = None
    backend: BackendName | None = None
    extra_mcp_servers: dict[str, ExtraMcpServer] = {}
    allowed_tools: tuple[str, ...] | None = None
    bash_allow: tuple[str, ...] | None = None
    permissions: PermissionOptions | None = None
    context: ContextOptions | None = None
    limits: LocalLimits = LocalLimits()
    not_honoured: tuple[str, ...] = ()  # options that are set and mean nothing here

    def as_system(self) -> System:
        """As the JSON that a container's description carries."""
        return self.model_dump(mode="json")


def read_system(paths: HostPaths, agent: str) -> LocalSystem:
    """What `agent` was built to; empty if it never was. Raises `HiveError` if the file is of no use."""
    file = paths.system_file(agent)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return LocalSystem()
    except OSError as error:
        raise HiveError(f"{file}: {error.strerror}; {_advice(agent)}") from None
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise HiveError(f"{file} is no regular file; {_advice(agent)}")
        data = opened.read(SYSTEM_MAX_BYTES + 1)
    return _parsed(data, f"{file} cannot be read", agent)


def write_system(paths: HostPaths, agent: str, system: System) -> None:
    """Keep what `agent` was built to: in one step, readable by core alone. Raises `OSError`, `HiveError`."""
    content = LocalSystem.model_validate(system).model_dump_json(indent=1).encode()
    file = paths.system_file(agent)
    write_file(file.parent, file.name, content)


def system_of(system: Mapping[str, object], agent: str) -> LocalSystem:
    """What `LocalRuntime.build` returned, typed again; raises `HiveError`."""
    try:
        return LocalSystem.model_validate(system)
    except ValidationError as error:
        raise HiveError(f"the system of {agent}: {_first(error)}; {_advice(agent)}") from None


def _parsed(data: bytes, what: str, agent: str) -> LocalSystem:
    if len(data) > SYSTEM_MAX_BYTES:
        raise HiveError(f"{what}: larger than {SYSTEM_MAX_BYTES // 2**20} MiB; {_advice(agent)}")
    try:
        return LocalSystem.model_validate_json(data)
    except ValidationError as error:
        raise HiveError(f"{what}: {_first(error)}; {_advice(agent)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = re.sub(r"\s+", " ", first["msg"])[:160]
    return f"{where}: {message}" if where else message


def _advice(agent: str) -> str:
    return f"`hive-c0re rebuild {agent}` builds it again from the approved commit"
