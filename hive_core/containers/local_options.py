"""The options of `agent.nix` that the local runtime honours, read with their types checked.

docs/local-runtime.md tells people the same; `HONOURED` is what the two are compared by.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar, cast

from pydantic import ValidationError

from hive_core.containers.local_system import LocalLimits
from hive_core.nix_module.evaluate import STORE
from hive_core.nix_module.modules import Configuration, Definition, OptionPath
from hive_core.nix_module.parse import Place
from hive_core.nix_module.programs import PACKAGE_MAKERS, is_library, program_of
from hive_core.nix_module.values import Fault, NixPath, Package, Thunk, Unknown, Value, kind_of
from hive_shared.agent_options import MODEL_NAME, ExtraMcpServer, check_pattern, check_tool, check_variable
from hive_shared.backends import BACKENDS
from hive_shared.context_options import (
    CACHE_SECONDS_MAX,
    CACHE_SECONDS_MIN,
    WANTED,
    ContextOptions,
    is_watermark,
)
from hive_shared.errors import BadRequest
from hive_shared.permissions import ASK_TIMEOUT_MAX_SECONDS, PermissionOptions

HONOURED: Final = (
    "environment.variables",
    "environment.sessionVariables",
    "environment.systemPackages",
    "hyperhive.model",
    "hyperhive.backend",
    "hyperhive.extraMcpServers",
    "hyperhive.allowedTools",
    "hyperhive.bashAllow",
    "hyperhive.permissions.allow",
    "hyperhive.permissions.deny",
    "hyperhive.permissions.default",
    "hyperhive.permissions.askTimeoutSeconds",
    "hyperhive.context.compactAt",
    "hyperhive.context.resetAt",
    "hyperhive.context.cacheSeconds",
    "hyperhive.limits.memoryMax",
    "hyperhive.limits.tasksMax",
    "hyperhive.limits.cpuQuota",
    "hyperhive.limits.openFiles",
)
MEMORY_MIN_BYTES: Final = 64 * 2**20

_SIZE = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PERCENT = re.compile(r"(\d{1,6})\s*%\Z")
_STORE_PROGRAM = re.compile(re.escape(STORE) + r"[^/]+/bin/([A-Za-z0-9._+-]+)\Z")

Found = TypeVar("Found")


@dataclass(frozen=True)
class Programs:
    """The packages of a configuration, and whether this machine has the programs that they bring."""

    packages: tuple[str, ...]
    present: tuple[str, ...]
    missing: tuple[str, ...]
    unchecked: tuple[str, ...]


@dataclass
class Options:
    """One configuration's options. Every method raises `Fault` for a wrong type, with its place."""

    configuration: Configuration
    search_path: str
    notes: list[str] = field(default_factory=list)  # what could not be done here, for the log

    def check_names(self) -> None:
        """Raises `Fault` for an option of ours that does not exist: a typing error must not go unnoticed."""
        for around in ((), ("limits",), ("permissions",), ("context",)):
            path = ("hyperhive", *around)
            known = {option.split(".")[len(path)] for option in HONOURED if option.startswith(".".join(path))}
            for name in self._names(path):
                if name not in known:
                    dotted = ".".join((*path, name))
                    there_are = ", ".join(sorted(known))
                    raise Fault(
                        self._place((*path, name)), f"there is no option {dotted}; there are {there_are}"
                    )

    def others(self) -> list[str]:
        """What is set and means nothing here."""
        honoured = {tuple(option.split(".")) for option in HONOURED} | {("hyperhive",)}
        return self.configuration.others(lambda path: path in honoured)

    # --- single values ---

    def model(self) -> str | None:
        def read(value: Value, place: Place | None) -> str:
            if not isinstance(value, str) or not MODEL_NAME.match(value):
                raise _wrong(place, "hyperhive.model", 'a model\'s name, such as "sonnet"', value)
            return value

        return self._one(("hyperhive", "model"), read)

    def backend(self) -> tuple[str, Place | None] | None:
        def read(value: Value, place: Place | None) -> tuple[str, Place | None]:
            if value not in BACKENDS:
                raise _wrong(place, "hyperhive.backend", _one_of(BACKENDS), value)
            return str(value), place

        return self._one(("hyperhive", "backend"), read)

    def limits(self) -> LocalLimits:
        return LocalLimits(
            memory_max_bytes=self._one(("hyperhive", "limits", "memoryMax"), _memory),
            tasks_max=self._one(("hyperhive", "limits", "tasksMax"), _at_least("tasksMax", 16)),
            cpu_quota_percent=self._one(("hyperhive", "limits", "cpuQuota"), _cpu_quota),
            open_files=self._one(("hyperhive", "limits", "openFiles"), _at_least("openFiles", 64)),
        )

    # --- lists ---

    def bash_allow(self) -> tuple[str, ...] | None:
        return self._strings(("hyperhive", "bashAllow"), check_pattern)

    def allowed_tools(self, servers: Sequence[str]) -> tuple[str, ...] | None:
        return self._strings(("hyperhive", "allowedTools"), lambda rule: check_tool(rule, servers))

    def permissions(self, servers: Sequence[str]) -> PermissionOptions | None:
        """None unless one of its options is set: then there is a policy, with defaults for the others."""
        path = ("hyperhive", "permissions")

        def rules(name: str) -> tuple[str, ...] | None:
            return self._strings((*path, name), lambda rule: check_tool(rule, servers))

        set_ones = {
            "allow": rules("allow"),
            "deny": rules("deny"),
            "default": self._one((*path, "default"), _ask_or_deny),
            "ask_timeout_seconds": self._one((*path, "askTimeoutSeconds"), _timeout),
        }
        named = {name: value for name, value in set_ones.items() if value is not None}
        if not named:
            return None
        try:
            return PermissionOptions.model_validate(named)
        except ValidationError as error:
            raise Fault(self._place(path), f"hyperhive.permissions: {error.errors()[0]['msg']}") from None

    def context(self) -> ContextOptions | None:
        """None unless one of its options is set: then the others have their defaults."""
        path = ("hyperhive", "context")
        set_ones = {
            "compact_at": self._one((*path, "compactAt"), _watermark("compactAt")),
            "reset_at": self._one((*path, "resetAt"), _watermark("resetAt")),
            "cache_seconds": self._one((*path, "cacheSeconds"), _cache_seconds),
        }
        named = {name: value for name, value in set_ones.items() if value is not None}
        return ContextOptions.model_validate(named) if named else None

    def packages(self) -> Programs:
        packages: dict[str, None] = {}
        for item in self._package_items():
            try:
                value = item.force()
            except Unknown as fault:
                self.notes.append(f"a package is only known on a NixOS host: {fault.message}")
                continue
            if not isinstance(value, Package) or not value.name:
                raise _wrong(item.place, "an element of environment.systemPackages", "a package", value)
            packages[value.name] = None
        return self._looked_for(tuple(packages))

    def _package_items(self) -> Iterator[Thunk]:
        for made in self.configuration.definitions(("environment", "systemPackages")):
            try:
                value = made.value.force()
            except Unknown as fault:
                self.notes.append(f"packages are only known on a NixOS host: {fault.message}")
                continue
            if not isinstance(value, list):
                raise _wrong(made.place, "environment.systemPackages", "a list of packages", value)
            yield from value

    def _looked_for(self, packages: tuple[str, ...]) -> Programs:
        present: list[str] = []
        missing: list[str] = []
        unchecked: list[str] = []
        for package in packages:
            if is_library(package) or package.partition(".")[0] in PACKAGE_MAKERS:
                unchecked.append(package)
                continue
            program = program_of(package)
            shown = package if program == package else f"{package} ({program})"
            (present if self._which(program) else missing).append(shown)
        return Programs(packages, tuple(present), tuple(missing), tuple(unchecked))

    def _which(self, program: str) -> str | None:
        return shutil.which(program, path=self.search_path)

    # --- sets ---

    def environment(self) -> dict[str, str]:
        """`environment.variables`, and `sessionVariables` over it. What only NixOS knows is left out."""
        variables: dict[str, str] = {}
        for option in ("variables", "sessionVariables"):
            path = ("environment", option)
            try:
                names = self.configuration.names(path)
            except Unknown as fault:
                self.notes.append(f"environment.{option} is only known on a NixOS host: {fault.message}")
                continue
            for name in names:
                value = self._variable((*path, name))
                if value is not None:
                    variables[name] = value
        return variables

    def _variable(self, path: OptionPath) -> str | None:
        def read(value: Value, place: Place | None) -> str | None:
            text = self._text(value, place, ".".join(path))
            if text is not None:
                _checked(place, lambda: check_variable(path[-1], text))
            return text

        try:
            return self._one(path, read, known=False)
        except Unknown as fault:
            self.notes.append(
                f"{'.'.join(path)} is not set, its value is only known on a NixOS host: {fault.message}"
            )
            return None

    def _text(self, value: Value, place: Place | None, what: str) -> str | None:
        """A variable's value: text, a number, or a list of them, which is joined with colons."""
        match value:
            case None:
                return None
            case bool():
                raise _wrong(place, what, "a string", value)
            case str():
                return self.program(value, place)
            case int() | float():
                return f"{value:g}" if isinstance(value, float) else str(value)
            case NixPath():
                raise Unknown(place, f"{value.written} is a path of the Nix store there")
            case Package():
                raise Unknown(place, "the path of a package")
            case list() as items:
                parts = [self._text(item.force(), item.place or place, what) for item in items]
                return ":".join(part for part in parts if part is not None)
        raise _wrong(place, what, "a string", value)

    def program(self, text: str, place: Place | None) -> str:
        """Text as it is; the path of a package's program becomes that of this machine, or is `Unknown`."""
        if STORE not in text:
            return text
        match = _STORE_PROGRAM.match(text)
        if match is None:
            raise Unknown(place, "the path of a package")
        found = self._which(match[1])
        if found is None:
            raise Unknown(place, f"the program {match[1]} is not on this machine")
        return found

    def servers(self) -> dict[str, ExtraMcpServer]:
        path = ("hyperhive", "extraMcpServers")
        return {name: self._server((*path, name)) for name in self._names(path)}

    def _server(self, path: OptionPath) -> ExtraMcpServer:
        dotted = ".".join(path)
        for name in self._names(path):
            if name not in ("command", "args", "env"):
                raise Fault(self._place((*path, name)), f"{dotted} has command, args and env, and no {name}")
        command = self._one((*path, "command"), self._plain(f"{dotted}.command"))
        if not command:
            raise Fault(self._place(path), f"{dotted}.command is missing: the program that serves the tools")
        args = self._strings((*path, "args"), lambda text: text, programs=True)
        names = self._names((*path, "env"))
        env = {name: self._server_variable((*path, "env", name)) for name in names}
        try:
            return ExtraMcpServer(command=command, args=args or (), env=env)
        except ValueError:
            what = "its command, arguments or environment are too long, too many, or hold a NUL character"
            raise Fault(self._place(path), f"{dotted}: {what}") from None

    def _server_variable(self, path: OptionPath) -> str:
        def read(value: Value, place: Place | None) -> str:
            text = self._plain(".".join(path))(value, place)
            return _checked(place, lambda: check_variable(path[-1], text))

        return self._one(path, read) or ""

    def _plain(self, what: str) -> Callable[[Value, Place | None], str]:
        def read(value: Value, place: Place | None) -> str:
            if not isinstance(value, str):
                raise _wrong(place, what, "a string", value)
            return self.program(value, place)

        return read

    # --- how definitions become one value ---

    def _one(
        self, path: OptionPath, read: Callable[[Value, Place | None], Found], *, known: bool = True
    ) -> Found | None:
        """The one value of an option, None where it is not set. With `known`, an unknown value is a fault."""
        found: list[tuple[Found, Definition]] = []
        for made in self.configuration.definitions(path):
            try:
                found.append((read(made.value.force(), made.place), made))
            except Unknown as fault:
                raise (_must_be_known(path, fault) if known else fault) from None
        for value, made in found[1:]:
            if value != found[0][0]:
                raise Fault(
                    made.place,
                    f"{'.'.join(path)} is defined differently at {found[0][1].place}; "
                    "use lib.mkForce for the one that holds",
                )
        return found[0][0] if found else None

    def _strings(
        self, path: OptionPath, check: Callable[[str], str], *, programs: bool = False
    ) -> tuple[str, ...] | None:
        """All the definitions' strings, in order; None where nothing is set."""
        dotted = ".".join(path)
        definitions = self.configuration.definitions(path)
        found: list[str] = []
        try:
            for made in definitions:
                value = made.value.force()
                if not isinstance(value, list):
                    raise _wrong(made.place, dotted, "a list of strings", value)
                for item in value:
                    place = item.place or made.place
                    text = item.force()
                    if not isinstance(text, str):
                        raise _wrong(place, f"an element of {dotted}", "a string", text)
                    text = self.program(text, place) if programs else text
                    found.append(_checked(place, partial(check, text)))
        except Unknown as fault:
            raise _must_be_known(path, fault) from None
        return tuple(found) if definitions else None

    def _names(self, path: OptionPath) -> list[str]:
        try:
            return self.configuration.names(path)
        except Unknown as fault:
            raise _must_be_known(path, fault) from None

    def _place(self, path: OptionPath) -> Place | None:
        return next((made.place for made in self.configuration.definitions(path)), None)


