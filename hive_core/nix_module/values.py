"""What Nix expressions evaluate to here, and why an evaluation stops."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tree_sitter import Node

from hive_core.nix_module.parse import Place, Source
from hive_shared.errors import HiveError

# null, booleans, numbers, strings, lists of thunks, and the classes below.
Value = object

PRIORITY_FORCE = 50
PRIORITY_PLAIN = 100
PRIORITY_DEFAULT = 1000
PRIORITY_OPTION_DEFAULT = 1500
ORDER_PLAIN = 1000


class Fault(HiveError):
    """The configuration is wrong."""

    def __init__(self, place: Place | None, what: str) -> None:
        super().__init__(f"{place}: {what}" if place else what)
        self.place, self.what = place, what


class Unknown(Fault):
    """A value that only a NixOS host can find out."""


class TooMuch(Fault):
    """The evaluation takes more than it may."""


class Thunk:
    """A value that is evaluated when it is needed, and once."""

    __slots__ = ("_compute", "_fault", "_running", "_value", "place")

    def __init__(self, place: Place | None, compute: Callable[[], Value]) -> None:
        self.place = place
        self._compute: Callable[[], Value] | None = compute
        self._value: Value = None
        self._fault: Fault | None = None
        self._running = False

    def force(self) -> Value:
        """Its value; raises the `Fault` that it ended with, every time."""
        if self._fault is not None:
            raise type(self._fault)(self._fault.place, self._fault.what)
        if self._compute is not None:
            self._run(self._compute)
        return self._value

    def _run(self, compute: Callable[[], Value]) -> None:
        if self._running:
            raise Fault(self.place, "this value needs itself: infinite recursion")
        self._running = True
        try:
            self._value = compute()
        except Fault as fault:
            self._fault = fault.with_traceback(None)
            raise
        finally:
            self._running = False
        self._compute = None


def ready(value: Value, place: Place | None = None) -> Thunk:
    """A thunk of what is known already."""
    thunk = Thunk(place, lambda: value)
    thunk.force()
    return thunk


def unknown(place: Place | None, why: str) -> Thunk:
    """A thunk that cannot be known here."""

    def fail() -> Value:
        raise Unknown(place, why)

    return Thunk(place, fail)


List = Sequence[Thunk]


@dataclass(frozen=True, eq=False)
class AttrSet:
    attrs: Mapping[str, Thunk]


@dataclass(frozen=True, eq=False)
class Scope:
    """The names that an expression sees. A scope of `with` counts only where no other has the name."""

    names: Mapping[str, Thunk]
    parent: "Scope | None" = None
    opened: Thunk | None = None  # the set of a `with`


@dataclass(frozen=True, eq=False)
class Function:
    """A function written in the source."""

    source: Source
    node: Node
    scope: Scope


@dataclass(frozen=True, eq=False)
class Builtin:
    """A function of Nix or of nixpkgs' library, perhaps with some of its arguments."""

    name: str
    arity: int
    call: Callable[..., Value]
    given: tuple[Thunk, ...] = ()


@dataclass(frozen=True, eq=False)
class Library:
    """`lib` or `builtins`: what we know of them, and the rest is unknown."""

    name: str
    attrs: Mapping[str, Value]


@dataclass(frozen=True, eq=False)
class Package:
    """`pkgs` and everything below it: nothing of it is ever looked at. `name` is empty for `pkgs` itself."""

    name: str


@dataclass(frozen=True, eq=False)
class NixPath:
    """A path. `inside` is relative to the configuration's top, None where it leaves it."""

    written: str
    inside: str | None


# --- properties of the module system ---


@dataclass(frozen=True, eq=False)
class Override:
    """`mkForce`, `mkDefault`: a smaller priority wins."""

    priority: int
    content: Thunk


@dataclass(frozen=True, eq=False)
class Ordered:
    """`mkBefore`, `mkAfter`."""

    order: int
    content: Thunk


@dataclass(frozen=True, eq=False)
class Conditional:
    """`mkIf`."""

    condition: Thunk
    content: Thunk


@dataclass(frozen=True, eq=False)
class Merged:
    """`mkMerge`."""

    contents: Thunk


def kind_of(value: Value) -> str:
    """What a value is, in words for people."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number with a fraction"
        case str():
            return "a string"
        case NixPath():
            return "a path"
        case AttrSet() | Library():
            return "a set"
        case Function() | Builtin():
            return "a function"
        case Package():
            return "a package"
        case Override() | Ordered() | Conditional() | Merged():
            return "a property of the module system"
        case _:
            return "a list"
