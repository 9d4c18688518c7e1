"""Events of `codex exec --json` as the stream-json lines that pages and statistics know.

Facts, tried with Codex CLI 0.169.0 (items that no test here brings about are from its documentation):

- `thread.started`, `turn.started`, `item.started` / `item.updated` / `item.completed`, then `turn.completed`
  with `usage`, or `turn.failed` with `error.message`; `error` announces retries as well as the end.
- `usage` is that of the whole thread, its earlier turns included; `input_tokens` includes the cached ones.
- An API's refusal comes as a sentence only: `unexpected status 401 Unauthorized: …`, `exceeded retry limit,
  last status: 429 …`, `rate limit exceeded: … try again in 11.054s`, `Codex ran out of room in the model's
  context window. …`, `… experiencing high demand …` for 5xx. The sentence is the CLI's, not the model's.
"""

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from hive_agent.backends.base import Outcome
from hive_agent.backends.claude_lines import note_line
from hive_agent.backends.claude_outcome import NOTE_MAX_CHARACTERS, Verdict
from hive_agent.backends.openai_run import shortened

_STATUS = re.compile(r"(?:unexpected status|last status:) (\d{3})\b")
_AGAIN = re.compile(r"try again in (\d{1,7}(?:\.\d{1,9})?)\s*(ms|s|m)\b", re.IGNORECASE)
_NOT_LOGGED_IN = re.compile(r"not logged in|missing environment variable|401 unauthorized", re.IGNORECASE)
_FULL = re.compile(r"ran out of room in the model's context window", re.IGNORECASE)
_BUSY = re.compile(
    r"rate limit|usage limit|high demand|overloaded|stream disconnected|error sending request|connection",
    re.IGNORECASE,
)
_UNITS = {"ms": 1, "s": 1000, "m": 60_000}
_USAGE = {
    "cached_input_tokens": "cache_read_input_tokens",
    "cache_write_input_tokens": "cache_creation_input_tokens",
    "output_tokens": "output_tokens",
}

Line = dict[str, Any]


class Reading:
    """One turn's events. `before` is the thread's usage until then, by Codex's names."""

    def __init__(self, model: str, before: Mapping[str, int]) -> None:
        self._model = model
        self._before = before
        self._shown: set[str] = set()
        self.thread = ""
        self.total: dict[str, int] = dict(before)
        self.said = ""
        self.completed = False
        self.error = ""

    def lines(self, event: Line) -> list[Line]:
        """What an event is shown as; nothing for kinds that are not known."""
        match event.get("type"):
            case "thread.started":
                self.thread = _text(event.get("thread_id"))
                return [
                    {"type": "system", "subtype": "init", "model": self._model, "session_id": self.thread}
                ]
            case "item.started" | "item.updated" | "item.completed":
                item = event.get("item")
                done = event["type"] == "item.completed"
                return self._item(item, done=done) if isinstance(item, dict) else []
            case "turn.completed":
                self.completed = True
                self._count(event.get("usage"))
            case "turn.failed":
                error = event.get("error")
                self.error = _text(error.get("message")) if isinstance(error, dict) else ""
                self.error = self.error or "Codex reported a failure without a reason"
            case "error":
                return [note_line(_text(event.get("message"))[:NOTE_MAX_CHARACTERS])]
            case "system":  # a note of our own, about a line that could not be read
                return [event]
        return []

    def _item(self, item: Line, *, done: bool) -> list[Line]:
        kind = item.get("type")
        if kind in ("agent_message", "reasoning"):
            return self._words(item, _text(item.get("text"))) if done else []
        if kind == "error":
            return [note_line(_text(item.get("message"))[:NOTE_MAX_CHARACTERS])] if done else []
        called = _call(item)
        if called is None:
            return []
        call_id, lines = _text(item.get("id")), []
        if call_id not in self._shown:
            self._shown.add(call_id)
            name, arguments = called
            block: Line = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
            lines.append(self._assistant(call_id, block))
        if done:
            text, is_error = _result(item)
            block = {"type": "tool_result", "tool_use_id": call_id, "content": text, "is_error": is_error}
            lines.append({"type": "user", "message": {"role": "user", "content": [block]}})
        return lines

    def _words(self, item: Line, text: str) -> list[Line]:
        if not text:
            return []
        if item["type"] == "reasoning":
            return [self._assistant(_text(item.get("id")), {"type": "thinking", "thinking": text})]
        self.said = text
        return [self._assistant(_text(item.get("id")), {"type": "text", "text": text})]

    def _assistant(self, item_id: str, block: Line) -> Line:
        message = {"id": item_id, "role": "assistant", "model": self._model, "content": [block]}
        return {"type": "assistant", "message": message}

    def _count(self, usage: Any) -> None:
        told = usage if isinstance(usage, dict) else {}
        for name in ("input_tokens", *_USAGE):
            value = told.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
                self.total[name] = value

    def usage(self) -> dict[str, int]:
        """Of this turn, by Claude Code's names."""
        turn = {
            name: max(0, self.total.get(name, 0) - self._before.get(name, 0))
            for name in ("input_tokens", *_USAGE)
        }
        counted = {ours: turn[name] for name, ours in _USAGE.items()}
        return {"input_tokens": max(0, turn["input_tokens"] - turn["cached_input_tokens"]), **counted}

    def verdict(self, why_ended: str) -> Verdict:
        """How the turn ended, once the process has; `why_ended` is for one that did not tell."""
        if self.completed:
            return Verdict(Outcome.OK)
        return failure(self.error or why_ended)


