"""The operator's rules for a backend that decides by a list and asks about no call."""

from pathlib import Path
from typing import Any, cast

import pytest

from hive_agent.link import Link
from hive_agent.permissions import Permissions
from hive_agent.status import Status
from hive_shared.errors import Unavailable
from hive_shared.permissions import LOOKING, PermissionOptions, ToolCall
from hive_shared.wire import AskPermission, GetPermissionRules, PermissionRules


class Core:
    """A link to a core that has rules."""

    connected = True

    def __init__(self, *deny: str) -> None:
        self.deny = list(deny)

    async def call(self, request: Any, **_: Any) -> PermissionRules:
        assert isinstance(request, GetPermissionRules)
        return PermissionRules(deny=self.deny)


def permissions(path: Path, core: Core, options: PermissionOptions | None) -> Permissions:
    return Permissions(cast(Link, core), Status(None), lambda note: None, path, options, ())


@pytest.mark.parametrize("options", [None, PermissionOptions(allow=("Bash", "Read"))])
async def test_rules_hold_from_the_next_turn_on_though_no_call_is_asked_about(
    tmp_path: Path, options: PermissionOptions | None
) -> None:
    core = Core("Bash(rm *)")
    rules = permissions(tmp_path, core, options)
    await rules.turn_began(1, redelivered=False)
    assert rules.command_rules(["Bash", "Read"], asks=False) == (["Bash", "Read"], ["Bash(rm *)"])


async def test_everything_denied_is_nothing_allowed(tmp_path: Path) -> None:
    rules = permissions(tmp_path, Core("*"), None)
    await rules.turn_began(1, redelivered=False)
    may, may_not = rules.command_rules(["Bash", "WebFetch"], asks=False)
    assert may == []
    assert {"Bash", "WebFetch", *LOOKING} <= set(may_not)
    assert "*" not in may_not


async def test_what_it_waits_for_is_told_without_secrets(tmp_path: Path) -> None:
    """Whichever backend asks: the badge is on the dashboard, and in core's log."""
    told: list[str] = []

    class Asked(Core):
        async def call(self, request: Any, **how: Any) -> Any:
            if isinstance(request, AskPermission):
                told.append(status.note)
                raise Unavailable("enough")
            return await super().call(request, **how)

    status = Status(None)
    policy = PermissionOptions(allow=())
    rules = Permissions(cast(Link, Asked()), status, lambda note: None, tmp_path, policy, ())
    await rules.turn_began(1, redelivered=False)
    key = "sk-ant-api03-" + "Ab1" * 30
    decision = await rules.check(ToolCall("Bash", {"command": f"curl -H {key}"}), "")
    assert decision is not None
    assert not decision.allowed
    assert told == ["Bash: curl -H [redacted]"]
