"""doctor --deep, the rows: a database with rows of every kind is healthy; each promise, broken, is told."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from hive_core.doctor import Verdict
from hive_core.loop_breaker import Loop, _put
from hive_core.next_turns import NextTurns
from hive_core.one_daemon import locked
from hive_core.permissions import Permissions
from hive_core.retention import Retention
from hive_core.row_invariants import OVERDUE, RULES
from hive_core.schedules import Schedules
from hive_core.store import schema
from hive_core.usage import Usage
from hive_shared.paths import HostPaths
from hive_shared.wire import (
    AddSchedule,
    ApprovalKind,
    Ask,
    AskOperator,
    AskPermission,
    PermissionScope,
    Remind,
    RequestNextTurn,
    SetBudget,
    TurnOutcome,
    TurnUsage,
)
from tests.support.backup_hive import broken, copied, execute, query, resting_hive, run
from tests.support.core_parts import ALICE, BOB, OPERATOR, Parts, running


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("rows") / "hive"
    run(_lived_in(root))
    return root


async def _lived_in(root: Path) -> None:
    paths = await resting_hive(root, "alice", "bob")
    async with running(paths.database) as parts:
        await _questions(parts)
        await _times(parts)
        await _tools(parts)
        await _turns(parts)
        approval, _ = await parts.approvals.request(ApprovalKind.SPAWN, "alice", ALICE)
        await parts.approvals.deny(approval.id, OPERATOR)
        await Retention(parts.store, 30.0, clock=parts.clock).vacuum()
        pause = Loop(("alice", "bob"), "apart", 1, until_ms=2)
        await parts.store.write(lambda connection: _put(connection, "local", pause))


async def _questions(parts: Parts) -> None:
    asked = await parts.questions.ask(ALICE, AskOperator(question="tea?"))
    await parts.questions.answer(asked.id, "yes", OPERATOR)
    await parts.questions.ask(BOB, AskOperator(question="more?", ttl_seconds=60))
    to_bob = await parts.questions.ask_agent(ALICE, Ask(to="bob", question="green?"))
    await parts.questions.answer(to_bob.id, "yes", BOB)
    await parts.questions.cancel((await parts.questions.ask(ALICE, AskOperator(question="x"))).id, OPERATOR)
    await parts.questions.ask_agent(ALICE, Ask(to="bob", question="and now?"))


async def _times(parts: Parts) -> None:
    await parts.reminders.set(ALICE, Remind(after_seconds=60, body="look"))
    schedules = Schedules(parts.store, parts.broker, parts.audit, clock=parts.clock)
    fields = {"name": "alice", "cron": "0 9 * * *", "timezone": "Europe/Berlin", "body": "a summary"}
    for _ in range(2):
        made = await schedules.add(OPERATOR, AddSchedule(**fields))
        await schedules.run_now(OPERATOR, made.id)
    await schedules.pause(OPERATOR, made.id)


async def _tools(parts: Parts) -> None:
    permissions = Permissions(parts.store, parts.audit, clock=parts.clock)
    for number in range(3):
        fields = {
            "key": f"{number:064x}",
            "session": "a" * 32,
            "message_id": 1,
            "tool": "Read",
            "input": "{}",
        }
        asked = await permissions.ask(ALICE, AskPermission(**fields, ttl_seconds=60))
        if number == 0:
            await permissions.answer(asked.id, OPERATOR, None, message="no")
        if number == 1:
            await permissions.answer(asked.id, OPERATOR, PermissionScope.ONCE)
    await permissions.add_rule(OPERATOR, "bob", "allow", "Bash(git *)")


async def _turns(parts: Parts) -> None:
    await parts.budgets.set(OPERATOR, SetBudget(name="alice", turns=5))
    await parts.take("alice")
    next_turns = NextTurns(parts.store, parts.broker, parts.registry, parts.questions, parts.audit)
    await next_turns.ask(ALICE, RequestNextTurn(note="go on"))
    await next_turns.close()
    turn = TurnUsage(
        key="0" * 16, ended_at_ms=parts.clock(), duration_ms=5, outcome=TurnOutcome.OK, tools={"Read": 2}
    )
    await Usage(parts.store, clock=parts.clock).record(ALICE, [turn])


@pytest.fixture
def hive(template: Path, tmp_path: Path) -> HostPaths:
    return copied(template, tmp_path / "hive")


def test_nothing_is_told_of_a_healthy_hive_with_rows_of_every_kind(hive: HostPaths) -> None:
    empty = [
        table for table in schema.metadata.tables if not query(hive, f"SELECT count(*) FROM {table}")[0][0]
    ]
    assert empty == [], "this hive has to have lived"
    assert broken(hive) == []


@dataclass(frozen=True)
class Damage:
    told: str
    statements: tuple[str, ...]
    repaired: bool = True


DAMAGE = {
    "role": Damage("are no agents", ("UPDATE agent SET role = 'manager' WHERE name = 'bob'",), False),
    "thread": Damage(
        "answer one that came later", ("UPDATE message SET in_reply_to = 99 WHERE id = 1",), False
    ),
    "asks": Damage("questions that there are not", ("UPDATE message SET asks = 99 WHERE id = 1",), False),
    "answers": Damage(
        "questions that there are not", ("UPDATE message SET answers = 99 WHERE id = 1",), False
    ),
    "approval": Damage(
        "two states", ("UPDATE approval SET resolved_by = NULL WHERE status = 'denied'",), False
    ),
    "pending": Damage(
        "two states", ("UPDATE approval SET status = 'pending' WHERE status = 'denied'",), False
    ),
    "question": Damage("open and closed at once", ("UPDATE question SET closed = '' WHERE id = 1",), False),
    "asker": Damage("one of the two is gone", ("UPDATE question SET asker = 'ghost' WHERE id = 5",), False),
    "answerer": Damage("one of the two is gone", ("UPDATE agent SET kept = 1 WHERE name = 'bob'",), False),
    "untold": Damage("no message told", ("UPDATE question SET message_id = NULL WHERE id = 3",), False),
    "reminder": Damage("reminders of no agent: ghost", ("UPDATE reminder SET agent = 'ghost'",)),
    "schedule": Damage("are not paused: 1, 2", ("UPDATE schedule SET agent = 'ghost'",)),
    "paused": Damage(
        "would run all the same", ("UPDATE schedule SET next_at_ms = 5 WHERE paused = 'operator'",)
    ),
    "no run": Damage("have no next run", ("UPDATE schedule SET next_at_ms = NULL",)),
    "zone": Damage("make no sense", ("UPDATE schedule SET timezone = 'Mars/Olympus' WHERE id = 1",), False),
    "sent": Damage("never was", ("UPDATE schedule SET last_message_id = 999 WHERE id = 1",), False),
    "budget": Damage("budgets of no agent", ("UPDATE budget SET agent = 'ghost'",)),
    "given": Damage("less than nothing", ("UPDATE budget SET added_turns = -5, used_turns = -1",)),
    "limit": Damage("a limit below nothing", ("UPDATE budget SET turns = -5",), False),
    "next turn": Damage("asked for by no agent", ("UPDATE next_turn SET agent = 'ghost'",)),
    "waits": Damage("wait for questions", ("UPDATE next_turn SET question_id = 99",)),
    "turn": Damage("figures of turns", ("UPDATE turn SET agent = 'ghost'",)),
    "tool": Damage("figures of tools", ("UPDATE tool_hour SET agent = 'ghost'",)),
    "pair": Damage("of which one is gone", ("UPDATE loop SET other = 'ghost'",)),
    "pause": Damage("never ends", ("UPDATE loop SET until_ms = NULL",), False),
    "decided": Damage("decided by nobody", ("UPDATE permission SET closed = 'allowed' WHERE id = 3",), False),
    "request": Damage("of agents that are gone", ("UPDATE permission SET agent = 'ghost' WHERE id = 3",)),
    "rule": Damage("rules for no agent", ("UPDATE permission_rule SET agent = 'ghost'",)),
    "unread": Damage("cannot be read", ("UPDATE permission_rule SET rule = 'Bash('",), False),
    "decision": Damage("neither allow", ("UPDATE permission_rule SET decision = 'perhaps'",), False),
    "audit": Damage(
        "of which none is ever deleted: 1",
        (
            "DROP TRIGGER audit_refuses_delete",
            "DELETE FROM audit WHERE id = 2",
            "CREATE TRIGGER audit_refuses_delete BEFORE DELETE ON audit BEGIN SELECT 1; END",
        ),
        False,
    ),
    "trigger": Damage("what keeps the audit", ("DROP TRIGGER audit_refuses_update",)),
    "index": Damage("indexes are missing", ("DROP INDEX uq_message_key", "DROP INDEX ix_reminder_due")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_every_promise_that_is_broken_is_told_and_put_right_where_nothing_is_lost(
    hive: HostPaths, name: str
) -> None:
    damage = DAMAGE[name]
    for statement in damage.statements:
        execute(hive, statement)
    found = broken(hive, repair=True)
    assert [damage.told in finding.found for finding in found] == [True], found
    assert found[0].verdict is (Verdict.REPAIRED if damage.repaired else Verdict.BROKEN)
    assert damage.repaired or found[0].get
    assert [finding.found for finding in broken(hive)] == ([] if damage.repaired else [found[0].found])


def test_every_rule_has_such_a_damage() -> None:
    told = [damage.told for damage in DAMAGE.values()]
    assert [rule.found for rule in RULES if not any(_begins(text, rule.found) for text in told)] == []


def _begins(told: str, found: str) -> bool:
    return told.partition(":")[0] in found


def test_what_is_long_due_is_told_beside_a_daemon_that_serves_and_never_without(hive: HostPaths) -> None:
    """These rows are of years ago; a daemon that has just begun catches up."""
    with locked(hive):
        assert broken(hive) == []
        hive.host_socket.touch(mode=0o600)
        found = broken(hive)
    assert {finding.found.partition(":")[0] for finding in found} == {rule.found for rule in OVERDUE}


async def test_what_a_purge_left_when_it_was_cut_short_is_nobodys(hive: HostPaths) -> None:
    """A later agent of the name has none of its rules, budgets and pauses, also after a crash."""
    kept = "SELECT (SELECT count(*) FROM permission_rule) + (SELECT count(*) FROM loop)"
    async with running(hive.database) as parts:
        await parts.registry.forget("bob")
        assert query(hive, kept) == [(0,)]
        assert query(hive, "SELECT agent FROM budget") == [("alice",)]
    execute(hive, "DELETE FROM agent WHERE name = 'alice'")  # by a hyperhive that was killed in between
    async with running(hive.database, agents=()):
        assert query(hive, "SELECT count(*) FROM budget") == [(0,)]
        assert query(hive, "SELECT count(*) FROM next_turn") == [(0,)]
        assert query(hive, "SELECT closed FROM permission WHERE id = 3") == [("withdrawn",)]
