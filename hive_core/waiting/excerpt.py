"""A few words of what an agent wrote, for a list, a notification or another machine's screen (SECURITY 4).

What is left cannot break a line, reorder or hide text, be taken for markup of mail, chat or a terminal,
call somebody, or be made a link by a program that looks for addresses.
"""

import re
import unicodedata
from typing import Final

from hive_shared.redact import PATTERNS

READ_CHARACTERS: Final = 4096  # of a text; what is behind that is not looked at
MARKS_MAX: Final = 2  # on one letter: more than that is no writing
BLANK: Final = "·"  # in the place of what is taken out

_PLAIN: Final = frozenset(" ,;!?'\"()+-–—%=…“”‘’„«»€£°")
_SPACE: Final = re.compile(r"\s+")
_BLANKS: Final = re.compile(rf"{BLANK}(?:\s?{BLANK})+")
_STOP_WITHIN: Final = re.compile(r"([.:/]+)(?=\S)")  # of an address, a file's name, a scheme
_STOP: Final = frozenset(".:/")


def excerpt(text: str, limit: int) -> str:
    """One line of at most `limit` characters: the words of `text` without its secrets and its markup."""
    known = PATTERNS.clean_text(text[:READ_CHARACTERS])
    line = _SPACE.sub(" ", unicodedata.normalize("NFKC", known)).strip()
    line = _STOP_WITHIN.sub(BLANK, line)
    line = _BLANKS.sub(BLANK, "".join(_plain(line)))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _plain(line: str) -> list[str]:
    """The characters of `line`, each as it is or as a blank."""
    kept: list[str] = []
    marks = 0
    for character in line:
        kind = unicodedata.category(character)
        marks = marks + 1 if kind[0] == "M" else 0
        if marks > MARKS_MAX or kind == "Cf":
            continue
        harmless = kind[0] in "LM" or kind in ("Nd", "So") or character in _PLAIN or character in _STOP
        kept.append(character if harmless else BLANK)
    return kept
