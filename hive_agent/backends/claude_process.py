"""One process of the Claude Code CLI, and the stream-json protocol spoken with it.

Our own thin client (docs/decisions/0002-own-claude-client.md). Facts it builds on, measured with
Claude Code 2.1.197:

- A `control_request` is answered by a `control_response` with the same `request_id`, also while a
  turn runs; an unknown subtype is answered with `"subtype": "error"`.
- A line on its standard input that is not JSON makes the CLI exit: write nothing else.
- An interrupt while nothing runs is acknowledged and has no effect on the next turn.
- The CLI may ask us, too (`can_use_tool`, `hook_callback`, …); unanswered it would wait for ever.
- Commands of its Bash tool run in sessions of their own, out of reach of a signal to its process
  group. That is why it runs under `guard.py`, which leaves nothing behind.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hive_agent.backends import guard
from hive_agent.backends.claude_hooks import ToolHooks, refusal
from hive_agent.backends.claude_lines import CLEANED, LineSplitter
from hive_agent.backends.tool_gate import ToolGate
from hive_shared.errors import HiveError
from hive_shared.redact import Redactor

CHUNK_BYTES = 64 * 1024
STDERR_TAIL_BYTES = 4096
STDERR_KEPT_BYTES = 2 * STDERR_TAIL_BYTES  # so that no key that is cut in two is in the tail
QUEUED_LINES_MAX = 256  # beyond that the CLI waits for us
CLOSE_SECONDS = 3.0  # for the CLI to leave by itself once its input is closed
GUARD_SECONDS = 2 * guard.KILL_SECONDS
WRITE_SECONDS = 30.0  # for the CLI to take a line

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def guarded(command: Sequence[str]) -> list[str]:
    """The command that runs `command` so that nothing of it outlives it, or this process."""
    return [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *command]


class ProcessEnded(HiveError):
    """The Claude Code process ended in the middle of a conversation."""


class ProtocolUnknown(HiveError):
    """The Claude Code process does not answer as it should."""


class ClaudeProcess:
    """A running CLI. Made by `start`; used by one turn at a time; ended by `close` or `kill`."""

    def __init__(
        self, process: asyncio.subprocess.Process, redactor: Redactor, gate: ToolGate | None = None
    ) -> None:
        self._process = process
        self._hooks = ToolHooks(gate, self._respond) if gate is not None else None
        self._redactor = redactor
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._listener: asyncio.Queue[dict[str, Any] | None] | None = None
        self._stderr = bytearray()
        self._output_ended = False
        self._tasks = [
            asyncio.create_task(self._read_output(), name=f"claude {process.pid} output"),
            asyncio.create_task(self._read_stderr(), name=f"claude {process.pid} stderr"),
        ]
        self.cost_usd = 0.0  # what its last `result` said; it counts from the process's start

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        redactor: Redactor,
        gate: ToolGate | None = None,
    ) -> "ClaudeProcess":
        """Start the CLI under its guard. Raises `OSError` when not even that can be started."""
        process = await asyncio.create_subprocess_exec(
            *guarded(command),
            env=dict(environment),
            cwd=directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(process, redactor, gate)

    @property
    def pid(self) -> int:
        """The guard's process id; the CLI is its child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._output_ended

    def why_ended(self) -> str:
        """How it ended, with the last lines of its standard error."""
        code = self._process.returncode
        how = "closed its output" if code is None else f"ended with code {code}"
        cleaned = self._redactor.clean(bytes(self._stderr))[-STDERR_TAIL_BYTES:]
        tail = cleaned.decode("utf-8", "replace").strip()
        return f"the Claude Code process {how}" + (f": {tail}" if tail else "")

    # --- speaking ---

    async def say(self, text: str) -> None:
        """A user's message: it starts a turn."""
        content = [{"type": "text", "text": text}]
        await self._write({"type": "user", "message": {"role": "user", "content": content}})

    async def ask(self, subtype: str, *, within_seconds: float, **fields: Any) -> dict[str, Any]:
        """Send a control request and return its answer.

        Raises `ProtocolUnknown` when it is refused or not answered in time, `ProcessEnded`.
        """
        request_id = f"hive-{next(self._numbers)}"
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        request = {
            "type": "control_request",
            "request_id": request_id,
            "request": {"subtype": subtype, **fields},
        }
        try:
            async with asyncio.timeout(within_seconds):
                await self._write(request)
                response = await answer
        except TimeoutError:
            raise ProtocolUnknown(
                f"the Claude Code process did not answer {subtype!r} within {within_seconds:g} seconds"
            ) from None
        finally:
            self._answers.pop(request_id, None)
        if response.get("subtype") != "success":
            raise ProtocolUnknown(f"the Claude Code process refused {subtype!r}: {response.get('error')}")
        return response

    def tell(self, subtype: str) -> None:
        """Send a control request whose answer does not matter."""
        request_id = f"hive-{next(self._numbers)}"
        request = {"type": "control_request", "request_id": request_id, "request": {"subtype": subtype}}
        self._write_now(request)

    async def prompt_and_end(self, text: str) -> None:
        """The whole input of a process that serves one turn, as plain text."""
        stdin = self._input()
        with contextlib.suppress(ConnectionError):  # it may end without reading; its output says why
            stdin.write(text.encode("utf-8", "replace"))
            await stdin.drain()
        stdin.close()

    async def _write(self, value: Mapping[str, Any]) -> None:
        self._write_now(value)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._input().drain()
        except ConnectionError:
            raise ProcessEnded(self.why_ended()) from None
        except TimeoutError:
            raise ProtocolUnknown("the Claude Code process does not read its input") from None

    def _write_now(self, value: Mapping[str, Any]) -> None:
        if not self.alive:
            raise ProcessEnded(self.why_ended())
        self._input().write(json.dumps(value).encode() + b"\n")  # ASCII: lone surrogates are escaped

    def _input(self) -> asyncio.StreamWriter:
        return cast(asyncio.StreamWriter, self._process.stdin)

    # --- listening ---

    @contextlib.contextmanager
    def listen(self) -> Iterator[AsyncIterator[dict[str, Any]]]:
        """What it prints within the block, until it ends. Outside of one its lines are dropped."""
        listener: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(QUEUED_LINES_MAX)
        if self._output_ended:
            listener.put_nowait(None)
        self._listener = listener
        try:
            yield _until_none(listener)
        finally:
            self._listener = None
            while not listener.empty():  # so that a reader that waits for room goes on
                listener.get_nowait()

    async def _read_output(self) -> None:
        output = cast(asyncio.StreamReader, self._process.stdout)
        splitter = LineSplitter(clean=self._redactor.clean)
        try:
            while chunk := await output.read(CHUNK_BYTES):
                for line in splitter.feed(chunk):
                    await self._heard(line)
            for line in splitter.finish():
                await self._heard(line)
            await self._gone_within(GUARD_SECONDS)  # so that `why_ended` knows the exit code
        finally:
            self._end_output()

    def _end_output(self) -> None:
        """Nothing comes any more: whoever waits is told so."""
        self._output_ended = True
        if self._hooks is not None:
            self._hooks.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ProcessEnded(self.why_ended()))
        if self._listener is not None:
            if self._listener.full():  # only when reading was cancelled
                self._listener.get_nowait()
            self._listener.put_nowait(None)

    async def _heard(self, line: dict[str, Any]) -> None:
        match line.get("type"):
            case "control_response":
                self._answered(line.get("response"))
            case "control_request":
                self._asked(line)
            case "control_cancel_request" if self._hooks is not None:
                self._hooks.cancel(str(line.get("request_id")))
            case _:
                if self._hooks is not None:
                    self._hooks.see(line)
                if self._listener is not None:
                    await self._listener.put(line)

    def _answered(self, response: Any) -> None:
        if not isinstance(response, dict):
            return
        answer = self._answers.get(str(response.get("request_id")))
        if answer is not None and not answer.done():
            answer.set_result(response)

    def _asked(self, line: dict[str, Any]) -> None:
        """The CLI asks: about a tool call, by our hook; no other hook or dialogue is ours to grant, but it
        must not wait for us.
        """
        number, request = str(line.get("request_id")), line.get("request")
        match request.get("subtype") if isinstance(request, dict) else None:
            case "hook_callback" if self._hooks is not None:
                self._hooks.asked(number, cast(dict[str, Any], request), line.get(CLEANED))
            case "too_long":  # `claude_lines` left out what was asked
                self._respond(number, refusal("These arguments are too long to be looked at."))
            case "can_use_tool":
                denial = {"behavior": "deny", "message": "This tool is not allowed for this agent."}
                self._respond(number, denial)
            case _:
                self._answer(
                    {"request_id": number, "subtype": "error", "error": "not supported by hyperhive"}
                )

    def _respond(self, number: str, response: Mapping[str, Any]) -> None:
        self._answer({"request_id": number, "subtype": "success", "response": response})

    def _answer(self, answer: Mapping[str, Any]) -> None:
        with contextlib.suppress(ProcessEnded):
            self._write_now({"type": "control_response", "response": answer})

    async def _read_stderr(self) -> None:
        stderr = cast(asyncio.StreamReader, self._process.stderr)
        while chunk := await stderr.read(CHUNK_BYTES):
            self._stderr += chunk
            del self._stderr[:-STDERR_KEPT_BYTES]

    # --- what it takes ---

    def rss_bytes(self) -> int:
        """Resident memory of the CLI and everything below it."""
        return sum(_rss_bytes(pid) for pid in guard.descendants(self.pid))

    def has_orphans(self) -> bool:
        """Whether something that it started goes on in the background, such as a server begun with `&`."""
        return sum(parent == self.pid for _, parent in guard.processes()) > 1

    # --- ending ---

    def kill(self) -> None:
        """End it and everything below it at once. `close` waits for that to be done."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def close(self, grace_seconds: float = CLOSE_SECONDS) -> None:
        """Let it leave by itself, or end it; nothing of it is left afterwards. May be called again."""
        with contextlib.suppress(ConnectionError):
            self._input().close()
        if not await self._gone_within(grace_seconds):
            self.kill()
            if not await self._gone_within(GUARD_SECONDS):
                self._kill_group()
                await self._gone_within(GUARD_SECONDS)
        await self._all_read()

    async def _all_read(self) -> None:
        """Both readers end with the output; unless somebody unkillable still holds it open."""
        _, pending = await asyncio.wait(self._tasks, timeout=GUARD_SECONDS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _gone_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _kill_group(self) -> None:
        for pid in [*guard.descendants(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _until_none(queue: asyncio.Queue[dict[str, Any] | None]) -> AsyncIterator[dict[str, Any]]:
    while (line := await queue.get()) is not None:
        yield line


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0  # it has ended meanwhile
