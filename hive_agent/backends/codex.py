"""The Codex CLI: a process per turn, `codex exec --json`, in one thread that it keeps itself (CODEX_HOME).

What it cannot do: log in from the page, be told to compact (it does so by itself), say what a turn cost, and
keep to rules with patterns; an agent with those gets no turn rather than one that ignores them.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from hive_agent.backends import codex_command
from hive_agent.backends.base import (
    BackendConfig,
    BackendEvent,
    Capabilities,
    LoginStage,
    Outcome,
    StreamLine,
    TurnResult,
)
from hive_agent.backends.claude_command import read_small_file
from hive_agent.backends.claude_lines import LineSplitter
from hive_agent.backends.claude_outcome import Tally, Verdict
from hive_agent.backends.claude_process import guarded
from hive_agent.backends.codex_lines import Reading
from hive_agent.session import check_model
from hive_shared.errors import Conflict, NotAvailable
from hive_shared.redact import Redactor

log = logging.getLogger(__name__)

THREAD_FILE = "codex-thread.json"
THREAD_MAX_BYTES = 4096
CHUNK_BYTES = 64 * 1024
STDERR_KEPT_BYTES = 4096
END_SECONDS = 10.0
NO_LOGIN = "this backend has no login here; the operator sets api_key_file"

_THREAD = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class CodexLogin:
    """A key that the operator gives, or what `codex login` left, run by hand in the container."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config

    def needed(self) -> bool:
        return not codex_command.has_credentials(self._config)

    def state(self) -> dict[str, Any]:
        needed = self.needed()
        message = "Codex has no credentials. The operator sets api_key_file and restarts the agent."
        return {
            "needed": needed,
            "stage": LoginStage.NONE.value,
            "url": None,
            "message": message if needed else "",
        }

    async def start(self) -> None:
        raise NotAvailable(NO_LOGIN)

    async def code(self, text: str) -> None:
        raise NotAvailable(NO_LOGIN)

    async def cancel(self) -> None:
        """Nothing is under way."""


