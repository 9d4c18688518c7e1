"""What becomes of each message, approval and question: a log line for every step, and counts for metrics.

The lines carry the ids that those of the harness carry as well, so that one search shows the whole way.
No line has a word of a message in it.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from hive_shared.errors import HiveError
from hive_shared.log_fields import plain_ids
from hive_shared.names import OPERATOR, SYSTEM
from hive_shared.wire import ApprovalView, Message, QuestionView

log = logging.getLogger(__name__)


class Trail:
    """Told of every step by the queues themselves, after the commit that made it true. Of the event loop."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()  # by sender
        self.delivered: Counter[str] = Counter()  # by recipient
        self.redelivered: Counter[str] = Counter()
        self.acked: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # by the code of the refusal

    def message_sent(self, message: Message) -> None:
        self.sent[message.sender] += 1
        told = plain_ids(msg=message.id, agent=_agents(message.sender, message.to))
        log.info("message %d from %s to %s", message.id, message.sender, message.to, extra=told)

    def messages_delivered(self, recipient: str, messages: Sequence[Message]) -> None:
        self.delivered[recipient] += len(messages)
        self.redelivered[recipient] += sum(message.redelivered for message in messages)
        again = ", again" if any(message.redelivered for message in messages) else ""
        told = plain_ids(msg=[message.id for message in messages], agent=_agents(recipient))
        log.info("delivered to %s%s", recipient, again, extra=told)

    def messages_acked(self, recipient: str, numbers: Iterable[int]) -> None:
        numbers = tuple(numbers)
        if numbers:
            self.acked[recipient] += len(numbers)
            log.info("acked by %s", recipient, extra=plain_ids(msg=numbers, agent=_agents(recipient)))

    def message_set_aside(self, recipient: str, number: int) -> None:
        told = plain_ids(msg=number, agent=_agents(recipient))
        log.warning("set aside: %s ended again and again while it had this message", recipient, extra=told)

    def send_refused(self, sender: str, to: str, error: HiveError) -> None:
        self.refused[str(error.code)] += 1
        log.debug("a message from %s to %r was refused: %s", sender, to[:40], error.code)

    def approval_changed(self, approval: ApprovalView) -> None:
        step = f" ({approval.step})" if approval.step else ""
        told = plain_ids(
            approval=approval.id, agent=approval.agent, commit=(approval.commit or "")[:12] or None
        )
        log.info("approval %d: %s %s: %s%s", approval.id, approval.kind.value, approval.agent,
                 approval.status.value, step, extra=told)  # fmt: skip

    def question_changed(self, question: QuestionView) -> None:
        told = plain_ids(question=question.id, agent=question.asker)
        log.info("question %d of %s: %s", question.id, question.asker,
                 "closed" if question.closed else "asked", extra=told)  # fmt: skip


def _agents(*names: str) -> list[str]:
    return [name for name in names if name not in (OPERATOR, SYSTEM)]
