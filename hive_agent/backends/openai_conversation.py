"""The conversation of the `openai` backend: the messages of the API, kept one to a line across restarts.

The file lies where the agent can write. It is read as data: without following a link, to a limit, and a line
that is no message is passed over.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hive_agent.backends.claude_command import read_small_file

log = logging.getLogger(__name__)

FILE_NAME = "openai-conversation.jsonl"
FILE_MAX_BYTES = 32 * 1024 * 1024
SUMMARY_MESSAGE_CHARACTERS = 4000  # of one message, when it is to be summarised
INTERRUPTED = "Interrupted: it is not known how far this call got."

Message = dict[str, Any]


class Conversation:
    """What was said so far, without the system prompt."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE_NAME
        self.messages = _read(self._file)

    def add(self, message: Message) -> None:
        self.messages.append(message)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._file, flags, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(json.dumps(message).encode() + b"\n")
        except OSError as error:  # a full disk costs the memory across restarts, nothing more
            log.warning("%s: %s; the conversation lasts until the next restart", self._file, error.strerror)

    def replace(self, messages: Iterable[Message]) -> None:
        self.messages = list(messages)
        fresh = self._file.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(json.dumps(message).encode() + b"\n" for message in self.messages)
            fresh.rename(self._file)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            log.warning("%s: %s; the conversation lasts until the next restart", self._file, error.strerror)

    def mend(self) -> None:
        """Answer every tool call that a stopped turn left without a result: APIs refuse them."""
        mended = list(_mended(self.messages))
        if mended != self.messages:
            self.replace(mended)

    def to_send(self, system: str) -> list[Message]:
        """As a request has it. A user's messages in a row are joined: some models' templates refuse them."""
        sent: list[Message] = [{"role": "system", "content": system}]
        for message in self.messages:
            if message["role"] == sent[-1]["role"] == "user":
                sent[-1] = sent[-1] | {"content": f"{sent[-1]['content']}\n\n{message['content']}"}
            else:
                sent.append(message)
        return sent

    def as_text(self) -> list[str]:
        """Every message as a paragraph, long ones shortened: what a summary is made of."""
        return [_as_text(message) for message in self.messages]


def _mended(messages: Iterable[Message]) -> Iterable[Message]:
    open_calls: dict[str, None] = {}
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                continue  # the answer to nothing
            del open_calls[message["tool_call_id"]]
        else:
            yield from _interrupted(open_calls)
            open_calls = {call["id"]: None for call in message.get("tool_calls", ())}
        yield message
    yield from _interrupted(open_calls)


def _interrupted(calls: Iterable[str]) -> Iterable[Message]:
    return [{"role": "tool", "tool_call_id": call, "content": INTERRUPTED} for call in calls]


def _as_text(message: Message) -> str:
    text = str(message.get("content") or "")
    for call in message.get("tool_calls", ()):
        text += f"\n[calls {call['function']['name']} {call['function']['arguments']}]"
    half = SUMMARY_MESSAGE_CHARACTERS // 2
    if len(text) > SUMMARY_MESSAGE_CHARACTERS:
        text = f"{text[:half]}\n[…]\n{text[-half:]}"
    return f"{message['role']}: {text.strip()}"


def _read(file: Path) -> list[Message]:
    data = read_small_file(file, FILE_MAX_BYTES)
    if data is None:
        if file.is_symlink() or file.exists():
            log.warning("%s is no file of at most %d bytes; starting afresh", file, FILE_MAX_BYTES)
        return []
    return [message for line in data.splitlines() if (message := _message(line)) is not None]


def _message(line: bytes) -> Message | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    content = value.get("content")
    match value.get("role"):
        case "user" if isinstance(content, str):
            return {"role": "user", "content": content}
        case "tool" if isinstance(content, str) and isinstance(value.get("tool_call_id"), str):
            return {"role": "tool", "tool_call_id": value["tool_call_id"], "content": content}
        case "assistant" if isinstance(content, str) or content is None:
            calls = value.get("tool_calls", [])
            if isinstance(calls, list) and all(_is_call(call) for call in calls):
                return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
    return None


def _is_call(call: Any) -> bool:
    if not isinstance(call, dict) or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return isinstance(function, dict) and all(
        isinstance(function.get(name), str) for name in ("name", "arguments")
    )
