"""The harness's own log lines: one line for one thing that happened, without credentials (SECURITY 4 and 13).

They go to the console of the container, between what other programs print there. A line tells of tools and
their arguments, so the model, or whoever talked to it, chooses words in it.
"""

import logging
import sys

from hive_shared.log_fields import words_of
from hive_shared.redact import PATTERNS

_PICTURES = 0x2400  # the block of "control pictures": ␊ for a newline, ␛ for escape


class LogLines(logging.Formatter):
    """`INFO hive_agent.tools: text msg=12`; no text can pass for a second line, or act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = PATTERNS.clean_text(record.getMessage()) + words_of(record)
        line = f"{record.levelname} {record.name}: {_one_line(text)}"
        if record.exc_info:
            trace = PATTERNS.clean_text(self.formatException(record.exc_info))
            line += "".join(f"\n  {_one_line(each)}" for each in trace.splitlines())
        return line


def log_to_stderr() -> None:
    """From now on, and for every logger of the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    code = ord(letter)
    return chr(_PICTURES + code) if code < 0x20 else f"\\u{code:04x}"
