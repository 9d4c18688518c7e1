"""How large the agent's conversation is, as the lines of the backend tell, and what is to be done about it.

The size is that of the last inference's prompt: a sum over a turn, which is what is billed, is a multiple of
it. It is kept in the agent's state, so that a restart of the harness neither forgets what is due nor tries
for ever what kills it. The file lies where the agent can write: it is read as data.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hive_agent.backends.claude_command import read_small_file
from hive_agent.session import wall_clock_ms

log = logging.getLogger(__name__)

CONTEXT_FILE: Final = "hyperhive-context.json"
FILE_MAX_BYTES: Final = 4096
TRY_AGAIN_SECONDS: Final = (60, 300, 900, 3600)  # after attempts that failed; the last one repeats

_PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_SYNTHETIC = "<synthetic>"  # words of the CLI itself, without an inference

Count = Annotated[int, Field(ge=0, le=2**53)]


class Kept(BaseModel):
    """What is known of the conversation. 0 tokens: not known, or none so far."""

    model_config = ConfigDict(extra="ignore")

    tokens: Count = 0
    window_tokens: Count = 0  # what the model can take
    inferred_at_ms: Count = 0  # when the prompt was last read: the cache is as old
    floor_tokens: Annotated[int, Field(ge=-1, le=2**53)] = 0  # after the last compaction; -1: not seen yet
    fresh: bool = False  # begun anew, and nothing was said in it yet
    noted: bool = False  # notes were saved, and no turn has begun since
    trying: bool = False  # an attempt to make it shorter is under way, or was when the harness ended
    failures: Annotated[int, Field(ge=0, le=1000)] = 0
    not_before_ms: Count = 0  # of the next attempt


class Context:
    """The conversation's size. `see` takes every line of the backend; changes of state are kept at once."""

    def __init__(self, state_dir: Path, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._file = state_dir / CONTEXT_FILE
        self._clock_ms = clock_ms
        self._model = ""
        self.kept = _load(self._file)
        self.on_change: list[Callable[[], None]] = []
        if self.kept.trying:
            self.failed()

    @property
    def tokens(self) -> int:
        return self.kept.tokens

    @property
    def window_tokens(self) -> int:
        return self.kept.window_tokens

    # --- what the backend tells ---

    def see(self, line: dict[str, Any]) -> None:
        """Take one stream-json line into account; unknown and odd ones tell nothing."""
        before = (self.tokens, self.window_tokens)
        match line.get("type"), line.get("subtype"):
            case "assistant", _:
                self._see_answer(line)
            case "result", _:
                self._see_models(_object(line.get("modelUsage")))
            case "system", "compact_boundary":
                self.kept.tokens = _count(_object(line.get("compact_metadata")), "post_tokens")
                self.compacted()
        if before != (self.tokens, self.window_tokens):
            self._tell()

    def _see_answer(self, line: dict[str, Any]) -> None:
        message = _object(line.get("message"))
        if message.get("model") == _SYNTHETIC or line.get("parent_tool_use_id") is not None:
            return
        model, usage = message.get("model"), _object(message.get("usage"))
        self._model = model if isinstance(model, str) else self._model
        size = sum(_count(usage, part) for part in _PROMPT)
        if size > 0:
            self.kept.tokens, self.kept.inferred_at_ms = size, self._clock_ms()

    def _see_models(self, models: dict[str, Any]) -> None:
        """The window of the model that spoke; by another name, of the one that read most."""
        told = {name: _object(usage) for name, usage in models.items()}

        def fits(name: str) -> tuple[bool, int]:
            read = _count(told[name], "inputTokens") + _count(told[name], "cacheReadInputTokens")
            return name == self._model, read

        for name in sorted(told, key=fits, reverse=True)[:1]:
            self.kept.window_tokens = _count(told[name], "contextWindow") or self.kept.window_tokens

    # --- what the harness does ---

    def turn_began(self) -> None:
        """A message is worked on: notes of before are no longer the newest."""
        if self.kept.noted:
            self.kept.noted = False
            self._save()

    def turn_ended(self, *, ok: bool) -> None:
        """The first turn after a compaction tells how small a conversation can get."""
        if ok or self.tokens > 0:
            self.kept.fresh = False
        if self.kept.floor_tokens < 0 < self.tokens:
            self.kept.floor_tokens = self.tokens
        self._save()

    def compacted(self) -> None:
        """How small it has become, the next turn tells; until then it is not compacted again."""
        self.kept.floor_tokens = -1

    def forget(self) -> None:
        """The next turn begins a new conversation."""
        self.kept = Kept(window_tokens=self.kept.window_tokens, fresh=True)
        self._save()
        self._tell()

    def another_model(self) -> None:
        """Its window is another one; the next turn tells."""
        self.kept.window_tokens = 0
        self._save()
        self._tell()

    # --- attempts to make it shorter ---

    def trying(self) -> None:
        self.kept.trying = True
        self._save()

    def noted(self) -> None:
        """Notes were saved; the attempt goes on."""
        self.kept.noted = True
        self._save()

    def succeeded(self) -> None:
        self.kept.trying, self.kept.failures, self.kept.not_before_ms = False, 0, 0
        self._save()

    def stopped(self) -> None:
        """The harness is told to end in the middle: that is nobody's failure."""
        self.kept.trying = False
        self._save()

    def failed(self) -> int:
        """Wait longer and longer before the next attempt; how many seconds."""
        seconds = TRY_AGAIN_SECONDS[min(self.kept.failures, len(TRY_AGAIN_SECONDS) - 1)]
        self.kept.trying = False
        self.kept.failures = min(self.kept.failures + 1, 1000)
        self.kept.not_before_ms = self._clock_ms() + seconds * 1000
        self._save()
        return seconds

    def _tell(self) -> None:
        for callback in self.on_change:
            callback()

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self.kept.model_dump_json())
            fresh.replace(self._file)
        except OSError as error:
            log.warning("%s: %s; the size of the context is known until the next restart", self._file, error)


def _load(file: Path) -> Kept:
    try:
        return Kept.model_validate_json(read_small_file(file, FILE_MAX_BYTES) or b"{}")
    except ValidationError as error:
        log.warning("%s: %d errors; taken as nothing known", file, error.error_count())
        return Kept()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < 2**53 else 0
