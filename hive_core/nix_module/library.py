"""What is known here of `builtins` and of nixpkgs' `lib`: the part that modules in practice use.

Every function takes the evaluator, the place of the call, and its arguments, not yet evaluated.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence

from hive_core.nix_module.evaluate import STORE, STRING_MAX_CHARACTERS, Evaluator
from hive_core.nix_module.parse import Place
from hive_core.nix_module.programs import program_of
from hive_core.nix_module.values import (
    ORDER_PLAIN,
    PRIORITY_DEFAULT,
    PRIORITY_FORCE,
    PRIORITY_OPTION_DEFAULT,
    AttrSet,
    Builtin,
    Conditional,
    Fault,
    Function,
    Library,
    Merged,
    NixPath,
    Ordered,
    Override,
    Package,
    Thunk,
    TooMuch,
    Unknown,
    Value,
    kind_of,
    ready,
)

JSON_DEPTH_MAX = 64

_Call = Callable[..., Value]
_builtins: dict[str, Value] = {"true": True, "false": False, "null": None}
_lib: dict[str, Value] = {}
_WITHOUT_BUILTINS = frozenset({
    "abort", "baseNameOf", "dirOf", "false", "import", "isNull", "map", "null", "removeAttrs",
    "throw", "toString", "true",
})  # fmt: skip


def _known(*names: str, arity: int, lib: bool = True, builtin: bool = False) -> Callable[[_Call], _Call]:
    """Register a function under its Nix names."""

    def register(call: _Call) -> _Call:
        for name in names:
            function = Builtin(name, arity, call)
            if lib:
                _lib[name] = function
            if builtin:
                _builtins[name] = function
        return call

    return register


def library() -> Library:
    """`lib`. Its parts (`lib.lists`, `lib.strings` …) are taken to hold all of it."""
    whole = dict(_lib)
    for part in ("attrsets", "lists", "meta", "modules", "strings", "trivial"):
        whole[part] = Library(f"lib.{part}", _lib)
    return Library("lib", whole)


def global_names() -> Mapping[str, Value]:
    """What every expression sees without asking."""
    names = {name: _builtins[name] for name in _WITHOUT_BUILTINS}
    for name in ("fetchGit", "fetchMercurial", "fetchTarball", "fetchTree", "derivation", "placeholder"):
        names[name] = _not_here(name)
    return {**names, "builtins": Library("builtins", _builtins)}


def _not_here(name: str) -> Builtin:
    def fail(_: Evaluator, place: Place | None, *arguments: Thunk) -> Value:
        raise Unknown(place, f"{name} is only done by Nix")

    return Builtin(name, 1, fail)


# --- properties of the module system ---


@_known("mkDefault", arity=1)
def _mk_default(_: Evaluator, place: Place | None, content: Thunk) -> Value:
    return Override(PRIORITY_DEFAULT, content)


@_known("mkOptionDefault", arity=1)
def _mk_option_default(_: Evaluator, place: Place | None, content: Thunk) -> Value:
    return Override(PRIORITY_OPTION_DEFAULT, content)


@_known("mkForce", arity=1)
def _mk_force(_: Evaluator, place: Place | None, content: Thunk) -> Value:
    return Override(PRIORITY_FORCE, content)


@_known("mkOverride", arity=2)
def _mk_override(_: Evaluator, place: Place | None, priority: Thunk, content: Thunk) -> Value:
    return Override(_integer(priority, place), content)


@_known("mkBefore", arity=1)
def _mk_before(_: Evaluator, place: Place | None, content: Thunk) -> Value:
    return Ordered(ORDER_PLAIN - 500, content)


@_known("mkAfter", arity=1)
def _mk_after(_: Evaluator, place: Place | None, content: Thunk) -> Value:
    return Ordered(ORDER_PLAIN + 500, content)


@_known("mkOrder", arity=2)
def _mk_order(_: Evaluator, place: Place | None, order: Thunk, content: Thunk) -> Value:
    return Ordered(_integer(order, place), content)


@_known("mkIf", arity=2)
def _mk_if(_: Evaluator, place: Place | None, condition: Thunk, content: Thunk) -> Value:
    return Conditional(condition, content)


@_known("mkMerge", arity=1)
def _mk_merge(_: Evaluator, place: Place | None, contents: Thunk) -> Value:
    return Merged(contents)


# --- values ---


@_known("id", arity=1)
def _identity(_: Evaluator, place: Place | None, value: Thunk) -> Value:
    return value.force()


@_known("const", arity=2)
def _const(_: Evaluator, place: Place | None, value: Thunk, ignored: Thunk) -> Value:
    return value.force()


@_known("toString", arity=1, builtin=True)
def _to_string(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    return evaluator.checked_string(_as_string(evaluator, place, value.force()), place)


def _as_string(evaluator: Evaluator, place: Place | None, value: Value) -> str:
    evaluator.burn(1, place)
    match value:
        case None | False:
            return ""
        case True:
            return "1"
        case int():
            return str(value)
        case float():
            return f"{value:.6f}"
        case list():
            return evaluator.checked_string(
                " ".join(_as_string(evaluator, place, item.force()) for item in value), place
            )
    return evaluator.string(value, place)


@_known("toJSON", arity=1, lib=False, builtin=True)
def _to_json(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    plain = plain_value(evaluator, place, value)
    return evaluator.checked_string(
        json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True), place
    )


def plain_value(evaluator: Evaluator, place: Place | None, thunk: Thunk, depth: int = 0) -> object:
    """A value as JSON has it; raises `Fault` for what JSON has not."""
    evaluator.burn(1, place)
    if depth > JSON_DEPTH_MAX:
        raise Fault(place, f"nested deeper than {JSON_DEPTH_MAX} levels for JSON")
    match thunk.force():
        case list() as items:
            return [plain_value(evaluator, place, item, depth + 1) for item in items]
        case AttrSet(attrs=attrs) if "outPath" not in attrs:
            return {name: plain_value(evaluator, place, item, depth + 1) for name, item in attrs.items()}
        case None | bool() | int() | str() as value:
            return value
        case float() as number if math.isfinite(number):
            return number
        case value:
            return evaluator.string(value, place)


@_known("fromJSON", arity=1, lib=False, builtin=True)
def _from_json(evaluator: Evaluator, place: Place | None, text: Thunk) -> Value:
    try:
        parsed = json.loads(_string(evaluator, text, place))
    except (ValueError, RecursionError):
        raise Fault(place, "this text is not JSON") from None
    return _from_plain(evaluator, place, parsed)


def _from_plain(evaluator: Evaluator, place: Place | None, plain: object) -> Value:
    evaluator.burn(1, place)
    if isinstance(plain, list):
        return evaluator.checked_list((ready(_from_plain(evaluator, place, item)) for item in plain), place)
    if isinstance(plain, dict):
        return AttrSet({name: ready(_from_plain(evaluator, place, item)) for name, item in plain.items()})
    return plain


@_known("importJSON", arity=1)
def _import_json(evaluator: Evaluator, place: Place | None, path: Thunk) -> Value:
    return _from_json(evaluator, place, ready(_read_file(evaluator, place, path)))


def _kind_test(name: str, test: Callable[[Value], bool]) -> None:
    def call(_: Evaluator, place: Place | None, value: Thunk) -> Value:
        return test(value.force())

    _known(name, arity=1, builtin=True)(call)


_kind_test("isNull", lambda value: value is None)
_kind_test("isBool", lambda value: isinstance(value, bool))
_kind_test("isInt", lambda value: isinstance(value, int) and not isinstance(value, bool))
_kind_test("isFloat", lambda value: isinstance(value, float))
_kind_test("isString", lambda value: isinstance(value, str))
_kind_test("isPath", lambda value: isinstance(value, NixPath))
_kind_test("isList", lambda value: isinstance(value, list))
_kind_test("isAttrs", lambda value: isinstance(value, AttrSet | Library | Package))
_kind_test("isFunction", lambda value: isinstance(value, Builtin | Function))


# --- errors ---


@_known("throw", arity=1, builtin=True)
def _throw(evaluator: Evaluator, place: Place | None, message: Thunk) -> Value:
    raise Fault(place, _string(evaluator, message, place)[:400])


@_known("abort", arity=1, builtin=True)
def _abort(evaluator: Evaluator, place: Place | None, message: Thunk) -> Value:
    raise Fault(place, _string(evaluator, message, place)[:400])


@_known("warn", "trace", arity=2, builtin=True)
def _second(_: Evaluator, place: Place | None, first: Thunk, second: Thunk) -> Value:
    return second.force()


@_known("seq", "deepSeq", arity=2, lib=False, builtin=True)
def _seq(_: Evaluator, place: Place | None, first: Thunk, second: Thunk) -> Value:
    first.force()
    return second.force()


# --- files of the configuration ---


@_known("import", arity=1, lib=False, builtin=True)
def _import(evaluator: Evaluator, place: Place | None, path: Thunk) -> Value:
    return evaluator.file(_inside(evaluator, place, path), place)


@_known("readFile", arity=1, lib=False, builtin=True)
@_known("fileContents", arity=1)
def _read_file(evaluator: Evaluator, place: Place | None, path: Thunk) -> Value:
    return evaluator.checked_string(evaluator.files.content(_inside(evaluator, place, path), place), place)


@_known("pathExists", arity=1, builtin=True)
def _path_exists(evaluator: Evaluator, place: Place | None, path: Thunk) -> Value:
    return evaluator.files.exists(_inside(evaluator, place, path))


def _inside(evaluator: Evaluator, place: Place | None, thunk: Thunk) -> str:
    value = thunk.force()
    if isinstance(value, NixPath):
        if value.inside is None:
            raise Fault(place, f"{value.written} is outside this configuration; nothing there may be read")
        return value.inside
    if isinstance(value, str) and value.startswith(STORE):
        raise Unknown(place, "files of packages are only there on a NixOS host")
    if isinstance(value, Package):
        raise Unknown(place, f"pkgs.{value.name} is not looked into here")
    raise Fault(place, f"{kind_of(value)} where a path of this configuration is expected")


@_known("baseNameOf", arity=1, builtin=True)
def _base_name(evaluator: Evaluator, place: Place | None, path: Thunk) -> Value:
    return _path_text(evaluator, place, path).rstrip("/").rpartition("/")[2]


@_known("dirOf", arity=1, builtin=True)
def _directory(evaluator: Evaluator, place: Place | None, path: Thunk) -> Value:
    return _path_text(evaluator, place, path).rpartition("/")[0] or "."


def _path_text(evaluator: Evaluator, place: Place | None, thunk: Thunk) -> str:
    value = thunk.force()
    return value.written if isinstance(value, NixPath) else evaluator.string(value, place)


# --- lists ---


@_known("optional", arity=2)
def _optional(evaluator: Evaluator, place: Place | None, condition: Thunk, value: Thunk) -> Value:
    return [value] if evaluator.truth(condition.force(), place) else []


@_known("optionals", arity=2)
def _optionals(evaluator: Evaluator, place: Place | None, condition: Thunk, items: Thunk) -> Value:
    return items.force() if evaluator.truth(condition.force(), place) else []


@_known("singleton", arity=1)
def _singleton(_: Evaluator, place: Place | None, value: Thunk) -> Value:
    return [value]


@_known("toList", arity=1)
def _to_list(_: Evaluator, place: Place | None, value: Thunk) -> Value:
    return value.force() if isinstance(value.force(), list) else [value]


@_known("map", arity=2, builtin=True)
def _map(evaluator: Evaluator, place: Place | None, function: Thunk, items: Thunk) -> Value:
    return evaluator.checked_list(
        (_later(evaluator, place, function, item) for item in _list(evaluator, items, place)), place
    )


def _later(evaluator: Evaluator, place: Place | None, function: Thunk, *arguments: Thunk) -> Thunk:
    return Thunk(place, lambda: _applied(evaluator, place, function, *arguments))


def _applied(evaluator: Evaluator, place: Place | None, function: Thunk, *arguments: Thunk) -> Value:
    value = function.force()
    for argument in arguments:
        value = evaluator.apply(value, argument, place)
    return value


@_known("filter", arity=2, builtin=True)
def _filter(evaluator: Evaluator, place: Place | None, test: Thunk, items: Thunk) -> Value:
    return [item for item in _list(evaluator, items, place) if _holds(evaluator, place, test, item)]


def _holds(evaluator: Evaluator, place: Place | None, test: Thunk, *arguments: Thunk) -> bool:
    return evaluator.truth(_applied(evaluator, place, test, *arguments), place)


@_known("any", arity=2, builtin=True)
def _any(evaluator: Evaluator, place: Place | None, test: Thunk, items: Thunk) -> Value:
    return any(_holds(evaluator, place, test, item) for item in _list(evaluator, items, place))


@_known("all", arity=2, builtin=True)
def _all(evaluator: Evaluator, place: Place | None, test: Thunk, items: Thunk) -> Value:
    return all(_holds(evaluator, place, test, item) for item in _list(evaluator, items, place))


@_known("elem", arity=2, builtin=True)
def _elem(evaluator: Evaluator, place: Place | None, value: Thunk, items: Thunk) -> Value:
    return any(evaluator.equal(value.force(), item.force(), place) for item in _list(evaluator, items, place))


@_known("unique", arity=1)
def _unique(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    found: list[Thunk] = []
    for item in _list(evaluator, items, place):
        if not any(evaluator.equal(item.force(), other.force(), place) for other in found):
            found.append(item)
    return found


@_known("length", arity=1, builtin=True)
def _length(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    return len(_list(evaluator, items, place))


@_known("head", arity=1, builtin=True)
def _head(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    return _element(_list(evaluator, items, place), 0, place)


@_known("last", arity=1)
def _last(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    return _element(_list(evaluator, items, place), -1, place)


@_known("tail", arity=1, builtin=True)
def _tail(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    return evaluator.checked_list(_list(evaluator, items, place)[1:], place)


@_known("elemAt", arity=2, builtin=True)
def _elem_at(evaluator: Evaluator, place: Place | None, items: Thunk, index: Thunk) -> Value:
    at = _integer(index, place)
    return _element(_list(evaluator, items, place), at if at >= 0 else 10**9, place)


def _element(items: Sequence[Thunk], index: int, place: Place | None) -> Value:
    try:
        return items[index].force()
    except IndexError:
        raise Fault(place, "this list has no such element") from None


@_known("concatLists", arity=1, builtin=True)
def _concat_lists(evaluator: Evaluator, place: Place | None, lists: Thunk) -> Value:
    parts = (
        item for part in _list(evaluator, lists, place) for item in _list(evaluator, part, place)
    )  # fmt: skip
    return evaluator.checked_list(parts, place)


@_known("concatMap", arity=2, builtin=True)
def _concat_map(evaluator: Evaluator, place: Place | None, function: Thunk, items: Thunk) -> Value:
    return _concat_lists(evaluator, place, ready(_map(evaluator, place, function, items)))


@_known("flatten", arity=1)
def _flatten(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    flat: list[Thunk] = []
    waiting = [value]
    while waiting:
        evaluator.burn(1, place)
        item = waiting.pop()
        inner = item.force()
        if isinstance(inner, list):
            waiting.extend(reversed(inner))
        else:
            flat.append(item)
    return evaluator.checked_list(flat, place)


@_known("foldl'", "foldl", arity=3, builtin=True)
def _foldl(evaluator: Evaluator, place: Place | None, function: Thunk, first: Thunk, items: Thunk) -> Value:
    value = first
    for item in _list(evaluator, items, place):
        value = ready(_applied(evaluator, place, function, value, item), place)
    return value.force()


@_known("range", arity=2)
def _range(evaluator: Evaluator, place: Place | None, first: Thunk, last: Thunk) -> Value:
    start, end = _integer(first, place), _integer(last, place)
    return evaluator.checked_list((ready(number, place) for number in range(start, end + 1)), place)


@_known("genList", arity=2, builtin=True)
def _gen_list(evaluator: Evaluator, place: Place | None, function: Thunk, count: Thunk) -> Value:
    numbers = range(_integer(count, place))
    made = (_later(evaluator, place, function, ready(number, place)) for number in numbers)
    return evaluator.checked_list(made, place)


# --- strings ---


@_known("optionalString", arity=2)
def _optional_string(evaluator: Evaluator, place: Place | None, condition: Thunk, value: Thunk) -> Value:
    return value.force() if evaluator.truth(condition.force(), place) else ""


@_known("concatStringsSep", arity=2, builtin=True)
def _join(evaluator: Evaluator, place: Place | None, separator: Thunk, items: Thunk) -> Value:
    parts: list[str] = []
    between = _string(evaluator, separator, place)
    grown = 0
    for item in _list(evaluator, items, place):
        parts.append(evaluator.string(item.force(), place))
        grown += len(parts[-1]) + len(between)
        if grown > STRING_MAX_CHARACTERS:
            raise TooMuch(place, f"this string grows beyond {STRING_MAX_CHARACTERS // 1024} KiB")
    return evaluator.checked_string(between.join(parts), place)


@_known("concatStrings", arity=1)
def _concat_strings(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    return _join(evaluator, place, ready(""), items)


@_known("concatMapStringsSep", arity=3)
def _concat_map_strings_sep(
    evaluator: Evaluator, place: Place | None, separator: Thunk, function: Thunk, items: Thunk
) -> Value:
    return _join(evaluator, place, separator, ready(_map(evaluator, place, function, items)))


@_known("concatMapStrings", arity=2)
def _concat_map_strings(evaluator: Evaluator, place: Place | None, function: Thunk, items: Thunk) -> Value:
    return _concat_map_strings_sep(evaluator, place, ready(""), function, items)


@_known("stringLength", arity=1, builtin=True)
def _string_length(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    return len(_string(evaluator, value, place).encode())


@_known("hasPrefix", arity=2)
def _has_prefix(evaluator: Evaluator, place: Place | None, prefix: Thunk, value: Thunk) -> Value:
    return _string(evaluator, value, place).startswith(_string(evaluator, prefix, place))


@_known("hasSuffix", arity=2)
def _has_suffix(evaluator: Evaluator, place: Place | None, suffix: Thunk, value: Thunk) -> Value:
    return _string(evaluator, value, place).endswith(_string(evaluator, suffix, place))


@_known("removePrefix", arity=2)
def _remove_prefix(evaluator: Evaluator, place: Place | None, prefix: Thunk, value: Thunk) -> Value:
    return _string(evaluator, value, place).removeprefix(_string(evaluator, prefix, place))


@_known("removeSuffix", arity=2)
def _remove_suffix(evaluator: Evaluator, place: Place | None, suffix: Thunk, value: Thunk) -> Value:
    return _string(evaluator, value, place).removesuffix(_string(evaluator, suffix, place))


@_known("toUpper", arity=1)
def _to_upper(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    return _string(evaluator, value, place).upper()


@_known("toLower", arity=1)
def _to_lower(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    return _string(evaluator, value, place).lower()


@_known("trim", arity=1)
def _trim(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    return _string(evaluator, value, place).strip(" \t\r\n")


@_known("splitString", arity=2)
def _split_string(evaluator: Evaluator, place: Place | None, separator: Thunk, value: Thunk) -> Value:
    between = _string(evaluator, separator, place)
    if not between:
        raise Fault(place, "splitString needs a separator")
    parts = _string(evaluator, value, place).split(between)
    return evaluator.checked_list((ready(part, place) for part in parts), place)


@_known("replaceStrings", arity=3, builtin=True)
def _replace_strings(
    evaluator: Evaluator, place: Place | None, old: Thunk, new: Thunk, value: Thunk
) -> Value:
    """The first of the old strings that matches at each place, as Nix does it."""
    pairs = [
        (_string(evaluator, a, place), _string(evaluator, b, place))
        for a, b in zip(_list(evaluator, old, place), _list(evaluator, new, place), strict=False)
    ]
    text = _string(evaluator, value, place)
    evaluator.burn(len(text) * max(1, len(pairs)) // 16, place)
    if any(not before for before, _ in pairs):
        raise Unknown(place, "replacing the empty string is only done by Nix")
    result, at, grown = [], 0, 0
    while at < len(text):
        before, after = next(((a, b) for a, b in pairs if text.startswith(a, at)), (text[at], text[at]))
        result.append(after)
        at += len(before)
        grown += len(after)
        if grown > STRING_MAX_CHARACTERS:
            break
    return evaluator.checked_string("".join(result), place)


@_known("escapeShellArg", arity=1)
def _escape_shell_arg(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    text = _as_string(evaluator, place, value.force())
    return evaluator.checked_string("'" + text.replace("'", "'\\''") + "'", place)


@_known("getExe", arity=1)
def _get_exe(evaluator: Evaluator, place: Place | None, package: Thunk) -> Value:
    value = package.force()
    if not isinstance(value, Package) or not value.name:
        raise Fault(place, f"{kind_of(value)} where a package is expected")
    return f"{STORE}{value.name}/bin/{program_of(value.name)}"


@_known("getExe'", arity=2)
def _get_exe_named(evaluator: Evaluator, place: Place | None, package: Thunk, name: Thunk) -> Value:
    return f"{evaluator.string(package.force(), place)}/bin/{_string(evaluator, name, place)}"


@_known("getBin", "getLib", "getDev", arity=1)
def _output(_: Evaluator, place: Place | None, package: Thunk) -> Value:
    return package.force()


# --- sets ---


@_known("optionalAttrs", arity=2)
def _optional_attrs(evaluator: Evaluator, place: Place | None, condition: Thunk, value: Thunk) -> Value:
    return value.force() if evaluator.truth(condition.force(), place) else AttrSet({})


@_known("attrNames", arity=1, builtin=True)
def _attr_names(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    return [ready(name, place) for name in sorted(evaluator.attrs(value.force(), place))]


@_known("attrValues", arity=1, builtin=True)
def _attr_values(evaluator: Evaluator, place: Place | None, value: Thunk) -> Value:
    attrs = evaluator.attrs(value.force(), place)
    return [attrs[name] for name in sorted(attrs)]


@_known("hasAttr", arity=2, builtin=True)
def _has_attr(evaluator: Evaluator, place: Place | None, name: Thunk, value: Thunk) -> Value:
    return _string(evaluator, name, place) in evaluator.attrs(value.force(), place)


@_known("getAttr", arity=2, builtin=True)
def _get_attr(evaluator: Evaluator, place: Place | None, name: Thunk, value: Thunk) -> Value:
    wanted = _string(evaluator, name, place)
    found = evaluator.select(value.force(), wanted, place)
    if found is None:
        raise Fault(place, f"there is no attribute {wanted!r} here")
    return found.force()


@_known("mapAttrs", arity=2, builtin=True)
def _map_attrs(evaluator: Evaluator, place: Place | None, function: Thunk, value: Thunk) -> Value:
    attrs = evaluator.attrs(value.force(), place)
    return AttrSet({n: _later(evaluator, place, function, ready(n), item) for n, item in attrs.items()})


@_known("mapAttrsToList", arity=2)
def _map_attrs_to_list(evaluator: Evaluator, place: Place | None, function: Thunk, value: Thunk) -> Value:
    attrs = evaluator.attrs(value.force(), place)
    return [_later(evaluator, place, function, ready(name), attrs[name]) for name in sorted(attrs)]


@_known("filterAttrs", arity=2)
def _filter_attrs(evaluator: Evaluator, place: Place | None, test: Thunk, value: Thunk) -> Value:
    attrs = evaluator.attrs(value.force(), place)
    kept = {n: item for n, item in attrs.items() if _holds(evaluator, place, test, ready(n), item)}
    return AttrSet(kept)


@_known("genAttrs", arity=2)
def _gen_attrs(evaluator: Evaluator, place: Place | None, names: Thunk, function: Thunk) -> Value:
    made = {}
    for name in _list(evaluator, names, place):
        made[_string(evaluator, name, place)] = _later(evaluator, place, function, name)
    return AttrSet(made)


@_known("nameValuePair", arity=2)
def _name_value_pair(_: Evaluator, place: Place | None, name: Thunk, value: Thunk) -> Value:
    return AttrSet({"name": name, "value": value})


@_known("listToAttrs", arity=1, builtin=True)
def _list_to_attrs(evaluator: Evaluator, place: Place | None, items: Thunk) -> Value:
    made: dict[str, Thunk] = {}
    for item in _list(evaluator, items, place):
        pair = evaluator.attrs(item.force(), place)
        if "name" not in pair or "value" not in pair:
            raise Fault(place, "listToAttrs takes sets with a name and a value")
        made.setdefault(_string(evaluator, pair["name"], place), pair["value"])
    return AttrSet(made)


@_known("removeAttrs", arity=2, builtin=True)
def _remove_attrs(evaluator: Evaluator, place: Place | None, value: Thunk, names: Thunk) -> Value:
    gone = {_string(evaluator, name, place) for name in _list(evaluator, names, place)}
    return AttrSet({n: i for n, i in evaluator.attrs(value.force(), place).items() if n not in gone})


@_known("recursiveUpdate", arity=2)
def _recursive_update(evaluator: Evaluator, place: Place | None, left: Thunk, right: Thunk) -> Value:
    merged = dict(evaluator.attrs(left.force(), place))
    for name, item in evaluator.attrs(right.force(), place).items():
        merged[name] = _updated(evaluator, place, merged[name], item) if name in merged else item
    return AttrSet(merged)


def _updated(evaluator: Evaluator, place: Place | None, left: Thunk, right: Thunk) -> Thunk:
    def merge() -> Value:
        if isinstance(left.force(), AttrSet) and isinstance(right.force(), AttrSet):
            return _recursive_update(evaluator, place, left, right)
        return right.force()

    return Thunk(right.place or place, merge)


# --- arguments ---


def _integer(thunk: Thunk, place: Place | None) -> int:
    value = thunk.force()
    if isinstance(value, bool) or not isinstance(value, int):
        raise Fault(place, f"{kind_of(value)} where an integer is expected")
    return value


def _string(evaluator: Evaluator, thunk: Thunk, place: Place | None) -> str:
    value = thunk.force()
    if not isinstance(value, str):
        return evaluator.string(value, place)
    return value


def _list(evaluator: Evaluator, thunk: Thunk, place: Place | None) -> Sequence[Thunk]:
    items = evaluator.items(thunk.force(), place)
    evaluator.burn(len(items), place)
    return items
