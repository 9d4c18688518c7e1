"""One turn: run it, and what to do about overflow, limits and refused credentials (SPEC section 8)."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hive_agent.backends.base import Backend, BackendEvent, LoginStage, Outcome, StreamLine, TurnResult
from hive_agent.history import History
from hive_agent.session import resume_time_ms, wait_until_ms, wall_clock_ms
from hive_agent.status import Status
from hive_agent.wake import resumed_prompt
from hive_shared.events import EventKind, TurnStats
from hive_shared.wire import Badge

log = logging.getLogger(__name__)

INTERRUPT_TRIES = 100
INTERRUPT_RETRY_SECONDS = 0.05
LOGIN_LOOK_SECONDS = 1.0  # a look at a file; the login conversation itself wakes us at once
AUTH_RETRY_SECONDS = (60.0, 300.0, 900.0)  # credentials are there but refused: perhaps they get repaired


_SUMMED = (
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "cost_usd",
)


@dataclass
class _Attempts:
    """What has been tried in this turn so far."""

    compacted: bool = False
    refused: int = 0
    limited: int = 0
    stats: list[TurnStats] = field(default_factory=list)


class TurnRunner:
    """Runs turns on one backend, one at a time, and knows how to stop the present one."""

    def __init__(
        self,
        backend: Backend,
        history: History,
        status: Status,
        see: Callable[[dict[str, Any]], None] = lambda line: None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """`see` is shown every line that the backend prints."""
        self._see = see
        self._backend = backend
        self._history = history
        self._status = status
        self._clock_ms = clock_ms
        self._nudge = asyncio.Event()
        self._in_turn = False
        self._cancelled = False

    def nudge(self) -> None:
        """Something changed (a login, another model): whoever waits for a limit or a login looks again."""
        self._nudge.set()

    async def cancel(self) -> bool:
        """Stop the present turn, running or parked; False if there is none."""
        if not self._in_turn:
            return False
        self._cancelled = True
        self._nudge.set()
        await self._interrupt()
        return True

    async def _interrupt(self) -> None:
        for _ in range(INTERRUPT_TRIES):  # it may be just about to start
            if await self._backend.interrupt() or not self._in_turn:
                break
            await asyncio.sleep(INTERRUPT_RETRY_SECONDS)

    async def run(self, prompt: str) -> TurnResult:
        """One turn until it has really ended: parked turns wait here, with their message leased."""
        self._in_turn, self._cancelled = True, False
        attempts, text = _Attempts(), prompt
        try:
            while True:
                await self.wait_for_login()
                if self._cancelled:
                    return _cancelled(attempts, self._clock_ms())
                self._status.show(Badge.THINKING)
                result = await self._play(self._backend.run_turn(text))
                attempts.stats.append(result.stats)
                again = await self._again_because(result, attempts)
                if self._cancelled and result.outcome is not Outcome.OK:
                    return _cancelled(attempts, self._clock_ms())
                if again is None:
                    return replace(result, stats=_combined(attempts.stats))
                text = resumed_prompt(prompt, again)
        finally:
            self._in_turn = False

    async def compact(self) -> TurnResult:
        """Summarise the session, as part of a turn or between two. It can be cancelled."""
        within_a_turn, self._in_turn = self._in_turn, True
        try:
            self._status.show(Badge.COMPACTING)
            self._note("compacting the session …")
            result = await self._play(self._backend.compact())
        finally:
            self._in_turn = within_a_turn
        self._note("compacted" if result.outcome is Outcome.OK else f"compaction failed: {result.note}")
        return result

    async def aside(self, prompt: str, what: str, seconds: float) -> TurnResult:
        """A turn of the harness's own, between two messages: tried once, and stopped after `seconds`.

        `what` is told beside the badge.
        """
        self._in_turn, self._cancelled = True, False
        try:
            self._status.show(Badge.COMPACTING, what)
            return await self._bounded(self._backend.run_turn(prompt), seconds)
        finally:
            self._in_turn = False

    async def _bounded(self, events: AsyncIterator[BackendEvent], seconds: float) -> TurnResult:
        """As `_play`, and interrupted after `seconds`."""

        async def stop() -> None:
            await asyncio.sleep(seconds)
            await self._interrupt()

        stopping = asyncio.create_task(stop(), name="aside-bound")
        try:
            result = await self._play(events)
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
        if result.outcome is Outcome.CANCELLED and not self._cancelled:
            return replace(result, note=f"it took longer than {seconds:g} seconds")
        return result

    async def _again_because(self, result: TurnResult, attempts: _Attempts) -> str | None:
        """Why to try once more, after having waited for whatever it takes; None if the turn has ended."""
        match result.outcome:
            case Outcome.OVERFLOW if not attempts.compacted:
                return await self._after_overflow(result, attempts)
            case Outcome.RATE_LIMITED:
                return await self._after_limit(result, attempts)
            case Outcome.AUTH:
                return await self._after_refusal(result, attempts)
            case _:
                return None

    async def _after_overflow(self, result: TurnResult, attempts: _Attempts) -> str | None:
        attempts.compacted = True
        self._note(f"the context is full ({result.note}); compacting, then trying once more")
        compaction = await self.compact()
        return "the context was full and has been compacted" if compaction.outcome is Outcome.OK else None

    async def _after_limit(self, result: TurnResult, attempts: _Attempts) -> str:
        now_ms = self._clock_ms()
        resumes_at_ms = resume_time_ms(now_ms, result.resumes_at_ms, attempts.limited)
        attempts.limited += 1
        self._note(f"{result.note or 'rate limited'}; trying again in {(resumes_at_ms - now_ms) // 1000} s")
        self._status.show(Badge.RATE_LIMITED, result.note, resumes_at_ms)
        if not self._cancelled:
            self._nudge.clear()  # of long ago
            await wait_until_ms(resumes_at_ms, self._nudge, self._clock_ms)
        return "a rate limit"

    async def _after_refusal(self, result: TurnResult, attempts: _Attempts) -> str:
        attempts.refused += 1
        if attempts.refused > 1:
            self._note(f"the credentials were refused: {result.note}")
            await self._wait_for_new_login(result.note, attempts.refused - 2)
        return "the credentials were refused"

    async def wait_for_login(self) -> None:
        """Until the backend says it has credentials, or the turn is cancelled."""
        if self._backend.login.needed():
            self._note("needs login: no turn can run before somebody logs in on this page")
        while self._backend.login.needed() and not self._cancelled:
            self._status.show(Badge.NEEDS_LOGIN)
            await self._look_again_soon()

    async def _wait_for_new_login(self, note: str, round_number: int) -> None:
        """Until somebody logs in; credentials that exist but were refused are tried again now and then."""
        delay = AUTH_RETRY_SECONDS[min(round_number, len(AUTH_RETRY_SECONDS) - 1)]
        again_at = time.monotonic() + delay  # a wall clock may be set
        was_done = self._login_done()
        while not (self._cancelled or self._backend.login.needed()) and time.monotonic() < again_at:
            self._status.show(Badge.NEEDS_LOGIN, note)
            if self._login_done() and not was_done:
                return
            was_done = self._login_done()
            await self._look_again_soon()

    def _login_done(self) -> bool:
        return self._backend.login.state().get("stage") == LoginStage.DONE.value

    async def _look_again_soon(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGIN_LOOK_SECONDS):
                await self._nudge.wait()
        self._nudge.clear()

    async def _play(self, events: AsyncIterator[BackendEvent]) -> TurnResult:
        """Publish what the backend prints; its result. A backend that breaks its word fails the turn."""
        started_at_ms = self._clock_ms()
        result: TurnResult | None = None
        try:
            async for event in events:
                if isinstance(event, StreamLine):
                    self._see(event.raw)
                    self._history.publish(EventKind.STREAM, event.raw)
                else:
                    result = event
        except Exception as error:
            log.exception("the backend broke")
            result = _failed(f"the backend broke: {type(error).__name__}: {error}", started_at_ms)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()
        return result or _failed("the backend ended without a result", started_at_ms)

    def _note(self, text: str) -> None:
        self._history.publish(EventKind.NOTE, {"text": text})


def _failed(note: str, started_at_ms: int) -> TurnResult:
    stats = TurnStats(started_at_ms=started_at_ms, outcome=Outcome.FAILED.value)
    return TurnResult(Outcome.FAILED, note, stats)


def _cancelled(attempts: _Attempts, now_ms: int) -> TurnResult:
    stats = _combined(attempts.stats or [TurnStats(started_at_ms=now_ms)])
    stats = stats.model_copy(update={"outcome": Outcome.CANCELLED.value})
    return TurnResult(Outcome.CANCELLED, "cancelled", stats)


def _combined(attempts: list[TurnStats]) -> TurnStats:
    """One turn's stats from those of its attempts: sums, and the last one's context, model and outcome."""
    last = attempts[-1]
    if len(attempts) == 1:
        return last
    tools: dict[str, int] = {}
    for stats in attempts:
        for name, calls in stats.tools.items():
            tools[name] = tools.get(name, 0) + calls
    sums = {name: sum(getattr(stats, name) for stats in attempts) for name in _SUMMED}
    return last.model_copy(update={**sums, "tools": tools, "started_at_ms": attempts[0].started_at_ms})
