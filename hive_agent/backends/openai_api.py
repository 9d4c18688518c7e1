"""One inference of a chat-completions API: the request, its streamed answer, and what a refusal means.

Facts, from OpenAI's reference and from what Ollama, llama.cpp's server and vLLM send:

- `stream_options.include_usage` adds a last chunk with `usage` and no choices; all of them know it.
  `prompt_tokens` includes `prompt_tokens_details.cached_tokens`.
- Pieces of a tool call belong together by `index`; some servers leave it out and send each call whole.
- An overflowing prompt is 400 with `code: context_length_exceeded` (OpenAI), `type:
  exceed_context_size_error` (llama.cpp), or only a sentence that says so (vLLM). Ollama tells nothing and
  cuts the prompt: `OPENAI_CONTEXT_TOKENS` is for that.
- An error may come within a stream whose status was 200, as an object with `error`.
- Some gateways answer a streamed request with one JSON object; it is read as well.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2

from hive_agent.backends.base import Outcome
from hive_agent.backends.claude_outcome import Verdict

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 600.0  # without a whole line: a small machine reads a long prompt for minutes
LINE_MAX_BYTES = 1024 * 1024
ANSWER_MAX_BYTES = 32 * 1024 * 1024  # as it comes over the wire, one JSON object around every token
TEXT_MAX_CHARACTERS = 1024 * 1024
CALLS_MAX = 64
ERROR_MAX_BYTES = 64 * 1024
NOTE_MAX_CHARACTERS = 500

_OVERFLOW_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_OVERFLOW_TEXT = re.compile(
    r"context (?:length|size|window)|maximum context|prompt is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)


class ApiFailure(Exception):
    """The API gave no answer that can be used; `verdict` is how the turn ends."""

    def __init__(self, outcome: Outcome, note: str, resumes_at_ms: int | None = None) -> None:
        super().__init__(note)
        self.verdict = Verdict(outcome, note[:NOTE_MAX_CHARACTERS], resumes_at_ms)


@dataclass
class Call:
    """A tool call, with its arguments as the model wrote them."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Answer:
    """What one inference said."""

    id: str = ""
    model: str = ""
    text: str = ""
    thinking: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str = ""
    usage: dict[str, int] = field(default_factory=dict)  # by Claude Code's names, which the harness counts by


