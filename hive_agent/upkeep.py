"""Keeps a long conversation usable and cheap, between two messages (docs/decisions/0016).

- Over the watermark `compact_at`: notes are saved in a turn of the harness's own, then it is compacted.
- Over `reset_at`, where that is set: notes are saved while the prompt cache is still warm. A message that
  comes when it is cold begins a new conversation, which costs a small prompt instead of the large one.

Nothing here is tried again at once after it has failed, and nothing is forgotten when the harness ends
(`Context`). Messages wait meanwhile; core keeps them.
"""

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

from hive_agent.backends.base import Backend, Outcome
from hive_agent.context import TRY_AGAIN_SECONDS, Context
from hive_agent.turn import TurnRunner
from hive_shared.context_options import ContextOptions
from hive_shared.events import TurnStats

log = logging.getLogger(__name__)

NOTES_SECONDS: Final = 300.0  # for the turn that saves notes; then it is interrupted
GROWTH: Final = 1.1  # a conversation this much larger than it can get is worth compacting again
NOTES_AT_SHARE: Final = 0.6  # of the cache's time: early enough for the turn to find it warm
NOTES_FILE: Final = "notes.md"  # as the prompts name them
NOTES_DIRECTORY: Final = "notes"


class Due(StrEnum):
    """What is to be done now."""

    NOTHING = "nothing"
    COMPACT = "compact"
    NOTES = "notes"
    RESET = "reset"


class Upkeep:
    """Decides and does it. The harness holds the backend meanwhile, and takes no message."""

    def __init__(
        self,
        options: ContextOptions,
        context: Context,
        backend: Backend,
        runner: TurnRunner,
        *,
        prompt: Callable[[Due], str],
        state_dir: Path,
        begin_anew: Callable[[], Awaitable[None]],
        record: Callable[[TurnStats], None],
        note: Callable[[str], None],
        clock_ms: Callable[[], int],
        notes_seconds: float = NOTES_SECONDS,
    ) -> None:
        """`prompt` is what the turn for notes is asked; `record` counts what something has cost."""
        self._options = options
        self._context = context
        self._backend = backend
        self._runner = runner
        self._prompt = prompt
        self._state_dir = state_dir
        self._begin_anew = begin_anew
        self._record = record
        self._note = note
        self._clock_ms = clock_ms
        self._notes_seconds = notes_seconds
        self.running = False

    def due(self, *, before_message: bool = False) -> Due:
        """What the size of the conversation and the age of its last inference ask for."""
        kept, now_ms = self._context.kept, self._clock_ms()
        wait_ms = kept.not_before_ms - now_ms
        if 0 < wait_ms <= TRY_AGAIN_SECONDS[-1] * 1000 or self._backend.login.needed():
            return Due.NOTHING
        if self._is_over(self._options.reset_tokens(kept.window_tokens)):
            age_ms, cache_ms = now_ms - kept.inferred_at_ms, self._options.cache_seconds * 1000
            if before_message and age_ms >= cache_ms:
                return Due.RESET
            if not kept.noted and NOTES_AT_SHARE * cache_ms <= age_ms < cache_ms:
                return Due.NOTES
        can = self._backend.capabilities.compact and kept.floor_tokens >= 0
        mark = self._options.compact_tokens(kept.window_tokens)
        if can and not before_message and self._is_over(mark) and kept.tokens >= GROWTH * kept.floor_tokens:
            return Due.COMPACT
        return Due.NOTHING

    def _is_over(self, mark: int) -> bool:
        return 0 < mark <= self._context.tokens

    async def do(self, due: Due) -> None:
        """Does it, as far as it goes; what failed is due again after a pause."""
        self.running = True
        self._context.trying()
        try:
            done = await self._steps(due)
        except asyncio.CancelledError:
            self._context.stopped()
            raise
        except BaseException:
            self._context.failed()
            raise
        finally:
            self.running = False
        if done:
            self._context.succeeded()
        else:
            seconds = self._context.failed()
            self._note(f"the conversation stays as it is; the next attempt is in {seconds} s at the earliest")

    async def _steps(self, due: Due) -> bool:
        if not self._context.kept.noted and not await self._save_notes(due):
            return False
        match due:
            case Due.COMPACT:
                return await self._compact()
            case Due.RESET:
                return await self._reset()
        return True

    async def _save_notes(self, due: Due) -> bool:
        """Whether what comes next may come: the notes are saved, or compacting cannot wait for them."""
        self._note(f"the context has {self._size()}; saving notes before {_WHY[due]}")
        result = await self._runner.aside(self._prompt(due), "saving notes first", self._notes_seconds)
        self._record(result.stats)
        if result.outcome is Outcome.OK:
            self._context.noted()
            return True
        self._note(f"the notes were not saved: {result.note}")
        return due is Due.COMPACT and result.outcome is Outcome.OVERFLOW

    async def _compact(self) -> bool:
        result = await self._runner.compact()
        self._record(result.stats)
        if result.outcome is not Outcome.OK:
            return False
        self._context.compacted()  # also where there was nothing to compact
        return True

    async def _reset(self) -> bool:
        if not has_notes(self._state_dir):
            self._note(f"there are no notes in {NOTES_FILE}: the conversation is kept")
            return False
        self._note(f"the context has {self._size()}, and its cache is cold: beginning anew")
        await self._begin_anew()
        return True

    def _size(self) -> str:
        tokens, window = self._context.tokens, self._context.window_tokens
        return f"{tokens} tokens of {window}" if window else f"{tokens} tokens"


_WHY = {
    Due.COMPACT: "compacting",
    Due.NOTES: "the prompt cache is cold",
    Due.RESET: "beginning anew",
}


def has_notes(state_dir: Path) -> bool:
    """Whether there is anything to read where the prompts say that notes are."""
    try:
        found = os.lstat(state_dir / NOTES_FILE)
        if stat.S_ISREG(found.st_mode) and found.st_size > 0:
            return True
    except OSError:
        pass
    try:
        with os.scandir(state_dir / NOTES_DIRECTORY) as entries:
            return any(entry.is_file(follow_symlinks=False) for entry in entries)
    except OSError:
        return False
