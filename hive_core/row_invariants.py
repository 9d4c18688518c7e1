"""What the rows of a hive's database promise besides what SQLite holds them to, and how they are put right.

Each rule is a query for what is wrong: a text for each row, nothing in a healthy hive, whatever moment it is
looked at. The repairs are what a start of the daemon does too, or take away what nobody may have.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex

from hive_core.clock import time_ms
from hive_core.cron import Cron
from hive_core.store import schema
from hive_shared.errors import BadRequest
from hive_shared.permissions import parse_rule

BACKUP: Final = "`hive-c0re restore` of a backup into an empty place brings it back"
OVERDUE_MS: Final = 600_000  # what a daemon does within a second, unless it is stuck
_REPAIR: Final = "--repair does what the next start does"
_WORDS: Final = {
    "nobody": "NOT IN (SELECT name FROM agent)",
    "dead": "NOT IN (SELECT name FROM agent WHERE NOT kept)",
    "no_question": "question_id IS NOT NULL AND question_id NOT IN (SELECT id FROM question)",
    "last_message": "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0)",
}  # in statements, behind a $


@dataclass(frozen=True)
class Rule:
    """`wrong` selects a text for each row that breaks it, knowing `:now_ms`; `repairs` change those rows."""

    name: str
    found: str
    wrong: str
    get: str
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Broken:
    """A rule that rows break. `repairs` are statements with their parameters."""

    name: str
    found: str
    get: str
    rows: tuple[str, ...]
    repairs: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def _sql(text: str, **words: str) -> str:
    return Template(text).substitute(_WORDS, **words)


def _of_nobody(name: str, table: str, found: str) -> Rule:
    wrong = _sql("SELECT DISTINCT agent FROM $table WHERE agent $nobody", table=table)
    return Rule(name, found, wrong, _REPAIR, (_sql("DELETE FROM $table WHERE agent $nobody", table=table),))


def _never_deleted(table: str) -> Rule:
    wrong = _sql(
        "SELECT missing FROM (SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '$table'), 0) "
        "- (SELECT count(*) FROM $table) AS missing) WHERE missing <> 0",
        table=table,
    )
    return Rule("history", f"rows of table {table} are gone, of which none is ever deleted", wrong, BACKUP)


_AGENTS: Final = (
    Rule(
        "agents",
        "agents are no agents of this hyperhive",
        "SELECT name FROM agent WHERE (role = 'manager') <> (name = 'hm1nd') "
        "OR role NOT IN ('manager', 'agent') OR wanted NOT IN ('running', 'stopped')",
        BACKUP,
    ),
)
_MESSAGES: Final = (
    Rule(
        "messages",
        "messages answer one that came later",
        "SELECT id FROM message WHERE in_reply_to IS NOT NULL AND in_reply_to >= id",
        f"their threads are shown wrongly; {BACKUP}",
    ),
    Rule(
        "messages",
        "messages belong to questions that there are not",
        "SELECT id FROM message WHERE (asks IS NOT NULL AND asks NOT IN (SELECT id FROM question)) "
        "OR (answers IS NOT NULL AND answers NOT IN (SELECT id FROM question))",
        BACKUP,
    ),
)
_APPROVALS: Final = (
    Rule(
        "approvals",
        "approvals are in two states at once, or in none",
        "SELECT id FROM approval WHERE "
        "status NOT IN ('pending', 'approved', 'building', 'deployed', 'failed', 'denied') "
        "OR (status = 'pending' AND (resolved_by IS NOT NULL OR resolved_at_ms IS NOT NULL)) "
        "OR (status IN ('approved', 'building', 'deployed', 'denied') AND resolved_by IS NULL)",
        BACKUP,
    ),
)
_QUESTIONS: Final = (
    Rule(
        "questions",
        "questions are open and closed at once, or neither",
        "SELECT id FROM question WHERE closed NOT IN ('', 'answered', 'cancelled', 'expired', 'gone') "
        "OR (closed = 'answered') <> (answer IS NOT NULL) "
        "OR (closed = 'answered') <> (answered_by IS NOT NULL)",
        BACKUP,
    ),
    Rule(
        "questions",
        "questions between agents are open, and one of the two is gone",
        "SELECT id FROM question WHERE closed = '' AND answerer <> 'operator' "
        "AND (asker $nobody OR answerer $dead)",
        "the next start of the daemon closes them, and tells whoever asked",
    ),
    Rule(
        "questions",
        "questions were put to agents that no message told of them",
        "SELECT id FROM question WHERE answerer <> 'operator' AND (message_id IS NULL OR message_id > "
        "$last_message)",
        f"the asker can take them back, `hive-c0re questions` answers them; {BACKUP}",
    ),
)
_TIMES: Final = (
    _of_nobody("reminders", "reminder", "reminders of no agent"),
    Rule(
        "schedules",
        "schedules of no agent are not paused",
        "SELECT id FROM schedule WHERE agent $nobody AND paused <> 'purged'",
        _REPAIR,
        ("UPDATE schedule SET paused = 'purged', next_at_ms = NULL WHERE agent $nobody",),
    ),
    Rule(
        "schedules",
        "schedules are paused and would run all the same",
        "SELECT id FROM schedule WHERE paused <> '' AND next_at_ms IS NOT NULL",
        "--repair leaves them paused",
        ("UPDATE schedule SET next_at_ms = NULL WHERE paused <> ''",),
    ),
    Rule(
        "schedules",
        "schedules have a state that there is not, or sent a message that there never was",
        "SELECT id FROM schedule WHERE paused NOT IN ('', 'operator', 'purged', 'over', 'broken') "
        "OR last_outcome NOT IN ('', 'sent', 'skipped') OR missed < 0 OR last_message_id > "
        "$last_message",
        "`hive-c0re schedules remove` and `add` make them anew",
    ),
)
_BUDGETS: Final = (
    _of_nobody("budgets", "budget", "budgets of no agent"),
    Rule(
        "budgets",
        "agents have used, or were given, less than nothing",
        "SELECT agent FROM budget WHERE min(used_turns, added_turns, added_tokens, added_microdollars, "
        "one_more) < 0",
        "--repair counts that as nothing",
        tuple(
            _sql("UPDATE budget SET $name = 0 WHERE $name < 0", name=name)
            for name in ("used_turns", "added_turns", "added_tokens", "added_microdollars", "one_more")
        ),
    ),
    Rule(
        "budgets",
        "agents have a limit below nothing",
        "SELECT agent FROM budget WHERE turns < 0 OR tokens < 0 OR microdollars < 0",
        "`hive-c0re budget NAME --turns N` (and --tokens, --dollars) sets it anew",
    ),
    _of_nobody("next turns", "next_turn", "turns asked for by no agent"),
    Rule(
        "next turns",
        "turns wait for questions that there are not",
        "SELECT agent FROM next_turn WHERE ($no_question) OR in_a_row < 0",
        _REPAIR,
        (
            "UPDATE next_turn SET question_id = NULL WHERE $no_question",
            "UPDATE next_turn SET in_a_row = 0 WHERE in_a_row < 0",
        ),
    ),
    _of_nobody("turns", "turn", "figures of turns of no agent"),
    _of_nobody("turns", "tool_hour", "figures of tools of no agent"),
)
_LOOPS: Final = (
    Rule(
        "pauses of agents",
        "pairs are kept apart of which one is gone",
        "SELECT one || ' and ' || other FROM loop WHERE one $nobody OR other $nobody",
        _REPAIR,
        ("DELETE FROM loop WHERE one $nobody OR other $nobody",),
    ),
    Rule(
        "pauses of agents",
        "pairs are in a state that never ends, or that there is not",
        "SELECT one || ' and ' || other FROM loop WHERE one >= other "
        "OR state NOT IN ('paused', 'apart', 'silenced') "
        "OR (state = 'paused') <> (until_ms IS NULL)",
        BACKUP,
    ),
)
_TOOLS: Final = (
    Rule(
        "use of tools",
        "requests are open and decided at once, or decided by nobody",
        "SELECT id FROM permission WHERE closed NOT IN ('', 'allowed', 'denied', 'expired', 'withdrawn') "
        "OR (closed IN ('allowed', 'denied')) <> (answered_by IS NOT NULL)",
        BACKUP,
    ),
    Rule(
        "use of tools",
        "requests are open of agents that are gone",
        "SELECT id FROM permission WHERE closed = '' AND agent $dead",
        "--repair withdraws them; so does your answer",
        ("UPDATE permission SET closed = 'withdrawn' WHERE closed = '' AND agent $dead",),
    ),
    _of_nobody("use of tools", "permission_rule", "rules for no agent, which a later one of the name has"),
    Rule(
        "use of tools",
        "rules neither allow nor deny",
        "SELECT id FROM permission_rule WHERE decision NOT IN ('allow', 'deny')",
        "`hive-c0re permissions remove` takes them back",
    ),
)
RULES: Final = (
    *_AGENTS, *_MESSAGES, *_APPROVALS, *_QUESTIONS, *_TIMES, *_BUDGETS, *_LOOPS, *_TOOLS,
    *map(_never_deleted, ("approval", "question", "audit")),
)  # fmt: skip
_STUCK: Final = "restart the daemon, and look into its log"
OVERDUE: Final = tuple(  # where a daemon runs
    Rule(
        name,
        found,
        _sql(
            "SELECT id FROM $table WHERE $when < :now_ms - $late",
            table=table,
            when=when,
            late=str(OVERDUE_MS),
        ),
        _STUCK,
    )
    for name, found, table, when in (
        ("reminders", "reminders are due and not delivered", "reminder", "due_at_ms"),
        ("schedules", "schedules are due and not run", "schedule", "next_at_ms"),
        ("questions", "questions are out of time and open", "question", "closed = '' AND expires_at_ms"),
        ("use of tools", "requests are out of time and open", "permission", "closed = '' AND expires_at_ms"),
    )
)
_TRIGGERS: Final = {
    f"audit_refuses_{change.lower()}": f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON "
    "audit BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END"
    for change in ("UPDATE", "DELETE")
}


def broken_rules(connection: sqlite3.Connection, *, served: bool) -> Iterator[Broken]:
    """What is wrong with a database of the newest migration. `served`: a daemon has been at work on it.

    All of it is of one moment, also beside a daemon: `connection` has to be in a transaction.
    """
    now_ms = time_ms()
    yield from _indexes_and_triggers(connection)
    for rule in (*RULES, *(OVERDUE if served else ())):
        known = {"now_ms": now_ms} if ":now_ms" in rule.wrong else {}
        rows = tuple(str(row[0]) for row in connection.execute(_sql(rule.wrong), known))
        if rows:
            repairs = tuple((_sql(statement), ()) for statement in rule.repairs)
            yield Broken(rule.name, rule.found, rule.get, rows, repairs)
    yield from _plans(connection, now_ms)
    yield from _rules_of_tools(connection)


def _indexes_and_triggers(connection: sqlite3.Connection) -> Iterator[Broken]:
    present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    indexes = {
        str(index.name): str(CreateIndex(index).compile(dialect=sqlite.dialect()))
        for table in schema.metadata.sorted_tables
        for index in table.indexes
    }
    for found, wanted in (
        ("indexes are missing: it answers slowly, or takes a message twice", indexes),
        ("what keeps the audit from being changed is missing", _TRIGGERS),
    ):
        missing = tuple(sorted(wanted.keys() - present))
        if missing:
            repairs = tuple((wanted[name], ()) for name in missing)
            yield Broken("database", found, "--repair makes them again", missing, repairs)


def _plans(connection: sqlite3.Connection, now_ms: int) -> Iterator[Broken]:
    """What a schedule says can be understood, and it has a next run unless it is paused."""
    senseless, lost = [], []
    repairs: list[tuple[str, tuple[Any, ...]]] = []
    query = "SELECT id, cron, timezone, next_at_ms FROM schedule WHERE paused = ''"
    for number, cron, timezone, next_at_ms in connection.execute(query):
        try:
            next_ms = Cron(cron, timezone).next(now_ms)
        except BadRequest:
            senseless.append(str(number))
            continue
        if next_at_ms is None:
            lost.append(str(number))
            paused = "" if next_ms is not None else "over"
            planned = "UPDATE schedule SET next_at_ms = ?, paused = ? WHERE id = ? AND paused = ''"
            repairs.append((planned, (next_ms, paused, number)))
    if senseless:
        get = "`hive-c0re schedules remove` and `add` make them anew; they are paused when they are due"
        yield Broken("schedules", "schedules make no sense here", get, tuple(senseless))
    if lost:
        get = "--repair finds their next run, from now"
        yield Broken("schedules", "schedules have no next run", get, tuple(lost), tuple(repairs))


def _rules_of_tools(connection: sqlite3.Connection) -> Iterator[Broken]:
    wrong = []
    for number, rule in connection.execute("SELECT id, rule FROM permission_rule"):
        try:
            parse_rule(rule)
        except BadRequest:
            wrong.append(str(number))
    if wrong:
        get = "they count for nothing; `hive-c0re permissions remove` takes them back"
        yield Broken("use of tools", "rules cannot be read", get, tuple(wrong))
