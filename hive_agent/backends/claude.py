"""The Claude Code backend: one warm process between turns, a process per turn when that does not work.

A turn in the warm process costs a tenth of a second over the model's own time; a process per turn costs
one to three seconds (docs/decisions/0002-own-claude-client.md has the figures). The warm process

- is started by the first turn, and closed when nothing has come for `idle_seconds` (unless a command
  that it began still runs in the background: that would end with it);
- is replaced after a turn that left it larger than `rss_max_bytes`, or without credentials;
- loses its turn if it dies or does not speak the protocol. The turn is then carried on at once in a
  process of its own, in the same conversation, and so are the next ones, until the warm process has
  earned another try.

Everything that the CLI started ends with it (`guard`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from hive_agent.backends import claude_command
from hive_agent.backends.base import (
    BackendConfig,
    BackendEvent,
    Capabilities,
    Outcome,
    StreamLine,
    TurnResult,
)
from hive_agent.backends.claude_conversation import Conversation
from hive_agent.backends.claude_hooks import TOOL_HOOK
from hive_agent.backends.claude_lines import note_line
from hive_agent.backends.claude_outcome import Tally, Verdict
from hive_agent.backends.claude_process import ClaudeProcess, ProcessEnded, ProtocolUnknown
from hive_agent.backends.login_claude import ClaudeLogin
from hive_agent.session import check_model
from hive_agent.wake import resumed_prompt
from hive_shared.errors import Conflict, HiveError
from hive_shared.redact import Redactor

log = logging.getLogger(__name__)

INITIALIZE_SECONDS = 60.0  # for the CLI to come up: one second by itself, far more on a busy machine
SET_MODEL_SECONDS = 10.0
INTERRUPT_SECONDS = 10.0  # for an interrupted turn to end; then its process is killed
INTERRUPT_AGAIN_SECONDS = 0.5
COLD_SECONDS_FIRST = 30.0  # without a warm process after its first failure; doubled by each further one
COLD_SECONDS_MAX = 900.0
COMPACT = "/compact"


class _Turn:
    """One turn under way, in whatever processes it takes."""

    def __init__(self, prompt: str, model: str) -> None:
        self.prompt = prompt
        self.tally = Tally(model)
        self.process: ClaudeProcess | None = None
        self.said = False  # the process has the prompt: an interrupt makes sense
        self.cancelled = False
        self.given_up: Verdict | None = None
        self.failure = ""

    @property
    def ended(self) -> bool:
        return self.tally.result is not None or self.cancelled or self.given_up is not None

    @property
    def compacts(self) -> bool:
        return self.prompt == COMPACT

    def see(self, line: dict[str, Any]) -> None:
        self.tally.see(line)
        if self.given_up is None and (given_up := self.tally.gives_up(line)) is not None:
            self.given_up = given_up
            self.stop()

    def stop(self) -> None:
        """Make the process end this turn: gently at first, if it has begun at all."""
        process = self.process
        if process is None:
            return
        if not self.said:
            process.kill()
            return
        self._insist(process, time.monotonic() + INTERRUPT_SECONDS)

    def _insist(self, process: ClaudeProcess, deadline: float) -> None:
        """An interrupt that comes before the CLI has begun the turn is lost: repeat it, then kill."""
        if self.process is not process:
            return
        if time.monotonic() >= deadline:
            process.kill()
            return
        try:
            process.tell("interrupt")
        except ProcessEnded:
            return
        asyncio.get_running_loop().call_later(INTERRUPT_AGAIN_SECONDS, self._insist, process, deadline)

    def verdict(self) -> Verdict:
        tally = self.tally
        if tally.result is not None and tally.verdict().outcome is Outcome.OK:
            return tally.compact_verdict() if self.compacts else tally.verdict()
        if self.cancelled:
            return Verdict(Outcome.CANCELLED, "cancelled")
        if self.given_up is not None:
            return self.given_up
        return tally.verdict() if tally.result is not None else Verdict(Outcome.FAILED, self.failure)


class ClaudeBackend:
    """Claude Code as a `Backend`. With `keep_warm=False` every turn is a process of its own."""

    name = "claude"
    label = "Claude Code"
    is_model = True
    capabilities = Capabilities()

    def __init__(
        self,
        config: BackendConfig,
        *,
        keep_warm: bool = True,
        initialize_seconds: float = INITIALIZE_SECONDS,
        cold_seconds: float = COLD_SECONDS_FIRST,
    ) -> None:
        self.login = ClaudeLogin(config)
        self._config = config
        self._model = config.model
        self._keep_warm = keep_warm
        self._initialize_seconds = initialize_seconds
        self._cold_seconds = cold_seconds
        self._conversation = Conversation(config.paths.state)
        self._process: ClaudeProcess | None = None
        self._turn: _Turn | None = None
        self._closed = False
        self._failures = 0
        self._cold_until = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def model(self) -> str:
        return self._model

    @property
    def warm(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def process_id(self) -> int | None:
        """The warm process (its guard), for diagnostics."""
        return self._process.pid if self._process is not None and self._process.alive else None

    async def start(self) -> None:
        """Nothing yet: 220 MB are not taken before there is a first message."""
        self._config.paths.state.mkdir(parents=True, exist_ok=True)

    # --- turns ---

    def run_turn(self, prompt: str) -> AsyncIterator[BackendEvent]:
        """Raises `Conflict` when a turn is running already."""
        return self._run(_Turn(prompt, self._model))

    def compact(self) -> AsyncIterator[BackendEvent]:
        return self._run(_Turn(COMPACT, self._model))

    async def _run(self, turn: _Turn) -> AsyncIterator[BackendEvent]:
        if self._turn is not None:
            raise Conflict("a turn is running; wait for its end, or interrupt it")
        if self._closed:
            raise Conflict("the backend is closed")
        self._turn = turn
        self._stop_idling()
        try:
            async with aclosing(self._attempts(turn)) as lines:
                async for line in lines:
                    yield StreamLine(line)
            verdict = turn.verdict()
            self._settle_after(verdict)
            stats = turn.tally.stats(verdict.outcome)
            yield TurnResult(verdict.outcome, verdict.note, stats, verdict.resumes_at_ms)
        finally:
            self._turn = None
            self._start_idling()

    async def _attempts(self, turn: _Turn) -> AsyncGenerator[dict[str, Any], None]:
        """The turn in the warm process; if that fails, what is left of it in a process of its own."""
        if self._keep_warm and time.monotonic() >= self._cold_until:
            async with aclosing(self._warm_attempt(turn)) as lines:
                async for line in lines:
                    yield line
            if turn.ended:
                return
            yield note_line(f"{turn.failure}; the turn goes on in a process of its own")
            if turn.said and not turn.compacts:
                turn.prompt = resumed_prompt(turn.prompt, "its process ended")
            turn.tally.restarted()
        async with aclosing(self._cold_attempt(turn)) as lines:
            async for line in lines:
                yield line

    async def _warm_attempt(self, turn: _Turn) -> AsyncGenerator[dict[str, Any], None]:
        try:
            process = await self._warm_process(turn)
            turn.tally.cost_before_usd = turn.tally.cost_total_usd = process.cost_usd
            with process.listen() as lines:
                if turn.cancelled:
                    return
                turn.said = True
                await process.say(turn.prompt)
                async for line in lines:
                    yield self._seen(turn, line)
                    if turn.tally.result is not None:
                        break
            process.cost_usd = turn.tally.cost_total_usd
            if turn.tally.result is None:
                raise ProcessEnded(process.why_ended())
            self._failures = 0
        except (HiveError, OSError) as error:
            self._warm_failed(turn, error)
        finally:
            turn.process = None
            if turn.tally.result is None:
                self._retire(kill=True)

    async def _cold_attempt(self, turn: _Turn) -> AsyncGenerator[dict[str, Any], None]:
        for _ in range(2):  # once more without the remembered conversation if that cannot be found
            if turn.cancelled:
                return
            async with aclosing(self._cold_process(turn)) as lines:
                async for line in lines:
                    yield line
            if turn.cancelled or turn.tally.began or not self._conversation.doubt():
                return
            turn.tally.restarted()

    async def _cold_process(self, turn: _Turn) -> AsyncGenerator[dict[str, Any], None]:
        process: ClaudeProcess | None = None
        try:
            await self._all_closed()
            process = turn.process = await self._start_process(warm=False)
            turn.said = False  # there is no control channel: stopping means killing
            if turn.cancelled:
                return
            with process.listen() as lines:
                await process.prompt_and_end(turn.prompt)
                async for line in lines:
                    yield self._seen(turn, line)
            turn.failure = process.why_ended()
        except (HiveError, OSError) as error:
            turn.failure = str(error)
        finally:
            turn.process = None
            if process is not None:
                self._close_soon(process, kill=turn.tally.result is None)

    def _seen(self, turn: _Turn, line: dict[str, Any]) -> dict[str, Any]:
        turn.see(line)
        self._conversation.seen(turn.tally.session_id)
        return line

    # --- the warm process ---

    async def _warm_process(self, turn: _Turn) -> ClaudeProcess:
        if self._process is not None and self._process.alive:
            turn.process = self._process
            return self._process
        self._retire()
        await self._all_closed()
        try:
            return await self._start_warm(turn)
        except ProcessEnded:
            if turn.cancelled or not self._conversation.doubt():
                raise
        self._retire(kill=True)
        return await self._start_warm(turn)

    async def _start_warm(self, turn: _Turn) -> ClaudeProcess:
        process = self._process = turn.process = await self._start_process(warm=True)
        hooks = {} if self._config.gate is None else {"hooks": TOOL_HOOK}
        await process.ask("initialize", within_seconds=self._initialize_seconds, **hooks)
        return process

    async def _start_process(self, *, warm: bool) -> ClaudeProcess:
        config = self._config
        environment = claude_command.environment(config)
        return await ClaudeProcess.start(
            claude_command.arguments(config, self._model, self._conversation.flags(), warm=warm),
            environment=environment,
            directory=config.paths.state,
            redactor=Redactor.of_environment(environment),
            gate=config.gate,
        )

    def _warm_failed(self, turn: _Turn, error: Exception) -> None:
        turn.failure = str(error)
        if turn.ended:
            return
        self._failures += 1
        pause_seconds = min(self._cold_seconds * 2 ** (self._failures - 1), COLD_SECONDS_MAX)
        self._cold_until = time.monotonic() + pause_seconds
        log.warning("%s; a process per turn for the next %.0f seconds", error, pause_seconds)

    def _settle_after(self, verdict: Verdict) -> None:
        """Replace a process that has grown too large, or that holds credentials that do not work."""
        if self._process is None:
            return
        if verdict.outcome is Outcome.AUTH:
            self._retire()
        elif (rss_bytes := self._process.rss_bytes()) > self._config.rss_max_bytes:
            log.info("the warm process holds %d MB; the next turn starts another", rss_bytes // 2**20)
            self._retire()

    def _start_idling(self) -> None:
        if self._process is not None and not self._closed:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._config.idle_seconds, self._idled)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idled(self) -> None:
        if self._process is not None and self._process.alive and self._process.has_orphans():
            self._start_idling()
        else:
            self._retire()

    def _retire(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._close_soon(process, kill=kill)

    def _close_soon(self, process: ClaudeProcess, *, kill: bool) -> None:
        if kill:
            process.kill()
        task = asyncio.create_task(process.close(), name=f"closing claude {process.pid}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _all_closed(self) -> None:
        """Wait for former processes: two of them must not write to one conversation."""
        if self._closing:
            await asyncio.wait(self._closing)

    # --- what the harness may ask at any time ---

    async def interrupt(self) -> bool:
        turn = self._turn
        if turn is None or turn.tally.result is not None:
            return False
        turn.cancelled = True
        turn.stop()
        return True

    async def set_model(self, model: str) -> None:
        """Raises `BadRequest` for what cannot be a model's name; whether it exists, the next turn tells."""
        self._model = check_model(model)
        process = self._process
        if process is None or not process.alive:
            return
        try:
            await process.ask("set_model", within_seconds=SET_MODEL_SECONDS, model=model)
        except (ProcessEnded, ProtocolUnknown) as error:
            log.warning("%s; the next turn starts another process", error)
            if self._turn is None and self._process is process:
                self._retire(kill=True)

    async def new_session(self) -> None:
        """Raises `Conflict` while a turn runs."""
        if self._turn is not None:
            raise Conflict("a turn is running; wait for its end, or interrupt it")
        self._stop_idling()
        self._conversation.forget()
        self._retire()
        await self._all_closed()

    async def close(self) -> None:
        self._closed = True
        self._stop_idling()
        if self._turn is not None:
            self._turn.cancelled = True
            if self._turn.process is not None:
                self._turn.process.kill()
                await self._turn.process.close()
        self._retire()
        await self.login.cancel()
        await self._all_closed()
