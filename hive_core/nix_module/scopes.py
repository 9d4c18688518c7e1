"""Names that nothing binds: Nix refuses a file with one before it evaluates anything, and so do we."""

from collections.abc import Iterable, Mapping

from tree_sitter import Node

from hive_core.nix_module.parse import Source, child
from hive_core.nix_module.values import Fault

# Names that Nix knows besides those that are evaluated here.
_OTHER_GLOBALS = frozenset({"derivationStrict", "fromTOML", "scopedImport", "break"})


def check_names(source: Source, known: Mapping[str, object] | Iterable[str]) -> None:
    """Raises `Fault` at a variable that nothing can bind. Within `with`, anything may be bound."""
    names = frozenset(known) | _OTHER_GLOBALS
    # Not by recursion: (what to look at, the names that it sees; None within `with`).
    waiting: list[tuple[Node, frozenset[str] | None]] = [(source.expression, names)]
    while waiting:
        node, seen = waiting.pop()
        if seen is None:
            continue
        if node.type == "variable_expression":
            _check(source, node, seen)
        else:
            waiting.extend(reversed(list(_inner(source, node, seen))))


def _check(source: Source, node: Node, seen: frozenset[str]) -> None:
    name = source.text(node)
    if name not in seen and not name.startswith("__"):
        raise Fault(source.place(node), f"undefined variable {name!r}")


def _inner(source: Source, node: Node, seen: frozenset[str]) -> Iterable[tuple[Node, frozenset[str] | None]]:
    match node.type:
        case "with_expression":
            return [(child(node, "environment"), seen), (child(node, "body"), None)]
        case "function_expression":
            inside = seen | _formals(source, node)
            return [(part, inside) for part in node.named_children if part.type != "identifier"]
        case "let_expression" | "rec_attrset_expression" | "let_attrset_expression":
            inside = seen | _bound(source, node)
            return [(part, inside) for part in node.named_children]
        case "inherit_from":
            return [(child(node, "expression"), seen)]
        case "inherit":
            return []  # looked at where it is needed: `let inherit (x) y; in` and sets differ
        case _:
            return [(part, seen) for part in node.named_children]


def _formals(source: Source, node: Node) -> frozenset[str]:
    universal = node.child_by_field_name("universal")
    names = {source.text(universal)} if universal else set()
    formals = node.child_by_field_name("formals")
    if formals is not None:
        for formal in formals.children_by_field_name("formal"):
            names.add(source.text(child(formal, "name")))
    return frozenset(names)


def _bound(source: Source, node: Node) -> frozenset[str]:
    names: set[str] = set()
    for part in node.named_children:
        if part.type != "binding_set":
            continue
        for binding in part.named_children:
            if binding.type == "binding":
                names.add(source.text(child(binding, "attrpath").named_children[0]).strip('"'))
            elif binding.type in ("inherit", "inherit_from"):
                names.update(source.text(attr).strip('"') for attr in child(binding, "attrs").named_children)
    return frozenset(names)
