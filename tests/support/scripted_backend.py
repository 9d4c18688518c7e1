"""A backend for tests of the harness: it ends each turn as the test says. Obeys `base.Backend`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hive_agent.backends.base import (
    BackendEvent,
    Capabilities,
    Login,
    LoginStage,
    NoLogin,
    Outcome,
    StreamLine,
    TurnResult,
)
from hive_shared.events import TurnStats


class ScriptedLogin:
    """A login that the test completes."""

    def __init__(self) -> None:
        self.is_needed = True
        self.stage = LoginStage.NONE
        self.codes: list[str] = []

    def needed(self) -> bool:
        return self.is_needed

    def state(self) -> dict[str, Any]:
        return {"needed": self.is_needed, "stage": self.stage.value, "url": None, "message": ""}

    async def start(self) -> None:
        self.stage = LoginStage.AWAITING_CODE

    async def code(self, text: str) -> None:
        self.codes.append(text)
        self.stage, self.is_needed = LoginStage.DONE, False

    async def cancel(self) -> None:
        self.stage = LoginStage.NONE


class ScriptedBackend:
    """Each turn takes the next of `outcomes` (`OK` when there is none left); `hold` keeps it running."""

    name = "scripted"
    label = "scripted (a test)"
    is_model = True
    capabilities = Capabilities()

    def __init__(self, *outcomes: Outcome | TurnResult | Exception) -> None:
        self.outcomes = list(outcomes)
        self.prompts: list[str] = []
        self.compactions = 0
        self.compact_outcome = Outcome.OK
        self.sizes: list[int] = []  # of the prompts of the next turns, in tokens
        self.compacted_tokens: int | None = 0  # what a compaction leaves; None: nothing to do
        self.done: list[str] = []  # in order: the first line of each prompt, "compact", "new session"
        self.models: list[str] = ["sonnet"]
        self.sessions = 0
        self.closed = False
        self.login: Login = NoLogin()
        self.release = asyncio.Event()
        self.release.set()
        self.running = asyncio.Event()
        self._interrupt = asyncio.Event()

    @property
    def model(self) -> str:
        return self.models[-1]

    @property
    def warm(self) -> bool:
        return False

    def hold(self) -> None:
        """The next turns run until `release` is set."""
        self.release.clear()

    async def start(self) -> None:
        pass

    async def run_turn(self, prompt: str) -> AsyncIterator[BackendEvent]:
        self.prompts.append(prompt)
        self.done.append(prompt.partition("\n")[0])
        self._interrupt.clear()
        self.running.set()
        try:
            yield StreamLine(
                {"type": "assistant", "message": {"content": [{"type": "text", "text": "thinking"}]}}
            )
            if self.sizes:
                for line in inference(self.sizes.pop(0)):
                    yield StreamLine(line)
            if await self._interrupted():
                yield result(Outcome.CANCELLED)
                return
            outcome = self.outcomes.pop(0) if self.outcomes else Outcome.OK
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome if isinstance(outcome, TurnResult) else result(outcome)
        finally:
            self.running.clear()

    async def compact(self) -> AsyncIterator[BackendEvent]:
        self.compactions += 1
        self.done.append("compact")
        self._interrupt.clear()
        self.running.set()
        try:
            if await self._interrupted():
                yield result(Outcome.CANCELLED)
                return
            metadata = {"post_tokens": self.compacted_tokens}
            if self.compact_outcome is Outcome.OK and self.compacted_tokens is not None:
                boundary = {"type": "system", "subtype": "compact_boundary", "compact_metadata": metadata}
                yield StreamLine(boundary)
            yield result(self.compact_outcome)
        finally:
            self.running.clear()

    async def interrupt(self) -> bool:
        if not self.running.is_set():
            return False
        self._interrupt.set()
        return True

    async def set_model(self, model: str) -> None:
        self.models.append(model)

    async def new_session(self) -> None:
        self.sessions += 1
        self.done.append("new session")

    async def close(self) -> None:
        self.closed = True

    async def _interrupted(self) -> bool:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.release, self._interrupt)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._interrupt.is_set()


def inference(tokens: int, window_tokens: int = 200_000) -> list[dict[str, Any]]:
    """What is printed of an inference with a prompt of `tokens`, most of it from the cache."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": tokens - 110, "cache_creation_input_tokens": 100}
    message = {"role": "assistant", "model": "sonnet", "content": [], "usage": usage}
    return [
        {"type": "assistant", "message": message},
        {"type": "result", "modelUsage": {"sonnet": {"contextWindow": window_tokens}}},
    ]


def result(outcome: Outcome, note: str = "", resumes_at_ms: int | None = None) -> TurnResult:
    stats = TurnStats(started_at_ms=1, duration_ms=5, output_tokens=10, model="sonnet", outcome=outcome.value)
    return TurnResult(outcome, note or outcome.value, stats, resumes_at_ms)
