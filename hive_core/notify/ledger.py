"""Which targets were told of what: the outbox that survives a restart.

What is to be sent is never stored, since it follows from the queue: everything that waits now and was not
told. So nothing is lost, and what was settled meanwhile is not sent any more. A small file beside the
database, written anew each time; when a notification is under way, that is written before.
"""

import json
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger(__name__)

FORGOTTEN_MS: Final = 3_600_000  # an agent that needs a login again within an hour is no news
FILE_MAX_BYTES: Final = 16 * 2**20


class TargetPage(BaseModel):
    """What one target was told: by key when, and since when that waits no more."""

    model_config = ConfigDict(extra="forbid")

    told: dict[str, int] = {}
    gone: dict[str, int] = {}
    sending: list[str] = []  # not known whether they were delivered, if core ended just then
    told_last_ms: int = 0
    failures: int = 0
    failed_last_ms: int = 0

    def untold(self, keys: list[str]) -> list[str]:
        return [key for key in keys if key not in self.told]

    def began(self, keys: list[str]) -> None:
        self.sending = keys

    def succeeded(self, keys: list[str], now_ms: int) -> None:
        self.told |= dict.fromkeys(keys, now_ms)
        self.told_last_ms, self.failures, self.sending = now_ms, 0, []

    def failed(self, now_ms: int) -> None:
        self.failures, self.failed_last_ms, self.sending = self.failures + 1, now_ms, []

    def tidy(self, waiting: set[str], now_ms: int) -> bool:
        """Note what waits no more, and forget it after an hour; returns whether that changed anything."""
        before = (dict(self.gone), len(self.told))
        self.gone = {key: self.gone.get(key, now_ms) for key in self.told if key not in waiting}
        for key, since_ms in list(self.gone.items()):
            if not since_ms <= now_ms < since_ms + FORGOTTEN_MS:
                del self.gone[key], self.told[key]
        return (self.gone, len(self.told)) != before


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int
    targets: dict[str, TargetPage]


class Ledger:
    """The pages of all targets, and their file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._versions = 0
        self._written = 0
        self._writing = threading.Lock()
        self.pages: dict[str, TargetPage] = {}

    def read(self, targets: list[str]) -> None:
        """The pages of `targets`; others are forgotten. A file that makes no sense is told and left out."""
        stored: dict[str, TargetPage] = {}
        try:
            with self._path.open("rb") as file:
                content = file.read(FILE_MAX_BYTES)
            stored = _File.model_validate_json(content).targets
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its content makes no sense"
            log.warning("%s: %s; what still waits is notified again", self._path, reason)
        self.pages = {target: stored.get(target, TargetPage()) for target in targets}

    def write_later(self) -> Callable[[], None]:
        """What writes the pages as they are now, in whatever thread; raises `OSError` there.

        Durably, in the place of the file. Of two, the newer pages stay, whichever comes last.
        """
        pages = {target: page.model_dump() for target, page in self.pages.items()}
        content = json.dumps({"version": 1, "targets": pages}, separators=(",", ":")).encode()
        self._versions += 1
        return partial(self._write, content, self._versions)

    def _write(self, content: bytes, version: int) -> None:
        with self._writing:
            if version > self._written:
                self._replace(content)
                self._written = version

    def _replace(self, content: bytes) -> None:
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