def failure(message: str) -> Verdict:
    """What a sentence of the CLI means."""
    note = message[:NOTE_MAX_CHARACTERS]
    found = _STATUS.search(message)
    status = int(found[1]) if found else 0
    if status in (401, 403) or _NOT_LOGGED_IN.search(message):
        return Verdict(Outcome.AUTH, note)
    if _FULL.search(message):  # it compacts by itself; when that does not help, nothing of ours will
        return Verdict(Outcome.FAILED, f"{note} A new session helps.")
    if status == 429 or status >= 500 or (not status and _BUSY.search(message)):
        again = _AGAIN.search(message)
        delay_ms = int(float(again[1]) * _UNITS[again[2].lower()]) if again else None
        return Verdict(
            Outcome.RATE_LIMITED, note, None if delay_ms is None else time.time_ns() // 1_000_000 + delay_ms
        )
    return Verdict(Outcome.FAILED, note)


def _call(item: Line) -> tuple[str, Line] | None:
    """The tool and its arguments, by the names that all backends use where there is one."""
    match item.get("type"):
        case "command_execution":
            return "Bash", {"command": _text(item.get("command"))}
        case "mcp_tool_call":
            arguments = item.get("arguments")
            name = f"mcp__{_text(item.get('server'))}__{_text(item.get('tool'))}"
            return name, arguments if isinstance(arguments, dict) else {}
        case "file_change":
            return "ApplyPatch", {"changes": item.get("changes")}
        case "web_search":
            return "WebSearch", {"query": _text(item.get("query"))}
        case "todo_list":
            listed = item.get("items")
            return "TodoWrite", {
                "todos": [_todo(each) for each in listed] if isinstance(listed, list) else []
            }
    return None


def _todo(each: Any) -> Line:
    each = each if isinstance(each, dict) else {}
    return {
        "content": _text(each.get("text")),
        "status": "completed" if each.get("completed") is True else "pending",
    }


def _result(item: Line) -> tuple[str, bool]:
    failed = item.get("status") in ("failed", "declined")
    if item.get("type") == "command_execution":
        code = item.get("exit_code")
        ended = f"\nExit code {code}" if isinstance(code, int) and code else ""
        return shortened(_text(item.get("aggregated_output"))) + ended, failed or bool(ended)
    error = item.get("error")
    if error:
        return _text(error.get("message")) if isinstance(error, dict) else str(error), True
    result = item.get("result")
    content = result.get("content") if isinstance(result, dict) else None
    if isinstance(content, list):
        parts = (_text(part.get("text")) if isinstance(part, dict) else "" for part in content)
        return shortened("\n".join(part or "[not text]" for part in parts)), failed
    return shortened(json.dumps(item.get("changes"))) if item.get("changes") else "done", failed


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
