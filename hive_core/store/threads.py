"""A message, what it answers, and what answers that: threads by `in_reply_to` (SPEC section 5).

A reply is younger than what it answers, so there are no circles unless a database was written by hand; those
end as well. How long a thread gets is up to agents: what is read of one is bounded in both directions.
"""

from typing import Final

from sqlalchemy import Connection

from hive_core.store.messages import answers_to, one
from hive_shared.wire import Message

THREAD_MAX: Final = 200  # messages of one thread
ABOVE_MAX: Final = 100  # of those, what is looked at above the one that was asked for


def thread_of(connection: Connection, number: int) -> tuple[list[Message], bool]:
    """The thread of a message, oldest first, and whether it has more; nothing if there is no such message.

    Of a thread that is too long, what leads to the message and the oldest of the others. One that is
    removed from the store ends a thread on that side.
    """
    path = _way_up(connection, number)
    if not path:
        return [], False
    more_above = len(path) == ABOVE_MAX and path[0].in_reply_to is not None
    found = {message.id: message for message in path}
    below, looked = [path[0].id], set[int]()
    while below and len(found) <= THREAD_MAX:
        looked.update(below)
        answers = answers_to(connection, below, THREAD_MAX + 1)
        found |= {message.id: message for message in answers}
        below = [message.id for message in answers if message.id not in looked]
    kept = {message.id for message in path}
    for other in sorted(found.keys() - kept)[: THREAD_MAX - len(kept)]:
        kept.add(other)
    return [found[each] for each in sorted(kept)], more_above or len(kept) < len(found)


def _way_up(connection: Connection, number: int) -> list[Message]:
    """The message and what it answers, up to the first one."""
    path: list[Message] = []
    above: int | None = number
    while above is not None and len(path) < ABOVE_MAX:
        message = one(connection, above)
        if message is None:
            break
        path.insert(0, message)
        above = message.in_reply_to
    return path
