"""The generated flake of an agent: hyperhive's own container, with this agent's name and the hive's settings.

The agent's tree, with its `agent.nix`, lies beside it.

Every value gets into the text by `nix_string` or as a Nix boolean; the template cannot print anything else.
The flake is pure. Its one input is hyperhive, pinned, and what that needs is pinned by hyperhive's own lock.
"""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

from jinja2 import Environment, PackageLoader, StrictUndefined

from hive_shared.errors import BadRequest, HiveError
from hive_shared.names import MANAGER, check_existing_name

STORE: Final = PurePosixPath("/nix/store")
LOCK_VERSION: Final = 7
INPUT: Final = "hyperhive"

_ESCAPES = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_REV = re.compile(r"[0-9a-f]{40}\Z")
_NAR_HASH = re.compile(r"sha256-[A-Za-z0-9+/]{43}=\Z")
_HOSTED = re.compile(r"(?:github|gitlab|sourcehut):[^/?#\s]+/[^/?#\s]+/([0-9a-f]{40})\Z")
_STORE_NAME = re.compile(r"[0-9a-df-np-sv-z]{32}-[A-Za-z0-9+._?=-]+\Z")


class NotPinned(HiveError):
    """A flake reference may mean something else tomorrow."""


class _Nix(str):
    """Text that is an expression of Nix."""

    __slots__ = ()


def nix_string(text: str) -> str:
    """`text` as a string of the Nix language, whatever is in it.

    Every `$` is escaped, not only that of `${`: two of them mean something else again. A raw carriage return
    would be read as a line feed. Raises `BadRequest` for what no string of Nix can hold.
    """
    if "\0" in text:
        raise BadRequest("a NUL character cannot be written in Nix")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("half a surrogate pair cannot be written in Nix") from None
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


@dataclass(frozen=True)
class Pin:
    """A reference to hyperhive's flake that will always mean the same."""

    reference: str
    source: Path | None = None  # its place, where that is a path of the Nix store
    query: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, reference: str) -> "Pin":
        """Raises `NotPinned` for a reference without hash or revision.

        A path of the Nix store needs none: its name is one.
        """
        bare, _, query_text = reference.partition("?")
        query = dict(_parameters(query_text))
        place = PurePosixPath(bare.removeprefix("path:"))
        if bare.startswith(("/", "path:/")):
            if place.parent != STORE or not _STORE_NAME.match(place.name):
                raise NotPinned(
                    f"{reference}: not a path of the Nix store, so it may change; name one, or add a rev"
                )
            return cls(f"path:{place}" + (f"?{query_text}" if query_text else ""), Path(place), query)
        if "#" in reference or not (
            _HOSTED.match(bare)
            or _REV.match(query.get("rev", ""))
            or _NAR_HASH.match(query.get("narHash", ""))
        ):
            raise NotPinned(f"{reference}: neither a path of the Nix store, nor with a rev or narHash")
        return cls(reference, None, query)

    @property
    def revision(self) -> str | None:
        """What containers are built from, to compare; None where there is no canonical path (SPEC 7)."""
        return str(self.source) if self.source else None


def _parameters(query: str) -> list[tuple[str, str]]:
    """As Nix reads them: a plus sign is a plus sign."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]


@dataclass(frozen=True)
class ContainerValues:
    """What the hive decides about a container. `agent.nix` may choose another model and backend."""

    system: str
    model: str = "sonnet"
    backend: str = "rehearsal"
    allow_claude: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)  # of the harness


def host_system() -> str:
    """This machine, as Nix calls it: `x86_64-linux`."""
    return f"{platform.machine()}-linux"


def flake_files(agent: str, hyperhive: Pin, values: ContainerValues) -> dict[str, str]:
    """The generated files of an agent's flake by name: `flake.nix`, and `flake.lock` where it can be known.

    Raises `HiveError` if hyperhive is not where the pin says.
    """
    files = {"flake.nix": render_flake(agent, hyperhive, values)}
    if hyperhive.source is not None:
        try:
            own = (hyperhive.source / "flake.lock").read_text()
        except OSError as error:
            raise HiveError(f"hyperhive is not at {hyperhive.source}: {error.strerror}") from None
        lock = render_lock(hyperhive, own)
        if lock is not None:
            files["flake.lock"] = lock
    return files


def render_flake(agent: str, hyperhive: Pin, values: ContainerValues) -> str:
    """The text of `flake.nix`, with the attributes `default` and `container`.

    Raises `InvalidName`, and `BadRequest` for a value that Nix cannot hold.
    """
    text: str = _template().render(
        agent=check_existing_name(agent),
        base="manager" if agent == MANAGER else "agent-base",
        hyperhive=hyperhive.reference,
        values=values,
        environment=sorted(values.environment.items()),
    )
    return text


def render_lock(hyperhive: Pin, own_lock: str) -> str | None:
    """The lock of an agent's flake, as Nix would write it: hyperhive, and the inputs of hyperhive's own lock.

    None where the pin has no hash of its content: then Nix finds it out, and pins the same inputs.
    Raises `HiveError` if hyperhive's lock cannot be used.
    """
    if hyperhive.source is None or not _NAR_HASH.match(hyperhive.query.get("narHash", "")):
        return None
    nodes, root = _nodes(own_lock)
    original: dict[str, Any] = {"path": str(hyperhive.source), "type": "path"}
    original["narHash"] = hyperhive.query["narHash"]
    if "lastModified" in hyperhive.query:
        original["lastModified"] = int(hyperhive.query["lastModified"])
    others = {name: node for name, node in nodes.items() if name != root}
    if INPUT in others or "root" in others:
        raise HiveError(f"{hyperhive.source}/flake.lock has an input called {INPUT} or root")
    node = {"inputs": nodes[root].get("inputs", {}), "locked": original, "original": original}
    lock = {
        "nodes": {INPUT: node, **others, "root": {"inputs": {INPUT: INPUT}}},
        "root": "root",
        "version": LOCK_VERSION,
    }
    return json.dumps(lock, indent=2, sort_keys=True) + "\n"


def _nodes(own_lock: str) -> tuple[dict[str, Any], str]:
    try:
        lock = json.loads(own_lock)
        nodes, root, version = lock["nodes"], lock["root"], lock["version"]
        nodes[root]
    except (ValueError, KeyError, TypeError):
        raise HiveError("hyperhive's flake.lock is not one") from None
    if version != LOCK_VERSION:
        raise HiveError(f"hyperhive's flake.lock is of version {version}; only {LOCK_VERSION} is known")
    return nodes, root


def _expression(value: object) -> _Nix:
    if isinstance(value, bool):
        return _Nix("true" if value else "false")
    if isinstance(value, str):
        return _Nix(nix_string(value))
    raise TypeError(f"{type(value).__name__} has no expression of Nix here")


def _only_expressions(value: object) -> object:
    """Called with everything that the template prints."""
    if not isinstance(value, _Nix):
        raise TypeError("the template prints a value that was not made an expression of Nix")
    return value


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("hive_core", "."),
        undefined=StrictUndefined,
        finalize=_only_expressions,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - this is no HTML; `finalize` sees to escaping
    )
    environment.filters["nix"] = _expression
    return environment.get_template("flake.nix.j2")
