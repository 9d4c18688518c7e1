"""The harness's own SQLite file: events and turn stats. It is a convenience, never a reason to fail.

Any SQLite error (disk full, file corrupt, directory read-only) switches to no-store mode: the
harness works on, remembers a little in memory, and tries again a minute later.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
BUSY_MS = 200  # somebody else reads the file: a wait this short does not hold up the turn

SCHEMA = """
CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_at ON event (at_ms);
CREATE TABLE IF NOT EXISTS turn (
    id INTEGER PRIMARY KEY, started_at_ms INTEGER NOT NULL, duration_ms INTEGER NOT NULL, message_id INTEGER,
    outcome TEXT NOT NULL, model TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL, cache_creation_tokens INTEGER NOT NULL, context_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL, tools TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS turn_started ON turn (started_at_ms);
CREATE TABLE IF NOT EXISTS untold (key TEXT PRIMARY KEY, turn TEXT NOT NULL) WITHOUT ROWID;
"""  # noqa: E501 - one table a line reads better

Row = Sequence[Any]


class Database:
    """A SQLite file that may fail at any time. Nothing here raises `sqlite3.Error`."""

    def __init__(self, path: Path, retry_seconds: float = RETRY_SECONDS) -> None:
        self.path = path
        self._retry_seconds = retry_seconds
        self._connection: sqlite3.Connection | None = None
        self._failing_since: float | None = None
        self.why_not = ""  # the reason of no-store mode, for the page
        self._open()

    @property
    def storing(self) -> bool:
        """Whether the last write worked."""
        return self._failing_since is None

    def write(self, statement: str, rows: Iterable[Row]) -> bool:
        """Run `statement` for each row in one transaction; False if nothing was stored."""
        connection = self._usable()
        if connection is None:
            return False
        try:
            with connection:
                connection.executemany(statement, rows)
        except (sqlite3.Error, OverflowError) as error:
            self._failed(error)
            return False
        self._failing_since = None
        self.why_not = ""
        return True

    def read(self, query: str, parameters: Row = ()) -> list[Any]:
        """The rows, or none if the file cannot be read; a full disk can still be read from."""
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            self._failed(error)
            return []

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _usable(self) -> sqlite3.Connection | None:
        """The connection, unless a write failed less than a minute ago."""
        if self._failing_since is not None:
            if time.monotonic() - self._failing_since < self._retry_seconds:
                return None
            self._failing_since = time.monotonic()
            if self._connection is None:
                self._open()
        return self._connection

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_MS / 1000, isolation_level="IMMEDIATE")
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        try:
            # A process that is killed loses nothing; a host that loses power may lose the last events.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(SCHEMA)
        except sqlite3.Error as error:
            connection.close()
            self._failed(error)
            return
        self._connection = connection

    def _failed(self, error: Exception) -> None:
        if self._failing_since is None:
            log.warning("%s: %s; events are kept in memory only", self.path, error)
        self._failing_since = time.monotonic()
        self.why_not = f"{self.path.name}: {error}"
