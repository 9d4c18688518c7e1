"""A configuration as the module system sees it: the definitions of an option, and which of them hold.

It is `agent.nix` and the files that it imports. Options are looked up by their path; nothing is evaluated
that does not lie on the way to one.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hive_core.nix_module.evaluate import STORE, Evaluator
from hive_core.nix_module.library import global_names, library
from hive_core.nix_module.parse import SOURCE_MAX_BYTES, Place, Source, parse
from hive_core.nix_module.scopes import check_names
from hive_core.nix_module.values import (
    ORDER_PLAIN,
    PRIORITY_PLAIN,
    AttrSet,
    Conditional,
    Fault,
    Function,
    Merged,
    NixPath,
    Ordered,
    Override,
    Package,
    Thunk,
    Unknown,
    Value,
    kind_of,
    ready,
    unknown,
)

TOP = "agent.nix"
MODULES_MAX = 100
IMPORTS_DEPTH_MAX = 20
OTHERS_MAX = 60
OTHERS_DEPTH_MAX = 3

# What a module holds besides its definitions.
_STRUCTURE = frozenset(
    {"imports", "options", "config", "disabledModules", "meta", "key", "_file", "_class", "freeformType"}
)

OptionPath = tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """One module's word on an option. The value may turn out to be unknown."""

    value: Thunk
    place: Place | None
    priority: int = PRIORITY_PLAIN
    order: int = ORDER_PLAIN


