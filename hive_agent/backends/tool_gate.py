"""What a backend asks before it lets its model use a tool (SPEC section 9): all backends share the answer.

This guides agents; the boundary is the container.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hive_shared.permissions import ToolCall


@dataclass(frozen=True)
class ToolDecision:
    """Whether the call may run; `message` is what the model reads where it may not."""

    allowed: bool
    message: str = ""


class ToolGate(Protocol):
    """Decides about calls, several at a time."""

    async def check(self, call: ToolCall, said: str) -> ToolDecision | None:
        """May take as long as the operator does; cancelling it is harmless. None: as the backend would by
        itself. `said` is what the model wrote last, its reason perhaps. Never raises.
        """
        ...

    def command_rules(self, allowed: Sequence[str], *, asks: bool) -> tuple[list[str], list[str]]:
        """Rules that allow and that deny, for a program which decides by its own list; not about the hive's
        own tools. `allowed` is what holds without a policy; with `asks` the program asks `check` besides.
        """
        ...