def _memory(value: Value, place: Place | None) -> int:
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    size = int(match[1]) * _SIZE_UNITS[match[2].upper()] if match else value
    if isinstance(size, bool) or not isinstance(size, int) or size < MEMORY_MIN_BYTES:
        wanted = f'a size such as "512M" or "2G", at least {MEMORY_MIN_BYTES // 2**20}M'
        raise _wrong(place, "hyperhive.limits.memoryMax", wanted, value)
    return size


def _cpu_quota(value: Value, place: Place | None) -> int:
    match = _PERCENT.match(value.strip()) if isinstance(value, str) else None
    percent = int(match[1]) if match else value
    if isinstance(percent, bool) or not isinstance(percent, int) or percent < 1:
        wanted = 'a share of one core, such as "50%" or 50'
        raise _wrong(place, "hyperhive.limits.cpuQuota", wanted, value)
    return percent


def _at_least(name: str, least: int) -> Callable[[Value, Place | None], int]:
    def read(value: Value, place: Place | None) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _wrong(place, f"hyperhive.limits.{name}", f"an integer of at least {least}", value)
        return value

    return read


def _ask_or_deny(value: Value, place: Place | None) -> str:
    if value not in ("ask", "deny"):
        raise _wrong(place, "hyperhive.permissions.default", '"ask" or "deny"', value)
    return str(value)


