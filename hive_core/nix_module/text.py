"""The text of Nix strings: escapes, and the indentation of `''` strings, as Nix itself does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class Piece:
    """A stretch of a string's source. None as text stands for an interpolation."""

    text: str | None
    escaped: bool = False  # it came from an escape: never counts as indentation


def unescaped(text: str) -> str:
    """`\\n`, `''\\n` or `'''` as what they mean."""
    if text == "'''":
        return "''"
    character = text[-1]
    return _ESCAPES.get(character, character)


def without_indentation(pieces: Sequence[Piece]) -> list[str | None]:
    """The pieces of an indented string, each without the indentation that all lines have in common."""
    opened = _without_first_line(pieces)
    smallest = _indentation(opened)
    stripped = _strip(opened, smallest)
    if stripped and (last := stripped[-1]) is not None:
        head, newline, tail = last.rpartition("\n")
        if newline and not tail.strip(" "):
            stripped[-1] = head + newline
    return stripped


def _without_first_line(pieces: Sequence[Piece]) -> list[Piece]:
    """Spaces and a newline right after the opening quotes belong to the quotes."""
    if not pieces or pieces[0].text is None or pieces[0].escaped:
        return list(pieces)
    blank, newline, rest = pieces[0].text.partition("\n")
    if not newline or blank.strip(" "):
        return list(pieces)
    return [Piece(rest), *pieces[1:]]


def _indentation(pieces: Sequence[Piece]) -> int:
    smallest, current, at_start = 10**6, 0, True
    for piece in pieces:
        if piece.text is None or piece.escaped:
            if at_start:
                at_start, smallest = False, min(smallest, current)
            continue
        for character in piece.text:
            if at_start and character == " ":
                current += 1
            elif character == "\n":
                current, at_start = 0, True
            elif at_start:
                at_start, smallest = False, min(smallest, current)
    return smallest


def _strip(pieces: Sequence[Piece], indentation: int) -> list[str | None]:
    result: list[str | None] = []
    dropped, at_start = 0, True
    for piece in pieces:
        if piece.text is None:
            dropped, at_start = 0, False
            result.append(None)
            continue
        kept = []
        for character in piece.text:
            if at_start and character == " ":
                dropped += 1
                if dropped <= indentation:
                    continue
            else:
                at_start, dropped = character == "\n", 0
            kept.append(character)
        result.append("".join(kept))
    return result
