"""What the harness remembers about its session across restarts, and how it waits out limits."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from hive_shared.agent_options import MODEL_NAME
from hive_shared.errors import BadRequest

log = logging.getLogger(__name__)

SESSION_FILE = "hyperhive-session.json"
CLAUDE_MODELS = ("haiku", "sonnet", "opus")  # aliases that the CLI resolves; full names work too

BACKOFF_SECONDS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)  # overloaded, and nobody said until when
RESUME_MARGIN_SECONDS = 1.0  # past the named time, so that the first call is not refused again
RESUME_MIN_SECONDS = 1.0
RESUME_MAX_SECONDS = 8 * 86_400.0  # the longest limit is a week; anything above is garbage
CLOCK_SLICE_SECONDS = 30.0  # the wall clock is read again this often: it may be set, the host may sleep


def check_model(model: str) -> str:
    """`model` if it can be a model's name (it becomes a program argument); else raises `BadRequest`."""
    if not MODEL_NAME.match(model):
        raise BadRequest(
            f"model {model[:40]!r}: such as {', '.join(CLAUDE_MODELS)}: letters, digits and ._:/@[]-",
            field="model",
        )
    return model


class Session:
    """The model that the operator chose at run time, kept in the agent's state."""

    def __init__(self, state_dir: Path, default_model: str) -> None:
        self._file = state_dir / SESSION_FILE
        self._default_model = default_model
        self._override = self._load()

    @property
    def model(self) -> str:
        return self._override or self._default_model

    def choose(self, model: str) -> bool:
        """Use `model` from now on; False if it could not be saved and lasts until a restart only."""
        self._override = check_model(model)
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({"model": model}))
            fresh.replace(self._file)
        except OSError as error:
            log.warning("%s: %s; the model lasts until the next restart", self._file, error)
            return False
        return True

    def _load(self) -> str | None:
        try:
            kept = json.loads(self._file.read_text())
            return check_model(kept["model"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, BadRequest) as error:
            log.warning("%s: %s; using the configured model", self._file, error)
            return None


def resume_time_ms(now_ms: int, named_ms: int | None, attempt: int) -> int:
    """When to try again after limit number `attempt` (from 0): the named time, or a growing wait."""
    if named_ms is None:
        return now_ms + int(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)] * 1000)
    wait_seconds = (named_ms - now_ms) / 1000 + RESUME_MARGIN_SECONDS
    if wait_seconds < RESUME_MIN_SECONDS:  # a time already past says nothing: grow as if none was named
        return resume_time_ms(now_ms, None, attempt)
    return now_ms + int(min(wait_seconds, RESUME_MAX_SECONDS) * 1000)


async def wait_until_ms(deadline_ms: int, nudge: asyncio.Event, clock_ms: Callable[[], int]) -> None:
    """Return at the wall-clock time `deadline_ms`, or when `nudge` is set (and clear it).

    Never later than in the time that it is until then by the clock of now: that may be set back.
    """
    until = time.monotonic() + (deadline_ms - clock_ms()) / 1000
    while not nudge.is_set():
        left_seconds = min((deadline_ms - clock_ms()) / 1000, until - time.monotonic())
        if left_seconds <= 0:
            break
        try:
            async with asyncio.timeout(min(left_seconds, CLOCK_SLICE_SECONDS)):
                await nudge.wait()
        except TimeoutError:
            continue
    nudge.clear()


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