def _timeout(value: Value, place: Place | None) -> int:
    most = ASK_TIMEOUT_MAX_SECONDS
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        what = f"a whole number of seconds, at most {most}"
        raise _wrong(place, "hyperhive.permissions.askTimeoutSeconds", what, value)
    return value


def _watermark(name: str) -> Callable[[Value, Place | None], float]:
    def read(value: Value, place: Place | None) -> float:
        if not is_watermark(value):
            raise _wrong(place, f"hyperhive.context.{name}", WANTED, value)
        return cast(float, value)

    return read


def _cache_seconds(value: Value, place: Place | None) -> int:
    least, most = CACHE_SECONDS_MIN, CACHE_SECONDS_MAX
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        what = f"a whole number of seconds, {least} to {most}"
        raise _wrong(place, "hyperhive.context.cacheSeconds", what, value)
    return value


def _checked(place: Place | None, check: Callable[[], str]) -> str:
    try:
        return check()
    except BadRequest as error:
        raise Fault(place, error.message) from None


def _must_be_known(path: OptionPath, fault: Unknown) -> Fault:
    return Fault(fault.place, f"{'.'.join(path)} must be known here, but {fault.what}")


def _one_of(names: Sequence[str]) -> str:
    *others, last = (f'"{name}"' for name in names)
    return f"{', '.join(others)} or {last}"


def _wrong(place: Place | None, what: str, wanted: str, value: Value) -> Fault:
    shown = f'"{value[:60]}"' if isinstance(value, str) else kind_of(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown = str(value)
    return Fault(place, f"{what} must be {wanted}; this is {shown}")
