"""What the operator asks of a harness at the terminal, by the way that its page goes."""

from pydantic_core import from_json

from hive_core.audit import Audit
from hive_core.principals import Principal
from hive_core.web import relay
from hive_core.web.refusals import WebRefusal
from hive_shared.errors import Conflict, Unavailable
from hive_shared.paths import HostPaths

WORDS_MAX_CHARACTERS = 300  # of a harness's refusal, which is its own text


class PageDesk:
    """Asks the harnesses of this host."""

    def __init__(self, audit: Audit, paths: HostPaths) -> None:
        self._audit = audit
        self._paths = paths

    async def new_session(self, who: Principal, name: str) -> None:
        """Have the next turn begin a new conversation.

        Raises `Conflict` while a turn runs, `Unavailable` where no harness answers as one should.
        """
        await self._audit.record(who, "page api/new-session", name, "asked")
        try:
            reply = await relay.post(self._paths.page_socket(name), "/api/new-session", {})
        except (Unavailable, WebRefusal) as error:
            raise Unavailable(
                f"the harness of {name} does not answer; is the agent running? ({error.message})"
            ) from None
        if reply.status == 409:
            raise Conflict(f"{name}: {_words(reply)}")
        if reply.status != 200:
            raise Unavailable(f"the harness of {name} refused it: {_words(reply)}")


def _words(reply: relay.Reply) -> str:
    """What a refusal says."""
    try:
        message = from_json(reply.body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = ""
    return str(message)[:WORDS_MAX_CHARACTERS] or f"status {reply.status}"
