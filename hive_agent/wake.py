"""What a message looks like to the model: who wrote what, as data (SECURITY 12).

The text of a message stands between two marker lines with the same random code. The sender
cannot know the code beforehand, so no body can end itself early and go on in another's voice.
"""

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hive_shared.names import MANAGER, OPERATOR, SYSTEM
from hive_shared.wire import Message

CODE_BYTES = 6
CUT_SHORT = (
    "[hyperhive] The last attempt at this turn was cut short ({reason}). "
    "Carry on where it stopped; do not repeat what was already done."
)
BEGUN_ANEW = (
    "[hyperhive] This is a new conversation; what was said before is gone. "
    "What you wrote down is in {notes} and beside it: read it first."
)

_OPENING = re.compile(
    r"^\[hyperhive\] message (?P<id>\d+) from (?P<author>[^\n]*?)(?: \((?P<remarks>[^\n]*)\))?\n"
    r"--- (?P<sender>\S+) writes · (?P<code>[0-9a-f]+) ---\n",
    re.MULTILINE,
)
_REPLY = re.compile(r"in reply to message (\d+)")
_ASKS = re.compile(r"asks you question (\d+)")


def wake_prompt(
    message: Message, unread: int, me: str, *, notes: Path | None = None, notice: str = ""
) -> str:
    """The prompt of a turn: the one message that woke the agent, and whether more are waiting.

    With `notes`, the conversation has just begun anew, and that is where those of before are.
    """
    prompt = describe(message, me)
    if notes is not None:
        prompt = f"{BEGUN_ANEW.format(notes=notes)}\n{prompt}"
    if unread > 0:
        prompt += f"\n[hyperhive] {unread} more pending: take with the recv tool, or end the turn."
    if notice:
        prompt += f"\n[hyperhive] {_one_line(notice)}"
    return prompt


def resumed_prompt(prompt: str, reason: str) -> str:
    """The prompt of a second attempt at the same turn."""
    return f"{CUT_SHORT.format(reason=reason)}\n{prompt}"


def describe_all(messages: Iterable[Message], unread: int, me: str, *, notice: str = "") -> str:
    """What the recv tool answers."""
    parts = [describe(message, me) for message in messages]
    if not parts:
        return "No message is waiting. Do not poll: end the turn, and the next message wakes you."
    if unread:
        parts.append(f"[hyperhive] {unread} more pending.")
    if notice:
        parts.append(f"[hyperhive] {_one_line(notice)}")
    return "\n".join(parts)


def describe(message: Message, me: str, *, code: Callable[[], str] | None = None) -> str:
    """One message: a line from the hive about it, then its text between the markers."""
    remarks = _remarks(message)
    heading = f"[hyperhive] message {message.id} from {_author(message.sender, me)}"
    if remarks:
        heading += f" ({'; '.join(remarks)})"
    return f"{heading}\n{framed(f'{message.sender} writes', message.body, code)}"


def framed(title: str, text: str, code: Callable[[], str] | None = None) -> str:
    """What somebody else wrote, between two lines that it cannot forge. `title` is ours."""
    mark = _code_not_in(text, code or _random_code)
    return f"--- {title} · {mark} ---\n{text}\n--- end · {mark} ---"


@dataclass(frozen=True)
class Woken:
    """A wake prompt read back: what the rehearsal backend acts on."""

    id: int
    sender: str
    body: str
    in_reply_to: int | None
    asks: int | None = None


def read_wake_prompt(prompt: str) -> Woken | None:
    """The message in a wake prompt, or None if this is not one."""
    opening = _OPENING.search(prompt)
    if opening is None:
        return None
    body, end, _ = prompt[opening.end() :].partition(f"\n--- end · {opening['code']} ---")
    if not end:
        return None
    reply = _REPLY.search(opening["remarks"] or "")
    asks = _ASKS.search(opening["remarks"] or "")
    return Woken(
        int(opening["id"]),
        opening["sender"],
        body,
        int(reply[1]) if reply else None,
        int(asks[1]) if asks else None,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _random_code() -> str:
    return secrets.token_hex(CODE_BYTES)


def _code_not_in(body: str, code: Callable[[], str]) -> str:
    while (mark := code()) in body:
        continue
    return mark


def _author(sender: str, me: str) -> str:
    if sender == me:
        return "yourself: a reminder, or a turn that you asked for"
    known = {OPERATOR: "the operator", SYSTEM: "the hive itself: a fact", MANAGER: f"the manager {MANAGER}"}
    return known.get(sender, f"the agent {sender}")


def _remarks(message: Message) -> list[str]:
    remarks = []
    if message.in_reply_to is not None:
        remarks.append(f"in reply to message {message.in_reply_to}")
    if message.asks is not None and message.asks_closed:
        remarks.append(f"asked you question {message.asks}, closed by now: nobody waits for an answer")
    elif message.asks is not None:
        remarks.append(f"asks you question {message.asks}: answer with the answer tool, id {message.asks}")
    if message.answers is not None:
        remarks.append(
            f"about question {message.answers} of yours"
            if message.sender == SYSTEM
            else f"answers question {message.answers} of yours"
        )
    if message.broadcast:
        remarks.append("sent to everyone; it may need no action")
    if message.redelivered:
        remarks.append("delivered before: an earlier turn may already have acted on it, check first")
    return remarks
