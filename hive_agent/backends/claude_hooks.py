"""Our hook in the Claude Code CLI: it asks before every tool call, and waits for the answer.

Tried with Claude Code 2.1.197: a `PreToolUse` hook that is registered with `initialize` is asked by a
`hook_callback` before each call, those that the CLI takes for harmless included; its `allow` and `deny` hold
whatever the CLI's own rules say. It waits as long as the hook's `timeout` (in seconds; a timer of JavaScript
goes up to 24 days), the process stays responsive meanwhile, and an interrupt comes as a
`control_cancel_request`. Other than by `can_use_tool` the arguments need not be sent back, which would not
do: secrets are taken out of what we read.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from hive_agent.backends.tool_gate import ToolDecision, ToolGate
from hive_shared.permissions import ToolCall

log = logging.getLogger(__name__)

HOOK_SECONDS: Final = 2_000_000
TOOL_HOOK: Final = {"PreToolUse": [{"hookCallbackIds": ["hyperhive"], "timeout": HOOK_SECONDS}]}
SAID_MAX_CHARACTERS: Final = 1000

Respond = Callable[[str, Mapping[str, Any]], None]


def refusal(message: str) -> dict[str, Any]:
    """The hook's no; the model reads the message as the tool's result."""
    return _decision("deny", message)


def _decision(decision: str, reason: str) -> dict[str, Any]:
    return {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": decision,
            "permissionDecisionReason": reason,
        }
    }


class ToolHooks:
    """The calls of one process that are being decided."""

    def __init__(self, gate: ToolGate, respond: Respond) -> None:
        self._gate = gate
        self._respond = respond
        self._deciding: dict[str, asyncio.Task[None]] = {}
        self._said = ""

    def see(self, line: Mapping[str, Any]) -> None:
        """What the model wrote last may be why it calls a tool."""
        message = line.get("message")
        if line.get("type") != "assistant" or not isinstance(message, Mapping):
            return
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            text = block.get("text") if isinstance(block, Mapping) else None
            if isinstance(text, str):
                self._said = text[:SAID_MAX_CHARACTERS]

    def asked(self, number: str, request: Mapping[str, Any], cleaned: Any = None) -> None:
        """Answer request `number` once it is decided; `cleaned` is what may be told of it, if not all."""
        task = asyncio.create_task(self._decide(number, request, cleaned), name=f"tool call {number}")
        self._deciding[number] = task
        task.add_done_callback(lambda _: self._deciding.pop(number, None))

    def cancel(self, number: str) -> None:
        """The CLI does not wait for that one any more."""
        if number in self._deciding:
            self._deciding[number].cancel()

    def close(self) -> None:
        """The process has ended."""
        for task in self._deciding.values():
            task.cancel()

    async def _decide(self, number: str, request: Mapping[str, Any], cleaned: Any) -> None:
        try:
            call = _call(request)
            if isinstance(cleaned, Mapping):
                call = replace(call, shown=_call(cleaned).input)
            answer = _as_answer(await self._gate.check(call, self._said))
        except Exception:
            log.exception("a tool call could not be decided")
            answer = refusal("The harness could not decide about this call.")
        self._respond(number, answer)


def _call(request: Mapping[str, Any]) -> ToolCall:
    asked = request.get("input")
    asked = asked if isinstance(asked, Mapping) else {}
    arguments = asked.get("tool_input")
    return ToolCall(
        str(asked.get("tool_name", "")),
        arguments if isinstance(arguments, Mapping) else {},
        str(asked.get("cwd") or "/"),
    )


def _as_answer(decision: ToolDecision | None) -> dict[str, Any]:
    if decision is None:
        return {}
    return _decision("allow", "") if decision.allowed else refusal(decision.message)