class CodexBackend:
    """Obeys `base.Backend`."""

    name = "codex"
    label = "Codex CLI"
    is_model = True
    capabilities = Capabilities(login=False, compact=False, models=False, cost=False)

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._model = config.model
        self._login = CodexLogin(config)
        self._thread = _Thread(config.paths.claude / THREAD_FILE)
        self._process: asyncio.subprocess.Process | None = None
        self._in_turn = self._cancelled = False

    @property
    def login(self) -> CodexLogin:
        return self._login

    @property
    def model(self) -> str:
        return self._model

    @property
    def warm(self) -> bool:
        return False

    async def start(self) -> None:
        """Nothing to prepare."""

    async def run_turn(self, prompt: str) -> AsyncIterator[BackendEvent]:
        tally, reading = Tally(self._model), Reading(self._model, self._thread.usage)
        redactor = Redactor.of_environment(codex_command.environment(self._config))
        self._in_turn, self._cancelled = True, False
        verdict = Verdict(Outcome.FAILED, "the turn did not end")
        try:
            try:
                self._process = await self._start_process()
            except (OSError, ValueError, KeyError) as error:
                verdict = Verdict(Outcome.FAILED, str(error))
            else:
                errors = asyncio.create_task(_tail(self._process))
                async for event in self._events(self._process, prompt, redactor):
                    for line in reading.lines(event):
                        tally.see(line)
                        yield StreamLine(line)
                code = await self._process.wait()
                tail = redactor.clean_text(await errors)
                verdict = reading.verdict(f"the Codex process ended with code {code}: {tail}".rstrip(": "))
            if self._cancelled and verdict.outcome is not Outcome.OK:
                verdict = Verdict(Outcome.CANCELLED, "cancelled")
            self._thread.seen(reading.thread, reading.total)
            line = _result_line(reading, verdict)
            tally.see(line)
            yield StreamLine(line)
            stats = tally.stats(verdict.outcome)
            yield TurnResult(verdict.outcome, verdict.note, stats, verdict.resumes_at_ms)
        finally:
            await self._end_process()
            self._in_turn = False

    async def compact(self) -> AsyncIterator[BackendEvent]:
        """Only Codex decides when: said, and nothing done."""
        note = "Codex compacts its conversation by itself and cannot be told to; a new session starts afresh"
        yield TurnResult(Outcome.FAILED, note, Tally(self._model).stats(Outcome.FAILED))

    async def interrupt(self) -> bool:
        if not self._in_turn:
            return False
        self._cancelled = True
        self._kill()
        return True

    async def set_model(self, model: str) -> None:
        """Raises `BadRequest` for what cannot be a model's name; whether it exists, the next turn tells."""
        self._model = check_model(model)

    async def new_session(self) -> None:
        """Raises `Conflict` while a turn runs."""
        if self._in_turn:
            raise Conflict("a turn is running; wait for its end, or interrupt it")
        self._thread.forget()

    async def close(self) -> None:
        self._cancelled = True
        await self._end_process()

    async def _start_process(self) -> asyncio.subprocess.Process:
        """Raises `OSError` or `ValueError` with what is missing."""
        config = self._config
        if why := codex_command.unenforceable(config):
            raise ValueError(why)
        program = codex_command.find(config)
        if program is None:
            raise ValueError("the Codex CLI is not on the agent's PATH; environment.systemPackages brings it")
        codex_command.home(config).mkdir(mode=0o700, exist_ok=True)
        command = codex_command.arguments(program, config, self._model, self._thread.id)
        return await asyncio.create_subprocess_exec(
            *guarded(command),
            cwd=config.paths.state,
            env=codex_command.environment(config),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _events(
        self, process: asyncio.subprocess.Process, prompt: str, redactor: Redactor
    ) -> AsyncIterator[dict[str, Any]]:
        if self._cancelled:  # while it was being started
            self._kill()
        stdin = cast(asyncio.StreamWriter, process.stdin)
        with contextlib.suppress(ConnectionError):
            stdin.write(prompt.encode("utf-8", "replace"))
            await stdin.drain()
        stdin.close()
        splitter = LineSplitter(clean=redactor.clean)
        output = cast(asyncio.StreamReader, process.stdout)
        while chunk := await output.read(CHUNK_BYTES):
            for event in splitter.feed(chunk):
                yield event
        for event in splitter.finish():
            yield event

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()  # the guard ends everything below it

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        self._kill()
        try:
            async with asyncio.timeout(END_SECONDS):
                while await cast(asyncio.StreamReader, process.stdout).read(CHUNK_BYTES):
                    continue
                await process.wait()
        except (TimeoutError, RuntimeError):  # RuntimeError: its turn still reads, and will end it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
        self._process = None


class _Thread:
    """Which of Codex's threads is this agent's, and what it has used so far; kept across restarts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.id, self.usage = _read_thread(file)

    def seen(self, thread: str, usage: dict[str, int]) -> None:
        if _THREAD.match(thread):
            self.id, self.usage = thread, usage
            self._store()

    def forget(self) -> None:
        self.id, self.usage = None, {}
        self._store()

    def _store(self) -> None:
        fresh = self._file.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"thread": self.id, "usage": self.usage}, file)
            fresh.replace(self._file)
        except OSError as error:
            log.warning("%s: %s; the next restart starts a new thread", self._file, error.strerror)


def _read_thread(file: Path) -> tuple[str | None, dict[str, int]]:
    """What is there, as data: the file lies where the agent can write."""
    try:
        kept = json.loads(read_small_file(file, THREAD_MAX_BYTES) or b"{}")
        thread, usage = kept["thread"], kept["usage"]
        if _THREAD.match(thread):
            return thread, {name: value for name, value in usage.items() if isinstance(value, int)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None, {}


async def _tail(process: asyncio.subprocess.Process) -> str:
    """The end of its standard error."""
    kept, errors = bytearray(), cast(asyncio.StreamReader, process.stderr)
    while chunk := await errors.read(CHUNK_BYTES):
        kept += chunk
        del kept[:-STDERR_KEPT_BYTES]
    return kept.decode("utf-8", "replace").strip()


def _result_line(reading: Reading, verdict: Verdict) -> dict[str, Any]:
    well = verdict.outcome is Outcome.OK
    return {
        "type": "result",
        "subtype": "success" if well else "error_during_execution",
        "is_error": not well,
        "result": reading.said if well else verdict.note,
        "usage": reading.usage(),
        "session_id": reading.thread,
    }
