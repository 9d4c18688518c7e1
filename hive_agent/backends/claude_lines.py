"""Lines of the Claude Code CLI, made safe: bounded, and always one JSON object each.

What cannot be read never breaks a turn; it becomes a `note` line, so that somebody who watches
sees that something was left out.
"""

import json
import re
from collections.abc import Callable
from typing import Any

LINE_MAX_BYTES = 1024 * 1024  # larger ones are tool results (images); the conversation itself keeps them
HEAD_BYTES = 200  # of a line that could not be kept
HEAD_KEPT_BYTES = 4096  # so that no key that is cut in two is in the head
NOTE_SUBTYPE = "hyperhive_note"
CLEANED = "hyperhive_cleaned"

_REQUEST_HEAD = re.compile(
    rb'\s*\{\s*"type"\s*:\s*"control_request"\s*,\s*"request_id"\s*:\s*"([\w-]{1,64})"'
)
_RESULT_HEAD = re.compile(rb'\s*\{\s*"type"\s*:\s*"result"')


def note_line(text: str) -> dict[str, Any]:
    """A line of our own among the CLI's."""
    return {"type": "system", "subtype": NOTE_SUBTYPE, "text": text}


class LineSplitter:
    """Cuts a stream into lines without ever holding more than one line of the maximum size.

    `clean` sees every line before anything else does: it takes out secrets. A request is given as it is
    besides, with its cleaned form under `CLEANED`: what is decided about must be what will be done, and
    whatever is written to look like a secret would not be looked at.
    """

    def __init__(
        self, max_bytes: int = LINE_MAX_BYTES, *, clean: Callable[[bytes], bytes] = lambda line: line
    ) -> None:
        self._max_bytes = max_bytes
        self._head_bytes = min(HEAD_KEPT_BYTES, max_bytes)
        self._clean = clean
        self._held = bytearray()
        self._dropped_bytes = 0

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The lines that `chunk` completes."""
        *complete, rest = chunk.split(b"\n")
        lines = []
        for piece in complete:
            self._add(piece)
            lines += self._take()
        self._add(rest)
        return lines

    def finish(self) -> list[dict[str, Any]]:
        """What is left at the end of the stream: half a line at most."""
        return self._take()

    def _add(self, piece: bytes) -> None:
        room = self._max_bytes - len(self._held)
        if self._dropped_bytes or len(piece) > room:
            self._dropped_bytes += len(piece) + (0 if self._dropped_bytes else len(self._held))
            del self._held[self._head_bytes :]
            self._held += piece[: self._head_bytes - len(self._held)]
        else:
            self._held += piece

    def _take(self) -> list[dict[str, Any]]:
        whole, dropped_bytes = bytes(self._held), self._dropped_bytes
        line = self._clean(whole)
        self._held.clear()
        self._dropped_bytes = 0
        if dropped_bytes:
            return [_too_long(line, dropped_bytes, self._max_bytes)]
        if not line.strip():
            return []
        value = parse(line)
        asked = value if line == whole else parse(whole)
        if asked is value or asked.get("type") != "control_request":
            return [value]
        return [asked | {CLEANED: value.get("request")}]


def parse(line: bytes) -> dict[str, Any]:
    """The object on a line, or a note about what is there instead. NaN and infinities become null."""
    try:
        value = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        value = None
    if isinstance(value, dict):
        return value
    return note_line(f"not a JSON object: {_shown(line)}")


def _too_long(head: bytes, dropped_bytes: int, max_bytes: int) -> dict[str, Any]:
    text = f"a line of more than {max(dropped_bytes, max_bytes)} bytes was left out: {_shown(head)}"
    if (asked := _REQUEST_HEAD.match(head)) is not None:  # somebody waits for an answer
        return {
            "type": "control_request",
            "request_id": asked[1].decode(),
            "request": {"subtype": "too_long"},
        }
    if _RESULT_HEAD.match(head):  # it still ends the turn
        return {"type": "result", "subtype": "error_during_execution", "is_error": True, "result": text}
    return note_line(text)


def _shown(line: bytes) -> str:
    return line[:HEAD_BYTES].decode("utf-8", "replace")
