"""Which agent may write to which: the operator's allow-list, and pairs that are paused (SECURITY 11, 12).

In memory; the broker asks before it accepts. The list comes from the settings (`send_allow`), pauses from
the loop breaker. Both bind agents and the manager alone: the operator and the hive write to everyone.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from hive_shared.errors import Forbidden, HiveError, Paused
from hive_shared.names import BROADCAST, MANAGER, OPERATOR

EVERYONE: Final = BROADCAST  # as a name in the list: every agent

_NOBODY_LISTED: Final[Mapping[str, Collection[str]]] = MappingProxyType({})


class SendRules:
    """Who may write to whom, as it is now.

    An agent that `allow` names writes to those listed for it and nobody else; one that it does not name
    goes by the entry `*`, if there is one, and without that writes to everyone. `*` within a list is every
    agent. Three are never cut off: the operator, so that an agent can always say that something is wrong;
    the agent itself; and the manager's own sends, unless the list names the manager.
    """

    def __init__(self, allow: Mapping[str, Collection[str]] = _NOBODY_LISTED) -> None:
        self._allow = {name: frozenset(recipients) for name, recipients in allow.items()}
        self._paused: dict[str, set[str]] = {}

    def allowed(self, sender: str) -> list[str] | None:
        """Whom an agent may write to, sorted, as far as the operator lists it; None for everyone."""
        listed = self._listed(sender)
        return None if listed is None else sorted(listed | {OPERATOR})

    def paused_with(self, name: str) -> list[str]:
        """The agents with which this one may not exchange messages for now."""
        return sorted(self._paused.get(name, ()))

    def pause(self, one: str, other: str) -> None:
        self._paused.setdefault(one, set()).add(other)
        self._paused.setdefault(other, set()).add(one)

    def resume(self, one: str, other: str) -> None:
        self._paused.get(one, set()).discard(other)
        self._paused.get(other, set()).discard(one)

    def refusal(self, sender: str, to: str) -> HiveError | None:
        """Why agent `sender` may not write to `to` now; None if it may."""
        listed = self._listed(sender)
        if listed is not None and to not in listed and to not in (sender, OPERATOR):
            return Forbidden(
                f"{sender} may not write to {to}: the operator lets it write to "
                f"{', '.join(sorted(listed | {OPERATOR}))} only; ask the operator if the work needs more",
                field="to",
            )
        if to in self._paused.get(sender, ()):
            return Paused(
                f"{sender} and {to} kept answering each other, so messages between them are paused until "
                "the operator decides; the operator has been asked. Do not send this again or around "
                "it; go on with other work, or end the turn",
                field="to",
            )
        return None

    def _listed(self, sender: str) -> frozenset[str] | None:
        listed = self._allow.get(sender)
        if listed is None and sender != MANAGER:
            listed = self._allow.get(EVERYONE)
        return None if listed is None or EVERYONE in listed else listed
