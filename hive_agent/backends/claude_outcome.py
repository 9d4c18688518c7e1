"""What a turn of Claude Code came to, read from the fields of its lines and never from what an agent said.

Facts, measured with Claude Code 2.1.197 against a scripted API:

- `result` has `is_error`, `api_error_status` (the HTTP status, or null), and `terminal_reason`:
  `completed`, `prompt_too_long`, `aborted_streaming` and `aborted_tools` after an interrupt. Its
  `subtype` stays `success` after an API error; `error_during_execution` means interrupted or broken.
- Before such a `result` comes an `assistant` line with model `<synthetic>` and a top-level `error`:
  `authentication_failed` (401, 403, and no credentials at all, then without a status),
  `rate_limit` (429), `server_error` (5xx, time-outs, no connection), `invalid_request`,
  `billing_error`, `model_not_found`, `unknown`.
- Every attempt that the CLI repeats is announced: `system/api_retry` with `attempt`, `error_status`,
  `retry_delay_ms`. It repeats 401 with an API key, 429, 5xx and lost connections, 10 times over
  160 seconds unless `CLAUDE_CODE_MAX_RETRIES` says otherwise. A `retry-after` of up to 60 seconds
  is obeyed and shows in `retry_delay_ms`; with a longer one it gives up at once, without naming it.
- With a subscription's token, `rate_limit_event` tells `rate_limit_info.status` (`allowed`,
  `allowed_warning`, `rejected`) and `resetsAt` (Unix seconds); the `result` is then a 429 at once.
- `usage` of a `result` is that turn's sum, also in a warm process. `total_cost_usd` adds up since
  the process started, and begins at 0 again after `--continue`. `usage` of an `assistant` line is
  what the inference began with: right for its input, not yet for its output.
"""

import time
from dataclasses import dataclass
from typing import Any

from hive_agent.backends.base import Outcome
from hive_shared.events import TurnStats

SYNTHETIC = "<synthetic>"
COMPACT_FAILED = "the conversation could not be compacted"
PATIENCE_SECONDS = 15.0  # a longer announced delay is for the harness to wait out, with a badge that says so
RETRYING_MAX_SECONDS = 90.0  # as is a row of short ones
AUTH_ATTEMPTS_MAX = 2  # a key that was refused twice stays refused
NOTE_MAX_CHARACTERS = 2000

_AUTH_STATUS = frozenset({401, 403})
_AUTH_ERRORS = frozenset({"authentication_failed", "oauth_org_not_allowed"})
_LIMIT_ERRORS = frozenset({"rate_limit", "overloaded", "server_error", "billing_error"})


@dataclass(frozen=True)
class Verdict:
    """How a turn ended; `TurnResult` without its figures."""

    outcome: Outcome
    note: str = ""
    resumes_at_ms: int | None = None


