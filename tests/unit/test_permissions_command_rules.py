"""The operator's rules for a backend that decides by a list and asks about no call."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from hive_agent.link import Link
from hive_agent.permissions import FIRST_RULES_SECONDS, UNKNOWN_RULES, Permissions, where_it_leads
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


class Away(Core):
    """A core that cannot be reached before it `returns`."""

    def __init__(self, *deny: str) -> None:
        super().__init__(*deny)
        self.connected = False
        self.returns = asyncio.Event()
        self.patience: list[float] = []

    async def call(self, request: Any, **how: Any) -> PermissionRules:
        patience_seconds = how["patience_seconds"]
        self.patience.append(patience_seconds)
        if patience_seconds == FIRST_RULES_SECONDS:
            await self.returns.wait()
        if not self.connected:
            raise Unavailable("nobody is there")
        return await super().call(request)


async def test_before_the_operators_rules_are_known_nothing_is_used_and_calls_wait_for_them(
    tmp_path: Path,
) -> None:
    core = Away("Bash(rm *)")
    rules = permissions(tmp_path, core, None)
    checks = [
        asyncio.create_task(rules.check(ToolCall("Bash", {"command": line}), "")) for line in ("rm x", "ls")
    ]
    while len(core.patience) < 2:
        await asyncio.sleep(0)
    assert rules.command_rules(["Bash"], asks=False)[0] == []
    assert not any(check.done() for check in checks)
    core.connected = True
    core.returns.set()
    denied, unsaid = await asyncio.gather(*checks)
    assert denied is not None
    assert not denied.allowed
    assert unsaid is None
    core.connected = False  # what is known holds on
    again = await rules.check(ToolCall("Bash", {"command": "rm y"}), "")
    assert again is not None
    assert not again.allowed
    assert len(core.patience) == 2, "nobody waits for a core that is away once its rules are known"


async def test_where_core_never_tells_its_rules_calls_are_refused_in_the_end(tmp_path: Path) -> None:
    core = Away()
    core.returns.set()
    for options in (None, PermissionOptions(allow=("Bash",))):
        rules = permissions(tmp_path, core, options)
        await rules.turn_began(1, redelivered=False)
        assert rules.command_rules(["Bash"], asks=False)[0] == []
        decision = await rules.check(ToolCall("Bash", {"command": "ls"}), "")
        assert decision is not None
        assert (decision.allowed, decision.message) == (False, UNKNOWN_RULES)


LINKED = PermissionOptions(allow=("Read(/*/open/*)", "Edit(/*/open/*)", "Grep(/*/open*)"), default="deny")


@pytest.mark.parametrize(
    ("tool", "name"), [("Read", "file_path"), ("Edit", "file_path"), ("Write", "file_path"), ("Grep", "path")]
)
async def test_a_link_is_denied_as_what_it_leads_to(tmp_path: Path, tool: str, name: str) -> None:
    for directory in ("open", "closed"):
        (tmp_path / directory).mkdir()
    (tmp_path / "closed" / "key").write_text("x")
    (tmp_path / "open" / "link").symlink_to("../closed/key")
    (tmp_path / "open" / "door").symlink_to("../closed")
    core = Core(f"{tool}({tmp_path}/closed*)")
    rules = permissions(tmp_path, core, None)  # without a policy, and nothing else is said
    for path in ("open/link", "open/door/key", f"{tmp_path}/open/link"):
        decision = await rules.check(ToolCall(tool, {name: path}, str(tmp_path)), "")
        assert decision is not None
        assert not decision.allowed
        assert core.deny[0] in decision.message
    assert await rules.check(ToolCall(tool, {name: "open/other"}, str(tmp_path)), "") is None


async def test_a_link_is_allowed_only_if_what_it_leads_to_is(tmp_path: Path) -> None:
    for directory in ("open", "closed"):
        (tmp_path / directory).mkdir()
    (tmp_path / "closed" / "key").write_text("x")
    (tmp_path / "open" / "out").symlink_to("../closed/key")
    (tmp_path / "open" / "within").symlink_to("plain")
    (tmp_path / "open" / "plain").write_text("x")
    rules = permissions(tmp_path, Core(), LINKED)

    async def allowed(tool: str, path: str) -> bool:
        decision = await rules.check(ToolCall(tool, {"file_path": path}, str(tmp_path)), "")
        assert decision is not None
        return decision.allowed

    assert await allowed("Read", "open/plain")
    assert await allowed("Edit", "open/within")
    assert await allowed("Edit", "open/new")
    assert not await allowed("Read", "open/out")
    assert not await allowed("Edit", "open/out")


def test_what_is_in_the_nix_store_and_what_is_no_path_is_taken_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").symlink_to(tmp_path / "store")
    call = ToolCall("Read", {"file_path": f"{tmp_path}/etc"})
    meant = where_it_leads(call)
    assert meant is not None
    assert meant.subject == f"{tmp_path}/store"
    monkeypatch.setattr("hive_agent.permissions.NIX_STORE", f"{tmp_path}/")
    assert where_it_leads(call) is None
    for odd in ({"file_path": "\0"}, {"file_path": 7}, {}):
        assert where_it_leads(ToolCall("Read", odd)) is None
    assert where_it_leads(ToolCall("Bash", {"command": "cat /etc"})) is None
