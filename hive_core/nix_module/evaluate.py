"""A bounded, lazy evaluation of the Nix that configurations of agents are written in.

It has no access to anything but the files of one configuration. What it does not know (packages, most of
nixpkgs' library, the rest of the system) is `Unknown`, which matters only to who needs the value. Everything
is paid for in steps, and depth and sizes are bounded: hostile source ends with `TooMuch`.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tree_sitter import Node

from hive_core.nix_module import text
from hive_core.nix_module.parse import Place, Source, child
from hive_core.nix_module.values import (
    AttrSet,
    Builtin,
    Fault,
    Function,
    Library,
    List,
    NixPath,
    Package,
    Scope,
    Thunk,
    TooMuch,
    Unknown,
    Value,
    kind_of,
    ready,
    unknown,
)

STEPS_MAX = 300_000
DEPTH_MAX = 300
STRING_MAX_CHARACTERS = 256 * 1024
LIST_MAX_ITEMS = 10_000
CHARACTERS_PER_STEP = 256
INTEGER_MAX = 2**63 - 1
STORE = "/nix/store/" + "0" * 32 + "-"  # what the path of a package looks like here

_INTEGER = re.compile(r"[0-9]+\Z")


class Files(Protocol):
    """Where the evaluation reads the configuration's files from."""

    def source(self, path: str, asked: Place | None) -> Source:
        """The parsed file; raises `Fault`."""

    def content(self, path: str, asked: Place | None) -> str:
        """A file as text; raises `Fault`."""

    def exists(self, path: str) -> bool: ...