class ChatApi:
    """A client of one API; an async context manager."""

    def __init__(self, base_url: str, key: str | None, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._silence_seconds = silence_seconds
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._client = httpx2.AsyncClient(
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(silence_seconds, connect=CONNECT_SECONDS),
            verify=base_url.startswith("https:"),  # loading certificates takes time and memory
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def complete(self, body: dict[str, Any]) -> Answer:
        """The answer to `body`; raises `ApiFailure`."""
        request = body | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._client.stream("POST", self._url, json=request) as response:
                if response.status_code != 200:
                    raise refusal(response.status_code, response.headers, await _head(response))
                if "json" in response.headers.get("content-type", ""):
                    async with asyncio.timeout(self._silence_seconds):
                        return _whole(await _head(response, ANSWER_MAX_BYTES))
                return await _streamed(response.aiter_bytes(), self._silence_seconds)
        except (httpx2.TimeoutException, TimeoutError):
            raise ApiFailure(Outcome.RATE_LIMITED, f"{self._url} does not answer") from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise ApiFailure(Outcome.FAILED, f"OPENAI_BASE_URL is no address of an API: {error}") from None
        except httpx2.HTTPError as error:
            note = f"{self._url} cannot be reached: {error or type(error).__name__}"
            raise ApiFailure(Outcome.RATE_LIMITED, note) from None


def refusal(status: int, headers: Any, body: bytes) -> ApiFailure:
    """What an answer other than 200 means for the turn."""
    code, text = _told(body)
    note = f"the API answered {status}: {text}" if text else f"the API answered {status}"
    if status in (401, 403):
        return ApiFailure(Outcome.AUTH, note)
    if status == 413 or (status in (400, 422, 500) and _is_overflow(code, text)):
        return ApiFailure(Outcome.OVERFLOW, note)
    if status in (408, 409, 425, 429) or status >= 500:
        return ApiFailure(Outcome.RATE_LIMITED, note, _retry_at_ms(headers))
    if status == 404:
        note += "; is OPENAI_BASE_URL right, and does that API have the model?"
    return ApiFailure(Outcome.FAILED, note)


def _is_overflow(code: str, text: str) -> bool:
    return code in _OVERFLOW_CODES or _OVERFLOW_TEXT.search(text) is not None


def _told(body: bytes) -> tuple[str, str]:
    """The code and the message of an error; of something that is no JSON, its beginning."""
    value = _json(body)
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", body[:200].decode("utf-8", "replace").strip()
    codes = (error.get("code"), error.get("type"))
    known = [code for code in codes if isinstance(code, str)]
    code = next((code for code in known if code in _OVERFLOW_CODES), known[0] if known else "")
    return code, str(error.get("message") or code)


def _retry_at_ms(headers: Any) -> int | None:
    """`retry-after`, in seconds or as a date, as a Unix time."""
    value = str(headers.get("retry-after", "")).strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return time.time_ns() // 1_000_000 + int(float(value) * 1000)
    try:
        return int(parsedate_to_datetime(value).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


async def _head(response: httpx2.Response, max_bytes: int = ERROR_MAX_BYTES) -> bytes:
    held = bytearray()
    async for chunk in response.aiter_bytes():
        held += chunk[: max_bytes - len(held)]
        if len(held) >= max_bytes:
            break
    return bytes(held)


def _whole(body: bytes) -> Answer:
    value = _json(body)
    if not isinstance(value, dict):
        raise ApiFailure(
            Outcome.FAILED, f"the API's answer is not JSON: {body[:200].decode('utf-8', 'replace')}"
        )
    reading = _Reading()
    reading.take(value)
    return reading.answered()


async def _streamed(chunks: AsyncIterator[bytes], silence_seconds: float) -> Answer:
    """Read server-sent events until `[DONE]`; raises `ApiFailure` if they break off or are too large.

    Raises `TimeoutError` when no line was completed for so long: single bytes are no sign of life.
    """
    reading, held, total_bytes = _Reading(), bytearray(), 0
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(silence_seconds) as silence:
        async for chunk in chunks:
            total_bytes += len(chunk)
            held += chunk
            *lines, rest = held.split(b"\n")
            held = bytearray(rest)
            if total_bytes > ANSWER_MAX_BYTES or len(held) > LINE_MAX_BYTES:
                raise ApiFailure(Outcome.FAILED, "the API's answer is too large")
            for line in lines:
                if reading.event(bytes(line)):
                    return reading.answered()
            if lines:
                silence.reschedule(now() + silence_seconds)
    reading.event(bytes(held))
    return reading.answered()


class _Reading:
    """Puts an answer together from its pieces. Pieces of an unknown kind are passed over."""

    def __init__(self) -> None:
        self._answer = Answer()
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[object, tuple[Call, list[str]]] = {}
        self._room = TEXT_MAX_CHARACTERS
        self._done = False
        self._garbage = ""
        self._any = False

    def event(self, line: bytes) -> bool:
        """Take a line of the stream; whether it was the last one."""
        if not line.startswith(b"data:"):
            if line.lstrip().startswith((b"<", b"{")):  # no stream at all: a page, or an error
                self._garbage = line[:200].decode("utf-8", "replace")
            return False
        data = line[5:].strip()
        if data == b"[DONE]":
            self._done = True
            return True
        value = _json(data)
        if isinstance(value, dict):
            self._any = True
            self.take(value)
        elif data and not self._any:  # otherwise it is the half of an event, where the stream broke off
            self._garbage = data[:200].decode("utf-8", "replace")
        return False

    def take(self, value: dict[str, Any]) -> None:
        if value.get("error"):
            code, text = _told(json.dumps(value).encode())
            outcome = Outcome.OVERFLOW if _is_overflow(code, text) else Outcome.RATE_LIMITED
            raise ApiFailure(outcome, f"the API broke off: {text}")
        answer = self._answer
        answer.id = answer.id or _text(value.get("id"))
        answer.model = answer.model or _text(value.get("model"))
        if isinstance(value.get("usage"), dict):
            answer.usage = _usage(value["usage"])
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        answer.finish_reason = _text(choice.get("finish_reason")) or answer.finish_reason
        piece = choice.get("delta") or choice.get("message")
        if isinstance(piece, dict):
            self._add(piece)

    def _add(self, piece: dict[str, Any]) -> None:
        self._keep(self._text, piece.get("content") or piece.get("refusal"))
        self._keep(self._thinking, piece.get("reasoning_content") or piece.get("reasoning"))
        calls = piece.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._add_call(call)

    def _add_call(self, piece: dict[str, Any]) -> None:
        index, call_id = piece.get("index"), _text(piece.get("id"))
        if not isinstance(index, int):
            index = call_id or next(reversed(self._calls), 0)
        if index not in self._calls and len(self._calls) >= CALLS_MAX:
            raise ApiFailure(Outcome.FAILED, f"the model made more than {CALLS_MAX} tool calls at once")
        call, arguments = self._calls.setdefault(index, (Call(), []))
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call.id = call.id or call_id
        call.name = call.name or _text(function.get("name"))
        given = function.get("arguments")  # some servers send an object where the schema has text
        self._keep(arguments, json.dumps(given) if isinstance(given, dict) else given)

    def _keep(self, parts: list[str], text: Any) -> None:
        if not isinstance(text, str) or not text:
            return
        self._room -= len(text)
        if self._room < 0:
            raise ApiFailure(
                Outcome.FAILED, f"the model's answer has more than {TEXT_MAX_CHARACTERS} characters"
            )
        parts.append(text)

    def answered(self) -> Answer:
        """The whole answer; raises `ApiFailure` if it did not end as it should."""
        answer = self._answer
        if not (self._done or answer.finish_reason):
            if self._garbage:
                raise ApiFailure(Outcome.FAILED, f"the API's answer cannot be read: {self._garbage}")
            raise ApiFailure(Outcome.RATE_LIMITED, "the API's answer broke off")
        answer.text, answer.thinking = "".join(self._text), "".join(self._thinking)
        answer.calls = [
            Call(call.id, call.name, "".join(arguments)) for call, arguments in self._calls.values()
        ]
        return answer


def _usage(told: dict[str, Any]) -> dict[str, int]:
    details = told.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    prompt = _count(told.get("prompt_tokens"))
    return {
        "input_tokens": max(0, prompt - cached),
        "cache_read_input_tokens": min(cached, prompt),
        "output_tokens": _count(told.get("completion_tokens")),
    }


def _count(value: Any) -> int:
    return min(int(value), 2**53) if isinstance(value, int) and value > 0 else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _json(data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
