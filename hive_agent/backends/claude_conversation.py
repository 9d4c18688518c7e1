"""Which conversation the next Claude Code process takes up.

Claude Code keeps conversations in `CLAUDE_CONFIG_DIR`, by working directory; `--continue` takes up the
latest one there and simply starts one if there is none. Its id is remembered in a file as well, because
an agent may itself run `claude` in `/state`, which would then be the latest; and because "start afresh"
must survive a restart of the harness. The file lies where the agent can write: it is read as data.
"""

import os
import re
from pathlib import Path

FILE_NAME = "hyperhive-conversation"
FRESH = "fresh"

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class Conversation:
    """The conversation to take up: a known one, the latest, or none."""

    def __init__(self, state_directory: Path) -> None:
        self._file = state_directory / FILE_NAME
        self._mark = _read(self._file)

    @property
    def id(self) -> str | None:
        """The known conversation, if it is known."""
        return self._mark if _ID.match(self._mark) else None

    def flags(self) -> list[str]:
        """The CLI's arguments."""
        if self._mark == FRESH:
            return []
        return ["--resume", self.id] if self.id else ["--continue"]

    def seen(self, session_id: str | None) -> None:
        """The CLI said which conversation it is in."""
        if session_id and _ID.match(session_id):
            self._remember(session_id)

    def forget(self) -> None:
        """The next process starts a new conversation."""
        self._remember(FRESH)

    def doubt(self) -> bool:
        """The known conversation could not be taken up: try the latest. False if that was it already."""
        if self.id is None:
            return False
        self._remember("")
        return True

    def _remember(self, mark: str) -> None:
        if mark == self._mark:
            return
        self._mark = mark
        fresh = self._file.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(mark)
            fresh.rename(self._file)
        except OSError:
            fresh.unlink(missing_ok=True)  # a full disk costs the memory across restarts, nothing more


def _read(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            mark = opened.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return mark if mark == FRESH or _ID.match(mark) else ""
