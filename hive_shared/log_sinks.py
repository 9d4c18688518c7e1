"""Where structured log lines go: systemd's journal with fields of their own, or JSON, one object a line.

The texts are those of the plain formatter, which has made them harmless: an agent's words can neither be a
second line, nor a field. Journal: systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), without
its Python package; which is spoken only when our standard error is the journal (JOURNAL_STREAM,
systemd.exec(5)).
"""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from hive_shared.log_fields import JOURNAL_NAMES, fields_of

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")
MESSAGE_MAX_BYTES: Final = 48 * 1024  # a datagram takes more; beyond that the protocol wants a sealed file

Text = Callable[[logging.LogRecord], str]

_PRIORITIES: Final = (  # of syslog, as sd-daemon(3) has them
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)


def priority_of(record: logging.LogRecord) -> int:
    """The syslog priority of its level."""
    return next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)


def stderr_is_the_journal(environment: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Whether systemd connected our standard error to its journal, and nobody changed that since."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class JsonLines(logging.Formatter):
    """One JSON object a line; nothing but ASCII is in it, so nothing acts on a terminal."""

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._text(record),
        }
        for name, values in fields_of(record).items():
            line[name] = values[0] if len(values) == 1 else list(values)
        return json.dumps(line)


class JournalHandler(logging.Handler):
    """Hands each record to the journal; what it does not take goes to standard error with its priority.

    It never waits: a journal that is stuck must not hold up the hive.
    """

    def __init__(
        self,
        text: Text,
        identifier: str,
        path: Path = JOURNAL_SOCKET,
        instead: IO[str] | None = None,
    ) -> None:
        super().__init__()
        self._text = text
        self._identifier = identifier
        self._path = str(path)
        self._instead = instead or sys.stderr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._text(record)
            try:
                self._socket.sendto(encoded(self._fields(record, text)), self._path)
            except OSError:
                self._instead.write(f"<{priority_of(record)}>{text}\n")
                self._instead.flush()
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord, text: str) -> Iterable[tuple[str, str]]:
        yield "MESSAGE", text
        yield "PRIORITY", str(priority_of(record))
        yield "SYSLOG_IDENTIFIER", self._identifier
        yield "LOGGER", record.name
        yield "CODE_FILE", record.pathname
        yield "CODE_LINE", str(record.lineno)
        yield "CODE_FUNC", record.funcName or ""
        for name, values in fields_of(record).items():
            for value in values:
                yield JOURNAL_NAMES[name], str(value)


def encoded(fields: Iterable[tuple[str, str]]) -> bytes:
    """One entry as the journal reads it; a value of several lines goes with its length before it."""
    entry = bytearray()
    for name, value in fields:
        data = value.encode("utf-8", "backslashreplace")[:MESSAGE_MAX_BYTES]
        if b"\n" in data:
            entry += name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
        else:
            entry += name.encode() + b"=" + data + b"\n"
    return bytes(entry)


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
