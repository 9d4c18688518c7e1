"""SECURITY 11: nothing that an agent wrote makes an answer of the host socket too long to be read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.principals import Principal
from hive_core.surfaces.host import ROUTES
from hive_core.surfaces.line_room import approvals_in_room, deployments_in_room, file_in_room
from hive_core.surfaces.routes import handler
from hive_shared import wire
from hive_shared.client import Client
from hive_shared.server import SurfaceServer
from hive_shared.sockets import listen

WORST = "\x01"  # six bytes on the wire for one of the text
FLAG = wire.RiskFlag(path=WORST * 512, line=1, rule="fetch", text=WORST * 400)


def approval(number: int, status: str) -> wire.ApprovalView:
    """The largest one that an agent can make."""
    return wire.ApprovalView(
        id=number,
        kind=wire.ApprovalKind.APPLY_COMMIT,
        agent="alice",
        status=wire.ApprovalStatus(status),
        requested_by="hm1nd",
        requested_at_ms=1,
        commit="a" * 40,
        commit_ref=WORST * 256,
        message=WORST * 4096,
        note=WORST * 4096,
        outcome=WORST * 4096,
        author=WORST * 200,
        flags=[FLAG] * 100,
    )


WAITING = [approval(number, "pending") for number in range(1, 21)]
RESOLVED = [approval(number, "denied") for number in range(300, 100, -1)]
FILE = wire.FileDiff(path="agent.nix", change="added", added=1, text="+" + WORST * 512 * 1024 + "\n+end\n")
LINES = wire.FileDiff(path="lines", change="added", added=1, text=f"+{WORST * 99}\n" * 5000)
RAN = [
    wire.Deployment(approval_id=n, commit="a" * 40, message=WORST * 4096, operator_note=WORST * 2000)
    for n in range(200)
]


LONG_RULE = wire.ConfiguredRule(decision="deny", rule=WORST * 2000, option="hyperhive.permissions.deny")
CONFIGURED = wire.ConfiguredRules(agent="alice", rules=[LONG_RULE] * 200)


class Stub:
    """Actions that answer with the worst there can be."""

    async def pending(self, who: Principal, *, resolved: int) -> list[wire.ApprovalView]:
        return [*WAITING, *RESOLVED[:resolved]]

    async def diff(self, who: Principal, approval_id: int, base: wire.DiffBase) -> Any:
        whole = WAITING[0].model_copy(update={"flags": [FLAG] * 50})
        summary = wire.DiffSummary(approval=whole, base=base, base_commit=None, files=2, added=2, deleted=0)
        return summary, [FILE, LINES]

    async def permissions(self, who: Principal) -> wire.PermissionList:
        return wire.PermissionList(requests=[], rules=[], configured=[CONFIGURED] * 5)

    async def history(self, who: Principal, name: str) -> wire.Deployments:
        return wire.Deployments(deployments=RAN)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    actions: Any = Stub()
    server = SurfaceServer(
        wire.Surface.HOST,
        listen(tmp_path / "host.sock", mode=0o600),
        handler(ROUTES, actions, Principal.operator("host socket")),
    )
    await server.start()
    async with Client(tmp_path / "host.sock") as client:
        yield client
    await server.close()


async def test_everything_that_waits_can_be_listed(client: Client) -> None:
    for request in (wire.Pending(), wire.Pending(all=True)):
        listed = (await client.call(request)).approvals
        assert [approval.id for approval in listed][:20] == [approval.id for approval in WAITING]
        assert listed[0].message.endswith("(cut)")
        assert listed[0].flags[-1].text.startswith("And 90 more")


async def test_a_diff_that_is_too_long_is_cut_at_a_line_and_says_so(client: Client) -> None:
    answer = [item async for item in client.follow(wire.Diff(approval_id=1))]
    first, second, summary = answer
    assert isinstance(first, wire.FileDiff)
    assert isinstance(second, wire.FileDiff)
    assert (first.truncated, second.truncated) == (True, True)
    assert second.text.endswith(f"+{WORST * 99}\n")
    assert len(second.text) > 100_000
    assert isinstance(summary, wire.DiffSummary)
    assert len(summary.approval.flags) == 50


async def test_a_history_can_be_listed(client: Client) -> None:
    ran = (await client.call(wire.History(name="alice"))).deployments
    assert len(ran) == len(RAN)


async def test_configured_rules_can_be_listed(client: Client) -> None:
    configured = (await client.call(wire.Permissions())).configured
    assert [(len(each.rules), each.more) for each in configured] == [(20, 180)] * 5
    assert configured[0].rules[0].rule.endswith("(cut)")


def test_what_fits_is_left_as_it_is() -> None:
    file = FILE.model_copy(update={"text": "+a\n"})
    assert approvals_in_room(WAITING[:1]) == WAITING[:1]
    assert deployments_in_room(RAN[:9]) == RAN[:9]
    assert file_in_room(file) is file
