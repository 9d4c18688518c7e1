"""SECURITY 4, 10 and 11: an agent that tells hostile figures harms nobody's but its own."""

import csv
import io
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hive_core import usage
from hive_core.usage_export import FORMULA_STARTS
from hive_shared.names import MANAGER
from hive_shared.wire import TOOLS_OF_A_TURN_MAX, TURNS_PER_REPORT
from tests.support.whole_hive import WholeHive, whole_hive

GOOD: dict[str, Any] = {"ended_at_ms": 0, "outcome": "ok", "duration_ms": 5, "cost_usd": 0.5}
NUMBERS = (
    "duration_ms", "input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens", "cost_usd",
    "ended_at_ms", "message_id",
)  # fmt: skip
# NaN and the infinities are no JSON, but Python's reader takes them.
WRONG_NUMBERS = (
    -1,
    -(2**63),
    2**63,
    10**400,
    math.nan,
    math.inf,
    -math.inf,
    "many",
    [1],
    {"$gt": 0},
    "1e999",
)
WRONG_FIELDS = [
    {"outcome": "splendid"}, {"outcome": ""}, {"outcome": ["ok"]}, {"key": "x"}, {"key": "a" * 65},
    {"key": "ABCDEF0123456789"}, {"key": "' OR 1=1 --00000"}, {"key": None},
    {"model": "m" * 129}, {"model": 7},
    {"model": "\ud800"}, {"tools": {"\ud800": 1}},
    {"tools": {"t": 0}}, {"tools": {"t": -5}}, {"tools": {"t": 10**7}}, {"tools": {"t": math.nan}},
    {"tools": {"": 1}}, {"tools": {"t" * 97: 1}},
    {"tools": {f"t{n}": 1 for n in range(TOOLS_OF_A_TURN_MAX + 1)}},
    {"tools": ["Bash"]}, {"tools": {"t": {"t": 1}}},
]  # fmt: skip
keys = iter(range(1, 10**9))


def turn(**fields: Any) -> dict[str, Any]:
    return {**GOOD, "key": f"{next(keys):016x}", **fields}


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeHive]:
    async with whole_hive(tmp_path_factory.mktemp("hive")) as running:
        await running.done("bob", "report_turns", turns=[turn(tools={"Bash": 2})])
        yield running


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "TURNS_OF_A_WINDOW_MAX", 10**9)


async def figures(hive: WholeHive, agent: str | None = None) -> dict[str, Any]:
    return dict(await hive.done("operator", "stats", agent=agent))


@pytest.mark.parametrize("field", NUMBERS)
async def test_a_number_that_cannot_be_is_refused_with_all_that_came_with_it(
    hive: WholeHive, field: str
) -> None:
    before = (await figures(hive))["totals"]
    for wrong in WRONG_NUMBERS:
        reply = await hive.say("alice", "report_turns", turns=[turn(), turn(**{field: wrong})])
        assert reply["error"]["code"] in ("bad_request", "bad_json"), (wrong, reply)
    assert (await figures(hive))["totals"] == before


@pytest.mark.parametrize("wrong", WRONG_FIELDS, ids=lambda wrong: json.dumps(wrong)[:40])
async def test_a_field_that_cannot_be_is_refused(hive: WholeHive, wrong: dict[str, Any]) -> None:
    before = (await figures(hive))["totals"]
    reply = await hive.say("alice", "report_turns", turns=[turn(**wrong)])
    assert reply["error"]["code"] in ("bad_request", "bad_json"), reply
    assert (await figures(hive))["totals"] == before


@pytest.mark.parametrize("turns", [[], None, {}, "x", [None], [[]], [{}]])
async def test_what_is_no_list_of_turns_is_refused(hive: WholeHive, turns: Any) -> None:
    reply = await hive.say("alice", "report_turns", turns=turns)
    assert reply["error"]["code"] == "bad_request"


async def test_more_turns_than_a_report_holds_are_refused(hive: WholeHive) -> None:
    reply = await hive.say("alice", "report_turns", turns=[turn() for _ in range(TURNS_PER_REPORT + 1)])
    assert reply["error"]["code"] == "bad_request"


