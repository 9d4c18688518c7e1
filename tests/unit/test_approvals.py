"""The queue of approvals: states, limits, restarts."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hive_core.approvals import PENDING_MAX, Proposal
from hive_core.principals import Principal
from hive_shared.errors import Conflict, NotFound, TooMany
from hive_shared.wire import ApprovalKind, ApprovalStatus, ApprovalView
from tests.support.core_parts import OPERATOR, Parts, running

MANAGER = Principal.manager()


async def asked(parts: Parts, agent: str = "carol") -> int:
    view, existing = await parts.approvals.request(ApprovalKind.SPAWN, agent, MANAGER, "for the docs")
    assert not existing
    return view.id


async def test_a_request_waits_for_the_operator(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await asked(parts)
        assert await parts.approvals.pending() == [
            ApprovalView(
                id=number,
                kind=ApprovalKind.SPAWN,
                agent="carol",
                status=ApprovalStatus.PENDING,
                requested_by="hm1nd",
                requested_at_ms=parts.clock.now_ms,
                note="for the docs",
            )
        ]
        assert await parts.approvals.unfinished() == []


async def test_an_approval_goes_through_its_states_and_subscribers_hear_each(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path) as parts:
        heard: list[ApprovalView] = []
        end = parts.approvals.subscribe(heard.append)
        number = await asked(parts)
        await parts.approvals.approve(number, OPERATOR)
        await parts.approvals.set_building(number, "creating directories")
        await parts.approvals.set_building(number, "starting")
        await parts.approvals.deployed(number, "runs")
        end()

        assert [(view.status, view.step) for view in heard] == [
            ("pending", ""),
            ("approved", ""),
            ("building", "creating directories"),
            ("building", "starting"),
            ("deployed", ""),
        ]
        assert heard[-1].resolved_by == "operator (host socket)"
        assert (heard[-1].note, heard[-1].outcome) == ("for the docs", "runs")
    async with running(path) as parts:
        assert await parts.approvals.get(number) == heard[-1]


async def told(parts: Parts) -> dict[str, Any]:
    """What the manager was told last of an approval's end."""
    events = [json.loads(message.body) for message in parts.told if message.to == "hm1nd"]
    resolved: list[dict[str, Any]] = [each for each in events if each["event"] == "approval_resolved"]
    return resolved[-1]


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        (["deployed", ""], ""),
        (["deployed", "it runs, with a warning"], "it runs, with a warning"),
        (["failed", "the build failed"], "the build failed"),
        (["building", "build", "building", "switch", "deployed", ""], ""),
        (["building", "back:it did not start", "failed", "it did not start"], "it did not start"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
async def test_what_the_operator_said_with_the_yes_stays_beside_what_becomes_of_it(
    tmp_path: Path, steps: list[str], outcome: str
) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path, agents=("hm1nd",)) as parts:
        number = await asked(parts)
        approved = await parts.approvals.approve(number, OPERATOR, note="only for\nthis week")
        assert (approved.note, approved.operator_note, approved.outcome) == (
            "for the docs",
            "only for\nthis week",
            "",
        )
        assert (await parts.audit.recent(1))[0].detail == "only for\nthis week"
    async with running(path, agents=("hm1nd",)) as parts:  # each step in a daemon that was started anew
        for what, detail in zip(steps[::2], steps[1::2], strict=True):
            if what == "building":
                step, _, why = detail.partition(":")
                view = await parts.approvals.set_building(number, step, outcome=why)
            else:
                view = await getattr(parts.approvals, what)(number, detail)
            assert view.operator_note == "only for\nthis week"
        assert (await parts.approvals.get(number)).outcome == outcome
        event = await told(parts)
        assert (event["operator_note"], event.get("note", "")) == ("only for\nthis week", outcome)


async def test_a_yes_without_a_word_and_a_no_tell_no_word_with_a_yes(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("hm1nd",)) as parts:
        number = await asked(parts)
        await parts.approvals.approve(number, OPERATOR)
        await parts.approvals.failed(number, "the build failed")
        assert "operator_note" not in await told(parts)
        denied = await parts.approvals.deny(await asked(parts, "dave"), OPERATOR, "not now")
        assert (denied.operator_note, denied.outcome) == ("", "not now")
        event = await told(parts)
        assert (event["note"], "operator_note" in event) == ("not now", False)


