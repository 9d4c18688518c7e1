"""Requests of agents to use a tool, and the rules that come of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.permissions import ASKED_MAX, NOBODY_ANSWERED, OPEN_MAX, Permissions
from hive_shared.errors import BadRequest, Conflict, NotFound, TooMany
from hive_shared.permissions import RULES_MAX, ToolCall, key_of
from hive_shared.wire import AskPermission, PermissionScope, PermissionView
from tests.support.core_parts import ALICE, BOB, OPERATOR, Parts, running

GUARD_SECONDS = 30.0
SESSION, OTHER = "a" * 32, "b" * 32
ONCE, FOR_SESSION, ALWAYS = PermissionScope.ONCE, PermissionScope.SESSION, PermissionScope.ALWAYS


def asking(command: str = "make", message_id: int = 1, **changes: Any) -> AskPermission:
    call = ToolCall("Bash", {"command": command}, "/state")
    values: dict[str, Any] = {
        "key": key_of(message_id, call),
        "session": SESSION,
        "message_id": message_id,
        "tool": call.tool,
        "input": json.dumps(dict(call.input)),
        "cwd": call.cwd,
        "reason": "to see",
    }
    return AskPermission(**{**values, **changes})


@contextlib.asynccontextmanager
async def hive(path: Path) -> AsyncIterator[tuple[Parts, Permissions]]:
    async with running(path) as parts:
        permissions = Permissions(parts.store, parts.audit, clock=parts.clock)
        await permissions.load()
        yield parts, permissions


async def test_a_request_waits_across_a_restart_and_asking_again_joins_it(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with hive(path) as (_, permissions):
        first = await permissions.ask(ALICE, asking())
        assert (first.agent, first.rule, first.reason, first.closed) == ("alice", "Bash(make)", "to see", "")
    async with hive(path) as (_, permissions):
        assert await permissions.open() == [first]
        assert await permissions.ask(ALICE, asking()) == first
        waiting = asyncio.create_task(permissions.ask(ALICE, asking(wait_seconds=GUARD_SECONDS)))
        await asyncio.sleep(0)
        answered = await permissions.answer(first.id, OPERATOR, ONCE)
        assert await waiting == answered
        assert (answered.closed, answered.scope, answered.answered_by) == (
            "allowed",
            "once",
            "operator (host socket)",
        )
        assert permissions.rules() == []


async def test_once_is_once_and_a_lost_answer_is_told_again(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        first = await permissions.ask(ALICE, asking())
        answered = await permissions.answer(first.id, OPERATOR, ONCE)
        assert await permissions.ask(ALICE, asking()) == answered
        await permissions.close(BOB, number=first.id)  # another's: nothing happens
        assert await permissions.ask(ALICE, asking()) == answered
        await permissions.close(ALICE, number=first.id)
        again = await permissions.ask(ALICE, asking())
        assert (again.id, again.closed) == (first.id + 1, "")


async def test_a_refusal_holds_for_the_turn(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        first = await permissions.ask(ALICE, asking())
        denied = await permissions.answer(first.id, OPERATOR, None, message="not today")
        assert (denied.closed, denied.message) == ("denied", "not today")
        assert await permissions.ask(ALICE, asking()) == denied
        await permissions.close(ALICE, message_id=1)
        assert (await permissions.ask(ALICE, asking())).closed == ""


async def test_the_end_of_the_turn_withdraws_what_is_open(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        first = await permissions.ask(ALICE, asking())
        other = await permissions.ask(ALICE, asking(message_id=2))
        told: list[PermissionView] = []
        permissions.subscribe(told.append)
        await permissions.close(ALICE, message_id=1)
        assert [(view.id, view.closed) for view in told] == [(first.id, "withdrawn")]
        assert await permissions.open() == [other]
        with pytest.raises(Conflict, match="withdrawn already"):
            await permissions.answer(first.id, OPERATOR, ONCE)


async def test_always_writes_a_rule_that_lasts_and_session_one_that_does_not(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with hive(path) as (parts, permissions):
        first, second = [await permissions.ask(ALICE, asking(text)) for text in ("make", "git log")]
        await permissions.answer(first.id, OPERATOR, FOR_SESSION)
        await permissions.answer(second.id, OPERATOR, ALWAYS, rule="Bash(git *)")
        entries = await parts.audit.recent(10)
        assert "always: Bash(git *)" in [entry.detail for entry in entries]
    async with hive(path) as (_, permissions):
        assert permissions.rules_of("alice", SESSION).allow == ["Bash(make)", "Bash(git *)"]
        assert permissions.rules_of("alice", OTHER).allow == ["Bash(git *)"]
        assert permissions.rules_of("bob", SESSION).allow == []
        third = await permissions.ask(ALICE, asking("ls", session=OTHER))
        await permissions.answer(third.id, OPERATOR, FOR_SESSION)
        assert [rule.rule for rule in permissions.rules()] == ["Bash(git *)", "Bash(ls)"]


async def test_a_rule_must_be_about_the_call(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        first = await permissions.ask(ALICE, asking("make"))
        for rule in ("Bash(git *)", "Read", "no rule ("):
            with pytest.raises(BadRequest):
                await permissions.answer(first.id, OPERATOR, ALWAYS, rule=rule)
        cut = await permissions.ask(ALICE, asking("x", truncated=True))
        assert cut.rule == ""
        with pytest.raises(BadRequest, match="no rule tells this call"):
            await permissions.answer(cut.id, OPERATOR, ALWAYS)
        assert await permissions.open() == [first, cut]
        assert permissions.rules() == []


async def test_a_new_rule_closes_what_it_decides(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        views = [await permissions.ask(ALICE, asking(text)) for text in ("git log", "rm x", "make")]
        bobs = await permissions.ask(BOB, asking("git log"))
        await permissions.add_rule(OPERATOR, "alice", "allow", "Bash(git *)")
        await permissions.add_rule(OPERATOR, "alice", "deny", "Bash(rm *)")
        closed = [(await permissions.get(view.id)).closed for view in views]
        assert closed == ["allowed", "denied", ""]
        assert await permissions.open() == [views[2], bobs]


async def test_bypass_is_a_rule_of_the_operators(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        changed: list[str] = []
        permissions.on_rules = changed.append
        made = await permissions.add_rule(OPERATOR, "alice", "allow", "*")
        assert permissions.bypassed("alice")
        assert not permissions.bypassed("bob")
        await permissions.remove_rule(OPERATOR, made.id)
        assert not permissions.bypassed("alice")
        assert changed == ["alice", "alice"]
        with pytest.raises(NotFound):
            await permissions.remove_rule(OPERATOR, made.id)


async def test_silence_denies_where_a_time_was_set(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, permissions):
        first = await permissions.ask(ALICE, asking(ttl_seconds=60))
        kept = await permissions.ask(ALICE, asking("ls"))
        closing = asyncio.create_task(permissions.run())
        waiting = asyncio.create_task(permissions.ask(ALICE, asking(wait_seconds=GUARD_SECONDS)))
        await asyncio.sleep(0)
        parts.clock.pass_seconds(61)
        permissions._deadlines.changed()
        decided = await waiting
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert (decided.id, decided.closed, decided.message) == (first.id, "expired", NOBODY_ANSWERED)
        assert await permissions.open() == [kept]


async def test_an_agent_cannot_flood(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (parts, permissions):
        for number in range(OPEN_MAX):
            await permissions.ask(ALICE, asking(f"make {number}"))
        with pytest.raises(TooMany, match="open"):
            await permissions.ask(ALICE, asking("one more"))
        assert (await permissions.ask(ALICE, asking("make 3"))).closed == ""  # which it has asked before
        await permissions.ask(BOB, asking())
        for message in range(2, 2 + ASKED_MAX - OPEN_MAX):
            await permissions.close(ALICE, message_id=message - 1)
            await permissions.ask(ALICE, asking(message_id=message))
        with pytest.raises(TooMany, match="minutes"):
            await permissions.ask(ALICE, asking(message_id=1000))
        parts.clock.pass_seconds(601)
        await permissions.ask(ALICE, asking(message_id=1000))


async def test_what_is_destroyed_waits_no_more_and_a_namesake_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with hive(path) as (_, permissions):
        await permissions.add_rule(OPERATOR, "alice", "allow", "Bash")
        await permissions.ask(ALICE, asking())
        await permissions.forget("alice", rules=False)
        assert await permissions.open() == []
        assert len(permissions.rules()) == 1
        await permissions.forget("alice", rules=True)
        assert permissions.rules() == []
    async with hive(path) as (_, permissions):
        assert permissions.rules() == []


async def test_rules_are_bounded(tmp_path: Path) -> None:
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        for number in range(RULES_MAX):
            await permissions.add_rule(OPERATOR, "alice", "allow", f"Bash(make {number})")
        with pytest.raises(TooMany):
            await permissions.add_rule(OPERATOR, "alice", "allow", "Bash(one more)")


async def test_secrets_are_not_shown(tmp_path: Path) -> None:
    key = "sk-ant-api03-" + "Ab1" * 30
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        view = await permissions.ask(ALICE, asking(f"curl -H {key}", reason=f"with {key}"))
        assert key not in view.input + view.reason + view.rule


async def test_no_rule_comes_of_what_was_taken_for_a_secret(tmp_path: Path) -> None:
    """What looks like a password can be a second command, which nobody has seen."""
    async with hive(tmp_path / "b.sqlite") as (_, permissions):
        view = await permissions.ask(ALICE, asking("git log password=x1;/tmp/evil.sh"))
        assert (view.rule, view.truncated, "evil" in view.input) == ("", True, False)
        await permissions.add_rule(OPERATOR, "alice", "allow", "Bash(git *)")
        assert [request.id for request in await permissions.open()] == [view.id]
        with pytest.raises(BadRequest):
            await permissions.answer(view.id, OPERATOR, ALWAYS)
