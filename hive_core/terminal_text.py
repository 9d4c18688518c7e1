"""Text that agents wrote, made harmless for a terminal (SECURITY 4).

A message body, a log line or a note can carry escape sequences that clear the screen, retitle the
window, forge what was printed before or write to the clipboard, and bidirectional or invisible
characters that make a text read as something else. Nothing is dropped: each such character is
shown as what it is, so that the operator sees that somebody tried.
"""

import json
import re
import unicodedata
from typing import Any

# C0 without tab and newline, DEL, C1; then what reorders, hides or breaks lines:
# soft hyphen, Arabic letter mark, Hangul fillers and Mongolian separator, zero-width and directional marks,
# line and paragraph separators, embeddings and overrides, word joiners and isolates, BOM, interlinear
# annotation, tag characters; and lone surrogates, which no terminal encoding can take.
_DANGEROUS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"
    r"\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    r"\ufff9-\ufffb\U000e0000-\U000e007f"
    r"\ud800-\udfff"
)
_IN_TEXT = re.compile(f"[{_DANGEROUS}]")
_IN_LINE = re.compile(f"[{_DANGEROUS}\t\n]")

_JOINER = "\u200d"  # holds emoji of several parts together; harmless there, and common
_MARKS_MAX = 4  # characters in one column of a row: more marks than that on a letter are no writing
_PICTURES = 0x2400  # the block of "control pictures": ␛ for escape, ␍ for carriage return


def clean(text: str) -> str:
    """`text` with newlines and tabs kept and everything else that could act on a terminal made visible."""
    return _IN_TEXT.sub(_visible, text.replace("\r\n", "\n"))


def clean_line(text: str) -> str:
    """As `clean`, and on one line: `\\n` becomes ␊, so that a value cannot forge a line of output."""
    return _IN_LINE.sub(_visible, text)


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON that is safe to print: what `clean` would show is escaped, so nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _IN_TEXT.sub(_json_escape, text)


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return "␡"
    if character == _JOINER:
        return _joiner_in(match)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _joiner_in(match: re.Match[str]) -> str:
    """The joiner stays between two symbols (family and profession emoji) and is shown elsewhere."""
    text, at = match.string, match.start()
    before, after = text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    joins = _is_symbol(before) and _is_symbol(after)
    return _JOINER if joins else "\\u200d"


def _is_symbol(character: str) -> bool:
    return character != "" and (
        ord(character) >= 0x1F000 or 0x2600 <= ord(character) <= 0x27BF or character == "\ufe0f"
    )


def _json_escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def fold(line: str, width: int, hang: str = "") -> list[str]:
    """One cleaned line as rows of at most `width` columns, every row but the first beginning with `hang`.

    A terminal folds a long line itself, and begins the next row in the first column: there the rest of
    a line could pass for a heading or for a line of another kind.
    """
    rows: list[str] = []
    start, lead = 0, ""
    while (end := _end_of_row(line, start, max(2, width - len(lead)))) < len(line):
        space = line.rfind(" ", end - (end - start) // 4, end) + 1  # after a word that ends late in the row
        end = space or end
        rows.append(lead + line[start:end])
        start, lead = end, hang
    return [*rows, lead + line[start:]]


def _end_of_row(line: str, start: int, width: int) -> int:
    """Where the row that begins at `start` is full; a character that takes no column has its room too."""
    full = min(len(line), start + width)
    if line.isascii() or line[start:full].isascii():
        return full
    columns = 0
    for at in range(start, min(len(line), start + _MARKS_MAX * width)):
        columns += columns_of(line[at])
        if columns > width:
            return at
    return min(len(line), start + _MARKS_MAX * width)


def columns_of(character: str) -> int:
    """How many columns a terminal gives to one character."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