async def test_what_was_approved_and_not_finished_is_found_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path) as parts:
        first, second, third = [await asked(parts, name) for name in ("carol", "dave", "eve")]
        await parts.approvals.approve(second, OPERATOR)
        await parts.approvals.approve(third, OPERATOR)
        await parts.approvals.set_building(third, "starting")
    async with running(path) as parts:
        assert [view.id for view in await parts.approvals.unfinished()] == [second, third]
        assert [view.id for view in await parts.approvals.pending()] == [first]
        assert [view.id for view in await parts.approvals.all(2)] == [third, second]


@pytest.mark.parametrize("end", ["deny", "failed", "deployed"])
async def test_a_resolved_approval_cannot_be_decided_again(tmp_path: Path, end: str) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await asked(parts)
        if end == "deny":
            await parts.approvals.deny(number, OPERATOR, "not now")
        else:
            await parts.approvals.approve(number, OPERATOR)
            await getattr(parts.approvals, end)(number, "the end")
        before = await parts.approvals.get(number)

        for attempt in (
            parts.approvals.approve(number, OPERATOR),
            parts.approvals.deny(number, OPERATOR),
            parts.approvals.set_building(number, "again"),
            parts.approvals.deployed(number),
            parts.approvals.failed(number, "again"),
        ):
            with pytest.raises(Conflict, match=f"approval {number} is {before.status}"):
                await attempt
        assert await parts.approvals.get(number) == before


async def test_of_two_decisions_at_once_one_holds(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await asked(parts)
        decisions = await asyncio.gather(
            parts.approvals.approve(number, OPERATOR),
            parts.approvals.deny(number, OPERATOR),
            return_exceptions=True,
        )
        assert [isinstance(decision, Conflict) for decision in decisions] == [False, True]
        assert (await parts.approvals.get(number)).status is ApprovalStatus.APPROVED


async def test_building_needs_the_operators_yes_first(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await asked(parts)
        with pytest.raises(Conflict):
            await parts.approvals.set_building(number, "sneaking in")
        with pytest.raises(Conflict):
            await parts.approvals.deployed(number)
        assert (await parts.approvals.failed(number, "agent state dir missing")).status == "failed"


async def test_the_same_request_is_not_queued_twice(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await asked(parts)
        again, existing = await parts.approvals.request(ApprovalKind.SPAWN, "carol", OPERATOR)
        assert (again.id, existing) == (number, True)
        await parts.approvals.deny(number, OPERATOR)
        assert await asked(parts) != number


async def test_requests_for_other_commits_are_other_requests(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        kind = ApprovalKind.APPLY_COMMIT
        one, _ = await parts.approvals.request(kind, "alice", MANAGER, proposal=Proposal("a" * 40))
        two, _ = await parts.approvals.request(kind, "alice", MANAGER, proposal=Proposal("b" * 40))
        same, existing = await parts.approvals.request(kind, "alice", MANAGER, proposal=Proposal("b" * 40))
        assert one.id != two.id == same.id
        assert existing
        assert two.commit == "b" * 40


async def test_one_requester_can_have_only_so_many_pending(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for number in range(PENDING_MAX):
            await asked(parts, f"a{number}")
        with pytest.raises(TooMany, match="hm1nd has 20"):
            await asked(parts, "b")
        await parts.approvals.request(ApprovalKind.SPAWN, "b", OPERATOR)
        await parts.approvals.deny(1, OPERATOR)
        await asked(parts, "c")


async def test_an_approval_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        for attempt in (parts.approvals.get(7), parts.approvals.approve(7, OPERATOR)):
            with pytest.raises(NotFound, match="approval 7"):
                await attempt


async def test_every_step_is_audited_with_who_took_it(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        number = await asked(parts)
        await parts.approvals.approve(number, OPERATOR)
        await parts.approvals.failed(number, "build failed")
        entries = await parts.audit.recent(3)
        assert [(entry.principal, entry.action, entry.subject) for entry in entries] == [
            ("hm1nd", "request_spawn", "carol"),
            ("operator (host socket)", "approve", "approval 1"),
            ("system", "failed", "approval 1"),
        ]