class Evaluator:
    """One evaluation: its fuel, its files, and the names that every expression sees."""

    def __init__(self, files: Files, names: Mapping[str, Value], lib: Library) -> None:
        self.files = files
        self.lib = lib
        self._steps = STEPS_MAX
        self._depth = 0
        self._globals = Scope({name: ready(value) for name, value in names.items()})

    # --- what others call ---

    def file(self, path: str, asked: Place | None) -> Value:
        """The value of a whole file."""
        source = self.files.source(path, asked)
        return self.evaluate(source, source.expression, self._globals)

    def apply(self, function: Value, argument: Thunk, place: Place | None) -> Value:
        """Call `function`; raises `Fault` if it is none, or not for such an argument."""
        self.burn(1, place)
        match function:
            case Function():
                return self._call(function, argument, place)
            case Builtin():
                given = (*function.given, argument)
                if len(given) < function.arity:
                    return Builtin(function.name, function.arity, function.call, given)
                return function.call(self, place, *given)
            case Package():
                return function  # an override of it, or another package made by it
            case AttrSet() if "__functor" in function.attrs:
                functor = self.apply(function.attrs["__functor"].force(), ready(function), place)
                return self.apply(functor, argument, place)
        raise Fault(place, f"{kind_of(function)} is called as if it were a function")

    def burn(self, steps: int, place: Place | None) -> None:
        """Pay for work; raises `TooMuch`."""
        self._steps -= steps
        if self._steps < 0:
            raise TooMuch(place, f"evaluating this takes more than {STEPS_MAX:,} steps")

    def checked_string(self, value: str, place: Place | None) -> str:
        """`value`, paid for."""
        self.burn(len(value) // CHARACTERS_PER_STEP, place)
        if len(value) > STRING_MAX_CHARACTERS:
            raise TooMuch(place, f"this string grows beyond {STRING_MAX_CHARACTERS // 1024} KiB")
        return value

    def checked_list(self, items: Iterable[Thunk], place: Place | None) -> list[Thunk]:
        """`items`, paid for."""
        result: list[Thunk] = []
        for item in items:
            if len(result) >= LIST_MAX_ITEMS:
                raise TooMuch(place, f"this list grows beyond {LIST_MAX_ITEMS:,} elements")
            result.append(item)
        self.burn(len(result), place)
        return result

    def select(self, value: Value, name: str, place: Place | None) -> Thunk | None:
        """The attribute `name`, None if there is none; raises `Fault` for what has no attributes."""
        self.burn(1, place)
        match value:
            case AttrSet():
                return value.attrs.get(name)
            case Package(name=""):
                return ready(self.lib if name == "lib" else Package(name), place)
            case Package():
                return ready(Package(f"{value.name}.{name}"), place)
            case Library():
                if name in value.attrs:
                    return ready(value.attrs[name], place)
                return unknown(place, f"{value.name}.{name} is not known here")
        raise Fault(place, f"{kind_of(value)} has no attribute {name!r}")

    def string(self, value: Value, place: Place | None) -> str:
        """What `"${value}"` gives."""
        match value:
            case str():
                return value
            case Package() if value.name:
                return STORE + value.name
            case NixPath():
                raise Unknown(place, f"the path {value.written} as text is one of the Nix store")
            case AttrSet() if "outPath" in value.attrs:
                return self.string(value.attrs["outPath"].force(), place)
        raise Fault(place, f"{kind_of(value)} cannot be put into a string")

    def equal(self, left: Value, right: Value, place: Place | None) -> bool:
        self.burn(1, place)
        if _is_number(left) and _is_number(right):
            return left == right
        if isinstance(left, AttrSet) and isinstance(right, AttrSet):
            return left.attrs.keys() == right.attrs.keys() and all(
                self.equal(left.attrs[name].force(), right.attrs[name].force(), place) for name in left.attrs
            )
        if isinstance(left, list) and isinstance(right, list):
            return len(left) == len(right) and all(
                self.equal(a.force(), b.force(), place) for a, b in zip(left, right, strict=True)
            )
        if isinstance(left, Package | Library) or isinstance(right, Package | Library):
            raise Unknown(place, "packages are not compared here")
        if isinstance(left, NixPath) and isinstance(right, NixPath):
            return left.written == right.written
        return type(left) is type(right) and isinstance(left, str | bool | None) and left == right

    # --- expressions ---

    def evaluate(self, source: Source, node: Node, scope: Scope) -> Value:
        self.burn(1, None)
        if self._depth >= DEPTH_MAX:
            raise TooMuch(source.place(node), f"evaluating this nests deeper than {DEPTH_MAX} levels")
        expression = _EXPRESSIONS.get(node.type)
        if expression is None:
            raise Unknown(source.place(node), f"what Nix calls {node.type} is not evaluated here")
        self._depth += 1
        try:
            return expression(self, source, node, scope)
        except RecursionError:
            raise TooMuch(source.place(node), "evaluating this nests too deep") from None
        finally:
            self._depth -= 1

    def delay(self, source: Source, node: Node, scope: Scope) -> Thunk:
        """The value of an expression, when it is needed."""
        return Thunk(source.place(node), lambda: self.evaluate(source, node, scope))

    def _named(self, source: Source, node: Node, scope: Scope, name: str) -> Value:
        """A variable: what binds it closest, else the innermost `with` that has it."""
        at: Scope | None = scope
        while at is not None:
            if name in at.names:
                return at.names[name].force()
            at = at.parent
        return self._from_with(source, node, scope, name)

    def _from_with(self, source: Source, node: Node, scope: Scope, name: str) -> Value:
        at: Scope | None = scope
        library = ""
        while at is not None:
            if at.opened is not None:
                opened = at.opened.force()
                if isinstance(opened, Library) and name not in opened.attrs:
                    library = library or opened.name  # it may be there, or further out
                elif (found := self.select(opened, name, source.place(node))) is not None:
                    return found.force()
            at = at.parent
        if library:
            raise Unknown(source.place(node), f"{library}.{name} is not known here")
        raise Fault(source.place(node), f"undefined variable {name!r}")

    def _variable(self, source: Source, node: Node, scope: Scope) -> Value:
        name = source.text(child(node, "name"))
        if name == "__curPos":
            raise Unknown(source.place(node), "__curPos is not known here")
        return self._named(source, node, scope, name)

    def _integer(self, source: Source, node: Node, scope: Scope) -> Value:
        written = source.text(node)
        if not _INTEGER.match(written) or len(written) > len(str(INTEGER_MAX)):
            raise Fault(source.place(node), f"{written[:40]} is no integer of 64 bits")
        return _bounded(int(written), source.place(node))

    def _float(self, source: Source, node: Node, scope: Scope) -> Value:
        return float(source.text(node)[:64])

    def _string(self, source: Source, node: Node, scope: Scope) -> Value:
        pieces = self._pieces(source, node)
        return self._joined(source, node, scope, [piece.text for piece in pieces])

    def _indented(self, source: Source, node: Node, scope: Scope) -> Value:
        texts = text.without_indentation(self._pieces(source, node))
        return self._joined(source, node, scope, texts)

    def _pieces(self, source: Source, node: Node) -> list[text.Piece]:
        pieces: list[text.Piece] = []
        after_escape = False
        for part in node.named_children:
            written = source.text(part)
            match part.type:
                case "string_fragment":
                    pieces.append(text.Piece(written.replace("\r\n", "\n"), escaped=after_escape))
                case "escape_sequence":
                    pieces.append(text.Piece(text.unescaped(written), escaped=True))
                case "interpolation":
                    pieces.append(text.Piece(None))
            after_escape = part.type == "dollar_escape"  # which is followed by the dollar itself
        return pieces

    def _joined(self, source: Source, node: Node, scope: Scope, texts: Sequence[str | None]) -> str:
        inner = iter([part for part in node.named_children if part.type == "interpolation"])
        parts = [
            self._interpolated(source, next(inner), scope) if written is None else written
            for written in texts
        ]
        return self.checked_string("".join(parts), source.place(node))

    def _interpolated(self, source: Source, node: Node, scope: Scope) -> str:
        value = self.evaluate(source, child(node, "expression"), scope)
        return self.string(value, source.place(node))

    def _path(self, source: Source, node: Node, scope: Scope) -> Value:
        written = "".join(
            self._interpolated(source, part, scope) if part.type == "interpolation" else source.text(part)
            for part in node.named_children
        )
        return path_from(source.path, self.checked_string(written, source.place(node)))

    def _outside_path(self, source: Source, node: Node, scope: Scope) -> Value:
        return NixPath(source.text(node), None)

    def _search_path(self, source: Source, node: Node, scope: Scope) -> Value:
        raise Fault(source.place(node), f"{source.text(node)} is not there: evaluation is pure")

    def _uri(self, source: Source, node: Node, scope: Scope) -> Value:
        return source.text(node)

    def _list(self, source: Source, node: Node, scope: Scope) -> Value:
        items = [self.delay(source, item, scope) for item in node.children_by_field_name("element")]
        return self.checked_list(items, source.place(node))

    def _parenthesised(self, source: Source, node: Node, scope: Scope) -> Value:
        return self.evaluate(source, child(node, "expression"), scope)

    def _let(self, source: Source, node: Node, scope: Scope) -> Value:
        return self.evaluate(source, child(node, "body"), self._recursive(source, node, scope))

    def _let_attrset(self, source: Source, node: Node, scope: Scope) -> Value:
        names = self._recursive(source, node, scope).names
        if "body" not in names:
            raise Fault(source.place(node), "this old form of let has no body")
        return names["body"].force()

    def _with(self, source: Source, node: Node, scope: Scope) -> Value:
        opened = self.delay(source, child(node, "environment"), scope)
        return self.evaluate(source, child(node, "body"), Scope({}, scope, opened))

    def _assert(self, source: Source, node: Node, scope: Scope) -> Value:
        if not self._truth(source, child(node, "condition"), scope):
            raise Fault(source.place(node), "this assertion fails")
        return self.evaluate(source, child(node, "body"), scope)

    def _if(self, source: Source, node: Node, scope: Scope) -> Value:
        holds = self._truth(source, child(node, "condition"), scope)
        return self.evaluate(source, child(node, "consequence" if holds else "alternative"), scope)

    def _truth(self, source: Source, node: Node, scope: Scope) -> bool:
        return self.truth(self.evaluate(source, node, scope), source.place(node))

    def truth(self, value: Value, place: Place | None) -> bool:
        if isinstance(value, Package):
            raise Unknown(place, f"whether pkgs.{value.name} holds is not known here")
        if not isinstance(value, bool):
            raise Fault(place, f"{kind_of(value)} where true or false is expected")
        return value

    # --- functions ---

    def _function(self, source: Source, node: Node, scope: Scope) -> Value:
        return Function(source, node, scope)

    def _apply(self, source: Source, node: Node, scope: Scope) -> Value:
        function = self.evaluate(source, child(node, "function"), scope)
        argument = self.delay(source, child(node, "argument"), scope)
        return self.apply(function, argument, source.place(node))

    def _call(self, function: Function, argument: Thunk, place: Place | None) -> Value:
        source, node = function.source, function.node
        names: dict[str, Thunk] = {}
        universal = node.child_by_field_name("universal")
        if universal is not None:
            names[source.text(universal)] = argument
        scope = Scope(names, function.scope)
        formals = node.child_by_field_name("formals")
        if formals is not None:
            self._bind(source, formals, scope, names, argument)
        return self.evaluate(source, child(node, "body"), scope)

    def _bind(
        self, source: Source, formals: Node, scope: Scope, names: dict[str, Thunk], argument: Thunk
    ) -> None:
        given = argument.force()
        if isinstance(given, Package | Library):
            raise Unknown(source.place(formals), "packages are not looked into here")
        if not isinstance(given, AttrSet):
            raise Fault(source.place(formals), f"{kind_of(given)} where a set of arguments is expected")
        wanted = formals.children_by_field_name("formal")
        for formal in wanted:
            name = source.text(child(formal, "name"))
            default = formal.child_by_field_name("default")
            if name in given.attrs:
                names[name] = given.attrs[name]
            elif default is not None:
                names[name] = self.delay(source, default, scope)
            else:
                raise Fault(source.place(formal), f"the argument {name!r} is not given")
        extra = [name for name in given.attrs if name not in names]
        if extra and not formals.children_by_field_name("ellipses"):
            raise Fault(
                source.place(formals), f"the argument {extra[0]!r} is not expected; end the list with `...`"
            )

    # --- sets ---

    def _attrset(self, source: Source, node: Node, scope: Scope) -> Value:
        return AttrSet(self._bindings(source, node, scope, scope))

    def _rec_attrset(self, source: Source, node: Node, scope: Scope) -> Value:
        return AttrSet(self._recursive(source, node, scope).names)

    def _recursive(self, source: Source, node: Node, scope: Scope) -> Scope:
        names: dict[str, Thunk] = {}
        inner = Scope(names, scope)
        names.update(self._bindings(source, node, inner, scope))
        return inner

    def _bindings(self, source: Source, node: Node, scope: Scope, outer: Scope) -> dict[str, Thunk]:
        """What a set or a `let` defines. `outer` is where `inherit` takes from."""
        made = _Bindings(self)
        for part in node.named_children:
            if part.type == "binding_set":
                for binding in part.named_children:
                    self._add_binding(source, binding, scope, outer, made)
        return made.thunks()

    def _add_binding(self, source: Source, node: Node, scope: Scope, outer: Scope, made: "_Bindings") -> None:
        self.burn(1, None)
        match node.type:
            case "binding":
                names = self._attrpath(source, child(node, "attrpath"), scope)
                made.add(names, source, child(node, "expression"), scope, source.place(node))
            case "inherit" | "inherit_from":
                self._add_inherited(source, node, scope, outer, made)

    def _add_inherited(
        self, source: Source, node: Node, scope: Scope, outer: Scope, made: "_Bindings"
    ) -> None:
        origin = node.child_by_field_name("expression")
        held = None if origin is None else self.delay(source, origin, scope)
        for attr in child(node, "attrs").named_children:
            name = self._attr(source, attr, scope)
            place = source.place(attr)
            if held is None:
                made.put(name, Thunk(place, self._later_named(source, attr, outer, name)), place)
            else:
                made.put(name, Thunk(place, self._later_selected(held, name, place)), place)

    def _later_named(self, source: Source, node: Node, scope: Scope, name: str) -> Callable[[], Value]:
        return lambda: self._named(source, node, scope, name)

    def _later_selected(self, held: Thunk, name: str, place: Place) -> Callable[[], Value]:
        def select() -> Value:
            found = self.select(held.force(), name, place)
            if found is None:
                raise Fault(place, f"there is no attribute {name!r} to inherit")
            return found.force()

        return select

    def _attrpath(self, source: Source, node: Node, scope: Scope) -> list[str]:
        return [self._attr(source, attr, scope) for attr in node.named_children]

    def _attr(self, source: Source, node: Node, scope: Scope) -> str:
        match node.type:
            case "identifier":
                return source.text(node)
            case "string_expression":
                return str(self._string(source, node, scope))
            case "interpolation":
                value = self.evaluate(source, child(node, "expression"), scope)
                if not isinstance(value, str):
                    raise Fault(source.place(node), f"{kind_of(value)} as the name of an attribute")
                return value
        raise Fault(source.place(node), f"{node.type} as the name of an attribute")

    def _select(self, source: Source, node: Node, scope: Scope) -> Value:
        default = node.child_by_field_name("default")
        place = source.place(node)
        value = self.evaluate(source, child(node, "expression"), scope)
        for name in self._attrpath(source, child(node, "attrpath"), scope):
            if default is not None and not isinstance(value, AttrSet | Package | Library):
                return self.evaluate(source, default, scope)
            found = self.select(value, name, place)
            if found is None:
                if default is not None:
                    return self.evaluate(source, default, scope)
                raise Fault(place, f"there is no attribute {name!r} here")
            value = found.force()
        return value

    def _has_attr(self, source: Source, node: Node, scope: Scope) -> Value:
        value = self.evaluate(source, child(node, "expression"), scope)
        for name in self._attrpath(source, child(node, "attrpath"), scope):
            if isinstance(value, Package) or (isinstance(value, Library) and name not in value.attrs):
                raise Unknown(source.place(node), f"whether there is {name!r} is not known here")
            if not isinstance(value, AttrSet | Library):
                return False
            found = self.select(value, name, source.place(node))
            if found is None:
                return False
            value = found.force()
        return True

    # --- operators ---

    def _unary(self, source: Source, node: Node, scope: Scope) -> Value:
        argument = child(node, "argument")
        if source.text(child(node, "operator")) == "!":
            return not self._truth(source, argument, scope)
        value = self.evaluate(source, argument, scope)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Fault(source.place(node), f"{kind_of(value)} cannot be negated")
        return -value

    def _binary(self, source: Source, node: Node, scope: Scope) -> Value:
        operator = source.text(child(node, "operator"))
        left, right = child(node, "left"), child(node, "right")
        match operator:
            case "&&":
                return self._truth(source, left, scope) and self._truth(source, right, scope)
            case "||":
                return self._truth(source, left, scope) or self._truth(source, right, scope)
            case "->":
                return not self._truth(source, left, scope) or self._truth(source, right, scope)
            case "++":
                items = [
                    item for side in (left, right) for item in self._items(source, side, scope)
                ]  # fmt: skip
                return self.checked_list(items, source.place(node))
        first, second = self.evaluate(source, left, scope), self.evaluate(source, right, scope)
        place = source.place(node)
        match operator:
            case "//":
                return AttrSet({**self.attrs(first, place), **self.attrs(second, place)})
            case "==":
                return self.equal(first, second, place)
            case "!=":
                return not self.equal(first, second, place)
            case "<" | ">" | "<=" | ">=":
                return _compared(operator, first, second, place)
        return self._computed(operator, first, second, place)

    def _items(self, source: Source, node: Node, scope: Scope) -> Sequence[Thunk]:
        """The elements of one side of `++`. A side that is unknown is one unknown element."""
        try:
            value = self.evaluate(source, node, scope)
        except Unknown as fault:
            return [unknown(fault.place, fault.what)]
        return self.items(value, source.place(node))

    def items(self, value: Value, place: Place | None) -> List:
        if isinstance(value, Package):
            raise Unknown(place, f"pkgs.{value.name} is not looked into here")
        if not isinstance(value, list):
            raise Fault(place, f"{kind_of(value)} where a list is expected")
        return value

    def attrs(self, value: Value, place: Place | None) -> Mapping[str, Thunk]:
        if isinstance(value, Package | Library):
            raise Unknown(place, "packages and libraries are not looked into here")
        if not isinstance(value, AttrSet):
            raise Fault(place, f"{kind_of(value)} where a set is expected")
        self.burn(len(value.attrs), place)
        return value.attrs

    def _computed(self, operator: str, left: Value, right: Value, place: Place) -> Value:
        if operator == "+" and isinstance(left, NixPath):
            added = right.written if isinstance(right, NixPath) else self.string(right, place)
            return _extended(left, added)
        if operator == "+" and not (_is_number(left) and _is_number(right)):
            return self.checked_string(self.string(left, place) + self.string(right, place), place)
        if not (_is_number(left) and _is_number(right)):
            raise Fault(place, f"{kind_of(left)} {operator} {kind_of(right)} cannot be computed")
        return _arithmetic(operator, left, right, place)


class _Bindings:
    """The definitions of one set, while it is put together: `a.b = 1; a.c = 2;` are one `a`."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._found: dict[str, Thunk | _Bindings] = {}
        self._literal: dict[str, tuple[Source, Node, Scope]] = {}  # sets written out, which others may extend

    def put(self, name: str, thunk: Thunk, place: Place) -> None:
        if name in self._found:
            raise Fault(place, f"the attribute {name!r} is defined twice in one set")
        self._found[name] = thunk

    def add(self, names: Sequence[str], source: Source, node: Node, scope: Scope, place: Place) -> None:
        name, deeper = names[0], names[1:]
        if deeper:
            self._below(name, place).add(deeper, source, node, scope, place)
        elif name in self._found and node.type == "attrset_expression":
            self._extend(self._below(name, place), source, node, scope)
        else:
            thunk = Thunk(place, lambda: self._evaluator.evaluate(source, node, scope))
            self.put(name, thunk, place)
            if node.type == "attrset_expression":
                self._literal[name] = (source, node, scope)

    def thunks(self) -> dict[str, Thunk]:
        return {
            name: part if isinstance(part, Thunk) else ready(AttrSet(part.thunks()), part.place)
            for name, part in self._found.items()
        }

    place: Place | None = None

    def _below(self, name: str, place: Place) -> "_Bindings":
        found = self._found.get(name)
        if isinstance(found, _Bindings):
            return found
        below = _Bindings(self._evaluator)
        below.place = place
        if found is not None:
            if name not in self._literal:
                raise Fault(place, f"the attribute {name!r} is defined twice in one set")
            self._extend(below, *self._literal.pop(name))
        self._found[name] = below
        return below

    def _extend(self, below: "_Bindings", source: Source, node: Node, scope: Scope) -> None:
        for part in node.named_children:
            if part.type == "binding_set":
                for binding in part.named_children:
                    self._evaluator._add_binding(source, binding, scope, scope, below)


def path_from(file: str, written: str) -> NixPath:
    """The path `written` in `file`; inside the configuration, or not."""
    if written.startswith(("/", "~")):
        return NixPath(written, None)
    return NixPath(written, _inside(posixpath.join(posixpath.dirname(file), written)))


def _extended(path: NixPath, added: str) -> NixPath:
    inside = None if path.inside is None else _inside(path.inside + added)
    return NixPath(path.written + added, inside)


def _inside(path: str) -> str | None:
    plain = posixpath.normpath(path)
    return None if plain.startswith(("/", "../")) or plain == ".." else plain


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded(value: Value, place: Place | None) -> Value:
    if isinstance(value, int) and not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
        raise Fault(place, "this integer has more than 64 bits")
    return value


def _arithmetic(operator: str, left: Value, right: Value, place: Place) -> Value:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise Fault(place, f"{kind_of(left)} {operator} {kind_of(right)} cannot be computed")
    match operator:
        case "+":
            return _bounded(left + right, place)
        case "-":
            return _bounded(left - right, place)
        case "*":
            return _bounded(left * right, place)
    if right == 0:
        raise Fault(place, "division by zero")
    if isinstance(left, float) or isinstance(right, float):
        return left / right
    quotient = abs(left) // abs(right)
    return _bounded(quotient if (left < 0) == (right < 0) else -quotient, place)


def _compared(operator: str, left: Value, right: Value, place: Place) -> bool:
    if _is_number(left) and _is_number(right):
        a, b = left, right
    elif isinstance(left, str) and isinstance(right, str):
        a, b = left.encode(), right.encode()
    else:
        raise Fault(place, f"{kind_of(left)} and {kind_of(right)} cannot be compared")
    match operator:
        case "<":
            return bool(a < b)  # type: ignore[operator]
        case ">":
            return bool(a > b)  # type: ignore[operator]
        case "<=":
            return bool(a <= b)  # type: ignore[operator]
    return bool(a >= b)  # type: ignore[operator]


_Expression = Callable[[Evaluator, Source, Node, Scope], Value]

_EXPRESSIONS: dict[str, _Expression] = {
    "variable_expression": Evaluator._variable,
    "integer_expression": Evaluator._integer,
    "float_expression": Evaluator._float,
    "string_expression": Evaluator._string,
    "indented_string_expression": Evaluator._indented,
    "path_expression": Evaluator._path,
    "hpath_expression": Evaluator._outside_path,
    "spath_expression": Evaluator._search_path,
    "uri_expression": Evaluator._uri,
    "list_expression": Evaluator._list,
    "parenthesized_expression": Evaluator._parenthesised,
    "let_expression": Evaluator._let,
    "let_attrset_expression": Evaluator._let_attrset,
    "with_expression": Evaluator._with,
    "assert_expression": Evaluator._assert,
    "if_expression": Evaluator._if,
    "function_expression": Evaluator._function,
    "apply_expression": Evaluator._apply,
    "attrset_expression": Evaluator._attrset,
    "rec_attrset_expression": Evaluator._rec_attrset,
    "select_expression": Evaluator._select,
    "has_attr_expression": Evaluator._has_attr,
    "unary_expression": Evaluator._unary,
    "binary_expression": Evaluator._binary,
}
