"""Notices two agents that keep answering each other (SPEC section 5, loop breaker).

In memory and synchronous: it is told of every message as it is committed, and says which pair has gone too
far. What a message says is never looked at, only who wrote to whom, and when.
"""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from hive_shared.names import OPERATOR, SYSTEM
from hive_shared.wire import Message

# A third agent's messages are a reason to talk, but three agents could keep each other going for ever:
# so many times the limit is too much, whoever else takes part, as long as it is no person.
WITH_OTHERS_FACTOR: Final = 3
# Each of the two must have written at least this part of the messages; else it is no exchange, and the
# limit on one sender's rate is what bounds it.
SHARE_MIN: Final = 0.25

# Events from the hive that come of a decision of the operator. Others an agent can bring about itself, such
# as by a question that expires, and would talk on for ever.
DECISIONS: Final = frozenset(
    {"operator_answered", "question_cancelled", "approval_resolved", "spawned", "rebuilt", "killed"}
)

Pair = tuple[str, str]  # in the order of their names


@dataclass(frozen=True)
class LoopLimits:
    """When an exchange between two agents counts as a loop; `messages` 0 for never."""

    messages: int = 40
    window_seconds: float = 300.0


@dataclass(eq=False)
class _Exchange:
    """What two agents wrote to each other lately: when, and whether the first of the pair wrote it."""

    alone: deque[tuple[float, bool]]  # since anybody else wrote to one of them
    without_a_person: deque[tuple[float, bool]]


def _exchange(limits: LoopLimits) -> _Exchange:
    # Twice what is looked for, so that a few more from one side do not push out the other's.
    return _Exchange(
        deque(maxlen=2 * limits.messages), deque(maxlen=2 * limits.messages * WITH_OTHERS_FACTOR)
    )


@dataclass
class Exchanges:
    """All exchanges between agents of this hive."""

    limits: LoopLimits
    _of: dict[Pair, _Exchange] = field(default_factory=dict)
    _pairs: dict[str, set[Pair]] = field(default_factory=dict)

    def note(self, message: Message, now_seconds: float) -> Pair | None:
        """Count a message that was committed; the pair whose exchange is a loop by now.

        Messages of an agent to itself, such as reminders, are no input of anybody else.
        """
        sender, to = message.sender, message.to
        if not self.limits.messages or to == OPERATOR or sender == to:
            return None
        if sender == OPERATOR or (sender == SYSTEM and _is_decision(message.body)):
            self._somebody_decided(to)
            return None
        if sender == SYSTEM:
            return None
        pair = pair_of(sender, to)
        for other in self._pairs.get(to, ()):
            if other != pair:
                self._of[other].alone.clear()
        return pair if self._grows(pair, sender, now_seconds) else None

    def forget(self, pair: Pair) -> None:
        """Begin to count anew."""
        if self._of.pop(pair, None) is not None:
            for name in pair:
                self._pairs[name].discard(pair)

    def _somebody_decided(self, to: str) -> None:
        for pair in list(self._pairs.get(to, ())):
            self.forget(pair)

    def _grows(self, pair: Pair, sender: str, now_seconds: float) -> bool:
        exchange = self._of.get(pair)
        if exchange is None:
            exchange = self._of[pair] = _exchange(self.limits)
            for name in pair:
                self._pairs.setdefault(name, set()).add(pair)
        oldest_seconds = now_seconds - self.limits.window_seconds
        loops = False
        for written, limit in (
            (exchange.alone, self.limits.messages),
            (exchange.without_a_person, self.limits.messages * WITH_OTHERS_FACTOR),
        ):
            written.append((now_seconds, sender == pair[0]))
            while written[0][0] < oldest_seconds:
                written.popleft()
            loops = loops or _is_loop(written, limit)
        return loops


def pair_of(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _is_loop(written: deque[tuple[float, bool]], limit: int) -> bool:
    if len(written) < limit:
        return False
    by_first = sum(first for _, first in written)
    return min(by_first, len(written) - by_first) >= limit * SHARE_MIN


def _is_decision(body: str) -> bool:
    """Whether a message of the hive itself tells of something that the operator decided."""
    try:
        event = json.loads(body)
    except ValueError:
        return False
    return isinstance(event, dict) and event.get("event") in DECISIONS