class TreeFiles:
    """The files of an exported configuration. Links are not followed, whoever made them."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._sources: dict[str, Source] = {}

    def source(self, path: str, asked: Place | None) -> Source:
        if self._is_directory(path):
            path = f"{path}/default.nix" if path != "." else "default.nix"
        if path not in self._sources:
            source = parse(path, self._read(path, asked))
            check_names(source, global_names())
            self._sources[path] = source
        return self._sources[path]

    def content(self, path: str, asked: Place | None) -> str:
        try:
            return self._read(path, asked).decode()
        except UnicodeDecodeError:
            raise Fault(asked, f"{path} is not UTF-8 text") from None

    def exists(self, path: str) -> bool:
        try:
            self._stat(path)
        except OSError:
            return False
        return True

    def _is_directory(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self._stat(path).st_mode)
        except OSError:
            return False

    def _stat(self, path: str) -> os.stat_result:
        """Of the last part; raises `OSError` if a part before it is no directory of the tree."""
        at = self._tree
        found = os.lstat(at)
        for part in Path(path).parts:
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(path)
            at = at / part
            found = os.lstat(at)
        return found

    def _read(self, path: str, asked: Place | None) -> bytes:
        try:
            found = self._stat(path)
            if not stat.S_ISREG(found.st_mode):
                raise Fault(asked, f"{path} is not a regular file of this configuration")
            descriptor = os.open(self._tree / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(SOURCE_MAX_BYTES + 1)
        except (OSError, ValueError):
            raise Fault(asked, f"there is no file {path} in this configuration") from None
        if len(data) > SOURCE_MAX_BYTES:
            raise Fault(asked, f"{path} is larger than {SOURCE_MAX_BYTES // 1024} KiB, the limit of one file")
        return data


class Configuration:
    """Everything that the modules of one configuration define."""

    def __init__(self, tree: Path) -> None:
        self._evaluator = Evaluator(TreeFiles(tree), global_names(), library())
        self._modules: list[Thunk] = []
        self._seen: set[str] = set()
        self.outside: list[str] = []  # imports of modules that only NixOS has
        self._load(ready(NixPath(f"./{TOP}", TOP)), None, 0)

    @property
    def evaluator(self) -> Evaluator:
        return self._evaluator

    def definitions(self, path: OptionPath) -> list[Definition]:
        """What the modules say of an option, imported modules first; those with the best priority alone."""
        found = [
            made for module in self._modules for made in self._below(module, path, Definition(module, None))
        ]
        best = min((made.priority for made in found), default=0)
        return sorted((made for made in found if made.priority == best), key=lambda made: made.order)

    def names(self, path: OptionPath) -> list[str]:
        """What is defined below an option that is a set; raises `Fault` where it is none."""
        found: dict[str, None] = {}
        for made in self.definitions(path):
            value = made.value.force()
            if not isinstance(value, AttrSet):
                raise Fault(made.place, f"{'.'.join(path)} must be a set; this is {kind_of(value)}")
            found |= dict.fromkeys(value.attrs)
        return list(found)

    def others(self, known: Callable[[OptionPath], bool]) -> list[str]:
        """The options that are set and not `known`, as far as can be seen; raises `Fault` for wrong ones."""
        found: dict[str, None] = {}
        for module in self._modules:
            for path in self._leaves(module, (), known):
                found[".".join(path)] = None
                if len(found) >= OTHERS_MAX:
                    return [*found, "…"]
        return list(found)

    # --- loading ---

    def _load(self, module: Thunk, asked: Place | None, depth: int) -> None:
        """A module and, before it, those that it imports; each file once, so that cycles end."""
        value = module.force()
        if isinstance(value, str) and value.startswith(STORE):
            self.outside.append(value.removeprefix(STORE))
            return
        if isinstance(value, NixPath):
            file = self._file(value, asked)
            if file in self._seen:
                return
            self._seen.add(file)
            value = self._evaluator.file(file, asked)
        if len(self._modules) >= MODULES_MAX or depth > IMPORTS_DEPTH_MAX:
            raise Fault(asked, f"more than {MODULES_MAX} modules, or {IMPORTS_DEPTH_MAX} levels of imports")
        content = self._called(value, asked)
        for wanted in self._imports(content):
            self._load(wanted, wanted.place, depth + 1)
        self._modules.append(_definitions_of(content))

    def _file(self, path: NixPath, asked: Place | None) -> str:
        if path.inside is None:
            raise Fault(asked, f"imports {path.written}, which is outside this configuration")
        return self._evaluator.files.source(path.inside, asked).path

    def _called(self, module: Value, asked: Place | None) -> AttrSet:
        """The content of a module, which is a set or a function that returns one."""
        if isinstance(module, Function):
            module = self._evaluator.apply(module, ready(self._arguments(module)), asked)
        if not isinstance(module, AttrSet):
            raise Fault(
                asked or Place(TOP, 1, 1), f"a module is a set or a function; this is {kind_of(module)}"
            )
        return module

    def _arguments(self, module: Function) -> AttrSet:
        """What a module may ask for. The rest of the system's configuration is not known here."""
        place = module.source.place(module.node)
        arguments = {
            "pkgs": ready(Package("")),
            "lib": ready(self._evaluator.lib),
            "config": unknown(place, "the values of other options (config) are only known on a NixOS host"),
            "options": unknown(place, "the options of NixOS are only known on a NixOS host"),
            "modulesPath": ready(f"{STORE}nixpkgs/nixos/modules"),
        }
        formals = module.node.child_by_field_name("formals")
        wanted = formals.children_by_field_name("formal") if formals else []
        for formal in wanted:
            name = module.source.text(formal.children[0])
            if name not in arguments and formal.child_by_field_name("default") is None:
                why = f"the argument {name!r} of this module is only known on a NixOS host"
                arguments[name] = unknown(module.source.place(formal), why)
        named = {module.source.text(formal.children[0]) for formal in wanted}
        if formals is not None and not formals.children_by_field_name("ellipses"):
            return AttrSet({name: value for name, value in arguments.items() if name in named})
        return AttrSet(arguments)

    def _imports(self, content: AttrSet) -> Sequence[Thunk]:
        wanted = content.attrs.get("imports")
        if wanted is None:
            return []
        return self._evaluator.items(wanted.force(), wanted.place)

    # --- looking up ---

    def _below(self, thunk: Thunk, path: OptionPath, made: Definition) -> Iterator[Definition]:
        """The definitions of `path` within a value, its properties resolved."""
        place = thunk.place or made.place
        try:
            value = thunk.force()
        except Unknown as fault:
            yield Definition(unknown(fault.place, fault.what), place, made.priority, made.order)
            return
        match value:
            case Override(priority=priority, content=content):
                yield from self._below(content, path, Definition(content, place, priority, made.order))
            case Ordered(order=order, content=content):
                yield from self._below(content, path, Definition(content, place, made.priority, order))
            case Merged(contents=contents):
                for content in self._evaluator.items(contents.force(), place):
                    yield from self._below(content, path, replace(made, value=content, place=place))
            case Conditional(condition=condition, content=content):
                inner = self._below(content, path, replace(made, value=content, place=place))
                yield from self._if_it_holds(condition, place, inner)
            case AttrSet(attrs=attrs) if path:
                if path[0] in attrs:
                    deeper = Definition(attrs[path[0]], place, made.priority, made.order)
                    yield from self._below(attrs[path[0]], path[1:], deeper)
            case _ if path:
                raise Fault(place, f"{kind_of(value)} where a set with {'.'.join(path)} is expected")
            case _:
                yield Definition(thunk, place, made.priority, made.order)

    def _if_it_holds(
        self, condition: Thunk, place: Place | None, inner: Iterator[Definition]
    ) -> Iterator[Definition]:
        """A condition is only looked at where it decides something."""
        for made in inner:
            try:
                if self._evaluator.truth(condition.force(), condition.place or place):
                    yield made
            except Unknown as fault:
                yield Definition(unknown(fault.place, fault.what), made.place, made.priority, made.order)

    def _leaves(
        self, thunk: Thunk, path: OptionPath, known: Callable[[OptionPath], bool]
    ) -> Iterator[OptionPath]:
        if known(path):
            return
        inner = self._inside(thunk, path)
        if inner is None:
            yield path
            return
        for name, below in inner:
            yield from self._leaves(below, (*path, name) if name else path, known)

    def _inside(self, thunk: Thunk, path: OptionPath) -> "Sequence[tuple[str, Thunk]] | None":
        """What lies below, None for a leaf: a value that is no set, is not known, or is deep enough."""
        if len(path) >= OTHERS_DEPTH_MAX:
            return None
        try:
            value = thunk.force()
            match value:
                case Override(content=content) | Ordered(content=content) | Conditional(content=content):
                    return [("", content)]
                case Merged(contents=contents):
                    return [("", each) for each in self._evaluator.items(contents.force(), thunk.place)]
                case AttrSet(attrs=attrs) if attrs or not path:
                    return list(attrs.items())
        except Unknown:
            return None
        return None


def _definitions_of(content: AttrSet) -> Thunk:
    """A module's `config`, or, in the short form, everything that is no structure."""
    if "config" in content.attrs:
        return content.attrs["config"]
    plain: Mapping[str, Thunk] = {
        name: value for name, value in content.attrs.items() if name not in _STRUCTURE
    }
    return ready(AttrSet(plain))
