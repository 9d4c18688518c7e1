"""Nix source as a syntax tree, with errors that name path, line and column.

The source is hostile. The parser recovers from every error, at a price: a megabyte of random brackets takes
it many seconds. So size, time and nesting are bounded, and while it parses other threads go on.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import tree_sitter_nix
from tree_sitter import Language, Node, Parser, Point

from hive_shared.errors import HiveError

SOURCE_MAX_BYTES = 256 * 1024
PARSE_SECONDS = 3.0
NESTING_MAX = 200
CHUNK_BYTES = 4096
SHOWN_CHARACTERS = 40

_CLOSERS = {"{": "}", "[": "]", "(": ")", "${": "}", '"': '"', "''": "''"}

_NIX = Language(tree_sitter_nix.language())


@dataclass(frozen=True)
class Place:
    """Where something stands in the source. Line and column count from one."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


class SyntaxFault(HiveError):
    """The source is not Nix."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"{place}: {what}")
        self.place = place


@dataclass(frozen=True, eq=False)
class Source:
    """One parsed file. `path` is relative to the configuration's top."""

    path: str
    data: bytes
    root: Node = field(repr=False)

    @cached_property
    def expression(self) -> Node:
        """The file's one expression."""
        return child(self.root, "expression")

    def text(self, node: Node) -> str:
        return self.data[node.start_byte : node.end_byte].decode()

    def place(self, node: Node) -> Place:
        return _place(self.path, self.data, node)


def parse(path: str, data: bytes) -> Source:
    """Parse one file; raises `SyntaxFault` at its first error."""
    start = Place(path, 1, 1)
    if len(data) > SOURCE_MAX_BYTES:
        raise SyntaxFault(start, f"larger than {SOURCE_MAX_BYTES // 1024} KiB, the limit of one file")
    _check_text(path, data)
    root = tree_of(data, PARSE_SECONDS)
    if root is None:
        raise SyntaxFault(start, f"not parsed within {PARSE_SECONDS:g} seconds; it is hardly a module")
    for node, depth in walk(root):
        if node.is_error or node.is_missing:
            raise _explained(path, data, node)
        if depth > NESTING_MAX:
            raise SyntaxFault(_place(path, data, node), f"nested deeper than {NESTING_MAX} levels")
    if root.child_by_field_name("expression") is None:
        raise SyntaxFault(start, "there is no expression in this file; the least is `{ }`")
    return Source(path, data, root)


def tree_of(data: bytes, within_seconds: float) -> Node | None:
    """The syntax tree, errors included; None if it takes too long."""
    ends = time.monotonic() + within_seconds

    def read(offset: int, _: Point) -> bytes:
        return data[offset : offset + CHUNK_BYTES]

    try:
        # What the callback is for besides the time: between its calls other threads of core may run.
        tree = Parser(_NIX).parse(read, progress_callback=lambda *_: time.monotonic() > ends)
    except ValueError:
        return None
    return tree.root_node


def walk(root: Node) -> Iterator[tuple[Node, int]]:
    """Every node in the order of the source, with its depth; recursion is no limit."""
    cursor = root.walk()
    depth = 0
    while True:
        node = cursor.node
        if node is not None:
            yield node, depth
        if cursor.goto_first_child():
            depth += 1
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            depth -= 1


def child(node: Node, name: str) -> Node:
    """The child that a whole tree always has there."""
    found = node.child_by_field_name(name)
    if found is None:
        raise ValueError(f"a {node.type} without {name}")
    return found


def _within(node: Node) -> tuple[Node, str]:
    """What of a stretch that could not be read is told: an error within it, or what it leaves open."""
    for inner, depth in walk(node):
        if depth and inner.is_error:
            return inner, ""
    opened = []
    for part in node.children:
        if part.type in _CLOSERS:
            opened.append(part)
        elif opened and part.type == _CLOSERS[opened[-1].type]:
            opened.pop()
    return (opened[-1], f"this {opened[-1].type!r} is never closed") if opened else (node, "")


def _check_text(path: str, data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SyntaxFault(Place(path, line, 1), "not UTF-8 text") from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise SyntaxFault(Place(path, line, 1), "holds a NUL byte")


def _place(path: str, data: bytes, node: Node) -> Place:
    line_start = data.rfind(b"\n", 0, node.start_byte) + 1
    column = len(data[line_start : node.start_byte].decode("utf-8", "replace")) + 1
    return Place(path, node.start_point.row + 1, column)


def _explained(path: str, data: bytes, node: Node) -> SyntaxFault:
    place = _place(path, data, node)
    if node.is_missing:
        wanted = "a value" if node.type == "identifier" else f"'{node.type}'"
        return SyntaxFault(place, f"syntax error: {wanted} is missing here")
    if node.start_point.row != node.end_point.row:
        node, what = _within(node)
        if what:
            return SyntaxFault(_place(path, data, node), f"syntax error: {what}")
    place = _place(path, data, node)
    text = data[node.start_byte : node.end_byte].decode("utf-8", "replace").strip()
    if not text:
        return SyntaxFault(place, "syntax error")
    first = text.splitlines()[0]
    shown = first if len(first) <= SHOWN_CHARACTERS else first[:SHOWN_CHARACTERS] + "…"
    hint = "; is a ';' missing before it?" if text.startswith("=") else ""
    return SyntaxFault(place, f"syntax error: unexpected {shown!r}{hint}")