async def test_nobody_tells_figures_for_another(hive: WholeHive) -> None:
    before = (await figures(hive, "bob"))["totals"]
    claims = {"agent": "bob", "host": "elsewhere", "sender": "bob", "from": "bob", "name": "bob"}
    await hive.done("alice", "report_turns", turns=[turn(**claims)], **claims)
    assert (await figures(hive, "bob"))["totals"] == before


async def test_nobody_takes_the_key_of_anothers_turn_away(hive: WholeHive) -> None:
    told = turn()
    await hive.done("alice", "report_turns", turns=[told])
    before = (await figures(hive, "bob"))["totals"]["turns"]
    await hive.done("bob", "report_turns", turns=[told])
    assert (await figures(hive, "bob"))["totals"]["turns"] == before + 1


async def test_the_largest_figures_there_may_be_still_add_up(hive: WholeHive) -> None:
    most = {
        "duration_ms": 30 * 86_400_000, "input_tokens": 10**10, "cache_read_tokens": 10**10,
        "cache_creation_tokens": 10**10, "output_tokens": 10**10, "cost_usd": 100_000.0,
        "tools": {f"t{n}": 1_000_000 for n in range(TOOLS_OF_A_TURN_MAX)},
    }  # fmt: skip
    for _ in range(4):
        await hive.done("alice", "report_turns", turns=[turn(**most) for _ in range(TURNS_PER_REPORT)])
    report = await figures(hive, "alice")
    assert report["totals"]["output_tokens"] >= 200 * 10**10
    assert usage.KEPT_TURNS * 1000 * 10**10 < 2**63  # of a thousand agents, all of them like that
    operator = await hive.operator()
    reply = await operator.http.get("/api/stats?range=all")
    await operator.close()
    assert reply.status_code == 200


async def test_names_are_shown_and_saved_as_what_they_are(hive: WholeHive) -> None:
    """Markup is text for the page (see test_pages_stats), a formula is text for a spreadsheet."""
    hostile = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r\n=1,2", '","=1', "\x1b[2J"]
    await hive.done("bob", "report_turns", turns=[turn(model=name, tools={name: 1}) for name in hostile])
    operator = await hive.operator()
    for export in ("turns.csv", "tools.csv"):
        saved = await operator.http.get(f"/api/agents/bob/stats/{export}?range=24h")
        assert saved.headers["content-disposition"].startswith('attachment; filename="bob-24h-')
        assert saved.headers["content-type"].startswith("text/csv")
        assert saved.headers["x-content-type-options"] == "nosniff"
        cells = [cell for row in csv.reader(io.StringIO(saved.text, newline="")) for cell in row]
        assert {f"'{name}" for name in hostile if name.startswith(FORMULA_STARTS)} <= set(cells)
        assert not any(cell.startswith(FORMULA_STARTS) for cell in cells)
    whole = (await operator.http.get("/api/agents/bob/stats/turns.json?range=24h")).json()
    await operator.close()
    assert set(hostile) <= {each["model"] for each in whole["turns"]}


async def test_a_name_in_the_path_is_an_agent_or_nothing(hive: WholeHive) -> None:
    operator = await hive.operator()
    for path in ("nobody", "x" * 500, "..%2f..%2fbob", "bob%22%0d%0aset-cookie:%20x", "%ff"):
        for what in ("stats", "stats/turns.csv"):
            reply = await operator.http.get(f"/api/agents/{path}/{what}")
            assert reply.status_code == 404, (path, what)
            assert "set-cookie" not in reply.headers
    for wrong in ("range=1y", "range=24h&utc_offset_minutes=841", "utc_offset_minutes=x"):
        assert (await operator.http.get(f"/api/stats?{wrong}")).status_code == 422
    assert (await operator.http.get("/api/stats/passwd")).status_code == 422
    await operator.close()


async def test_a_flood_is_refused_and_costs_others_no_figure(
    hive: WholeHive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    before = (await figures(hive, "bob"))["totals"]
    refused = 0
    for _ in range(usage.TURNS_OF_A_WINDOW_MAX // TURNS_PER_REPORT + 2):
        reply = await hive.say("alice", "report_turns", turns=[turn() for _ in range(TURNS_PER_REPORT)])
        refused += not reply["ok"] and reply["error"]["code"] == "rate_limited"
    assert refused >= 2
    assert (await figures(hive, "bob"))["totals"] == before
    await hive.done(MANAGER, "report_turns", turns=[turn()])
