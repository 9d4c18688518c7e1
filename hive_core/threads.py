"""Threads, as much of one as fits an answer (SPEC sections 4 and 11)."""

from functools import partial
from typing import Final

from hive_core.store import Store
from hive_core.store.threads import thread_of
from hive_shared.errors import NotFound
from hive_shared.wire import BATCH_MAX_BYTES, Message, MessageThread

SHORT_CHARACTERS: Final = 2000  # of a body in a thread that does not fit otherwise
CUT: Final = " … (cut)"


class Threads:
    """Reads what belongs together by `in_reply_to`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, message_id: int) -> MessageThread:
        """The thread that a message is in, oldest first; raises `NotFound`.

        At most 200 messages and 900 KiB of them: then bodies are shortened, and `cut` says if messages are
        left out.
        """
        found, cut = await self._store.read(partial(thread_of, number=message_id))
        if not found:
            raise NotFound(
                f"message {message_id} does not exist, or is so old that it was removed", field="message_id"
            )
        fitting = _in_room(found)
        return MessageThread(messages=fitting, cut=cut or len(fitting) < len(found))


def _in_room(messages: list[Message]) -> list[Message]:
    if _bytes(messages) <= BATCH_MAX_BYTES:
        return messages
    short = [_shortened(message) for message in messages]
    while _bytes(short) > BATCH_MAX_BYTES:  # bodies that are all escapes
        short = short[: len(short) * 3 // 4]
    return short


def _shortened(message: Message) -> Message:
    if len(message.body) <= SHORT_CHARACTERS:
        return message
    return message.model_copy(update={"body": message.body[:SHORT_CHARACTERS] + CUT})


def _bytes(messages: list[Message]) -> int:
    return sum(len(message.model_dump_json().encode()) for message in messages)