class Tally:
    """Reads the lines of one turn and adds them up. `cost_before_usd` is the process's cost so far."""

    def __init__(self, model: str, cost_before_usd: float = 0.0) -> None:
        self.model = model
        self.cost_before_usd = cost_before_usd
        self.cost_total_usd = cost_before_usd
        self.result: dict[str, Any] | None = None
        self.session_id: str | None = None
        self.inferences = 0
        self.compacted = False
        self._started_at_ms = _now_ms()
        self._started = time.monotonic()
        self._retrying_since: float | None = None
        self._usage_of_messages: dict[str, dict[str, Any]] = {}
        self._usage_before: list[dict[str, Any]] = []
        self._context_tokens = 0
        self._tools: dict[str, str] = {}
        self._error = ""
        self._error_text = ""
        self._compact_error = ""
        self._resets_at_ms: int | None = None

    @property
    def began(self) -> bool:
        """Whether the CLI got as far as taking up a conversation."""
        return self.session_id is not None

    def see(self, line: dict[str, Any]) -> None:
        """Take one line into account; unknown kinds, and odd lines of known kinds, are passed over."""
        match line.get("type"), line.get("subtype"):
            case "assistant", _:
                self._see_assistant(line)
            case "result", _:
                self._see_result(line)
            case "rate_limit_event", _:
                self._see_limit(_object(line.get("rate_limit_info")))
            case "system", "init":
                self.session_id = _text(line.get("session_id")) or None
            case "system", "status":
                self._compact_error = _text(line.get("compact_error")) or self._compact_error
            case "system", "compact_boundary":
                self.compacted = True
                self._see_compacted(_object(line.get("compact_metadata")))

    def _see_assistant(self, line: dict[str, Any]) -> None:
        message = _object(line.get("message"))
        if message.get("model") == SYNTHETIC:
            self._error = _text(line.get("error"))
            self._error_text = _text_of(message.get("content"))
            return
        for block in _list(message.get("content")):
            if _object(block).get("type") == "tool_use":
                self._tools[_text(block.get("id")) or str(len(self._tools))] = _text(block.get("name"))
        self._retrying_since = None
        self._see_usage(message, is_sub_agent=line.get("parent_tool_use_id") is not None)

    def _see_usage(self, message: dict[str, Any], *, is_sub_agent: bool) -> None:
        usage, message_id = _object(message.get("usage")), _text(message.get("id"))
        if message_id not in self._usage_of_messages:
            self.inferences += 1
        self._usage_of_messages[message_id] = usage
        if is_sub_agent:
            return
        self.model = _text(message.get("model")) or self.model
        parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        self._context_tokens = sum(_count(usage, part) for part in parts) or self._context_tokens

    def _see_result(self, line: dict[str, Any]) -> None:
        self.result = line
        cost = line.get("total_cost_usd")
        if isinstance(cost, int | float) and cost >= self.cost_before_usd:
            self.cost_total_usd = float(cost)

    def _see_limit(self, info: dict[str, Any]) -> None:
        resets_at = info.get("resetsAt")
        rejected = info.get("status") == "rejected" and isinstance(resets_at, int | float)
        self._resets_at_ms = int(resets_at * 1000) if rejected and resets_at else None

    def _see_compacted(self, metadata: dict[str, Any]) -> None:
        self._context_tokens = _count(metadata, "post_tokens")  # 0 (unknown) if this version does not tell

    def gives_up(self, line: dict[str, Any]) -> Verdict | None:
        """Whether `line` announces a retry that is not worth waiting for inside the turn."""
        if line.get("type") != "system" or line.get("subtype") != "api_retry":
            return None
        now = time.monotonic()
        self._retrying_since = self._retrying_since or now
        status, attempt, delay_ms = (
            _count(line, "error_status"),
            _count(line, "attempt"),
            _count(line, "retry_delay_ms"),
        )
        if status in _AUTH_STATUS:
            note = f"the API refused the credentials ({status})"
            return Verdict(Outcome.AUTH, note) if attempt >= AUTH_ATTEMPTS_MAX else None
        if delay_ms <= PATIENCE_SECONDS * 1000 and now - self._retrying_since <= RETRYING_MAX_SECONDS:
            return None
        named = status == 429 and delay_ms > PATIENCE_SECONDS * 1000
        what = f"answered {status}" if status else "could not be reached"
        return Verdict(
            Outcome.RATE_LIMITED, f"the API {what}, {attempt} times", _now_ms() + delay_ms if named else None
        )

    def verdict(self) -> Verdict:
        """How the turn ended, by its `result` (`self.result` must be there)."""
        result = self.result or {}
        if not result.get("is_error") and result.get("subtype") == "success":
            return Verdict(Outcome.OK)
        status, text = _count(result, "api_error_status"), self._why(result)
        if self._is_overflow(result, status):
            return Verdict(Outcome.OVERFLOW, text)
        if status in _AUTH_STATUS or self._error in _AUTH_ERRORS:
            return Verdict(Outcome.AUTH, text)
        if status == 429 or status >= 500 or self._error in _LIMIT_ERRORS:
            return Verdict(Outcome.RATE_LIMITED, text, self._resets_at_ms)
        return Verdict(Outcome.FAILED, text)

    def compact_verdict(self) -> Verdict:
        """As `verdict`, for a turn that was to compact: a `result` without an error is not enough."""
        verdict = self.verdict()
        if verdict.outcome is not Outcome.OK or self.compacted:
            return verdict
        return Verdict(
            Outcome.FAILED, f"{COMPACT_FAILED}: {self._compact_error or self._error_text or 'no reason'}"
        )

    def _is_overflow(self, result: dict[str, Any], status: int) -> bool:
        if result.get("terminal_reason") == "prompt_too_long":
            return True
        # Versions without that field. The text is the CLI's own: it stands in a synthetic line.
        is_request = status == 400 and self._error in ("invalid_request", "")
        return is_request and self._error_text.startswith("Prompt is too long")

    def _why(self, result: dict[str, Any]) -> str:
        errors = "; ".join(_text(error) for error in _list(result.get("errors")))
        text = self._error_text or _text(result.get("result")) or errors or _text(result.get("subtype"))
        return text[:NOTE_MAX_CHARACTERS] or "Claude Code reported an error without a reason"

    def stats(self, outcome: Outcome) -> TurnStats:
        """The figures of the turn so far."""
        usage = _object((self.result or {}).get("usage"))
        told = any(_count(usage, name) for name in usage)  # an interrupted or killed turn may tell nothing
        usages = [*self._usage_before, *([usage] if told else self._usage_of_messages.values())]
        tools: dict[str, int] = {}
        for name in self._tools.values():
            tools[name] = tools.get(name, 0) + 1

        def total(name: str) -> int:
            return sum(_count(usage, name) for usage in usages)

        return TurnStats(
            started_at_ms=self._started_at_ms,
            duration_ms=int((time.monotonic() - self._started) * 1000),
            input_tokens=total("input_tokens"),
            output_tokens=total("output_tokens"),
            cache_read_tokens=total("cache_read_input_tokens"),
            cache_creation_tokens=total("cache_creation_input_tokens"),
            context_tokens=self._context_tokens,
            cost_usd=max(0.0, self.cost_total_usd - self.cost_before_usd),
            model=self.model,
            outcome=outcome.value,
            tools=tools,
        )

    def restarted(self) -> None:
        """The turn goes on in a fresh process, whose cost counts from 0: keep what was seen so far."""
        self.result = None
        self._retrying_since = None
        self._usage_before += self._usage_of_messages.values()
        self._usage_of_messages = {}
        self._error = self._error_text = ""
        self.cost_before_usd -= self.cost_total_usd
        self.cost_total_usd = 0.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text_of(content: Any) -> str:
    return " ".join(_text(_object(block).get("text")) for block in _list(content)).strip()


def _count(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0
