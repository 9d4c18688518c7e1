"""What an agent may use in a day: counted by core, stopped at the limit, more when the operator says so."""

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_core.budget_rows import Amounts
from hive_core.budgets import BudgetSettings
from hive_core.days import Days, zone_of_host
from hive_core.usage import Usage
from hive_core.waiting.budgets import BudgetSource, budget_entry
from hive_core.web.budgets import BudgetForm
from hive_core.web.forms import parse_form
from hive_shared.budget_words import budget_words
from hive_shared.counts import parse_count
from hive_shared.errors import BadRequest, Conflict
from hive_shared.wire import BudgetAnswer, Message, Recv, SetBudget, TurnOutcome, TurnUsage
from tests.support.core_parts import BOB, OPERATOR, FakeClock, Parts, running

BERLIN = ZoneInfo("Europe/Berlin")
TWO = BudgetSettings(Amounts(turns=2), zone=BERLIN)
HOUR_MS = 3_600_000


def at(text: str) -> int:
    """Unix milliseconds of a time in Berlin."""
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp() * 1000)


def noon() -> FakeClock:
    return FakeClock(now_ms=at("2026-03-28 12:00"))


async def fill(parts: Parts, count: int) -> list[int]:
    return [await parts.send("bob", f"message {number}") for number in range(count)]


async def tell(parts: Parts, *, tokens: int = 0, dollars: float = 0.0, key: str = "a" * 16) -> None:
    """What bob's harness says of a turn."""
    turn = TurnUsage(
        key=key,
        ended_at_ms=parts.clock.now_ms,
        outcome=TurnOutcome.OK,
        output_tokens=tokens,
        cache_read_tokens=10**6,
        cost_usd=dollars,
    )
    await Usage(parts.store, clock=parts.clock).record(BOB, [turn])
    await parts.budgets.told("bob")


@contextlib.asynccontextmanager
async def receiving(parts: Parts, lease: str = "c9") -> asyncio.Task[list[Message]]:  # type: ignore[misc]
    """Bob waits for a message meanwhile."""

    async def wait() -> list[Message]:
        return (await parts.broker.recv("bob", Recv(max=1, wait_seconds=60), lease)).messages

    task = asyncio.create_task(wait())
    try:
        await asyncio.sleep(0)
        yield task  # type: ignore[misc]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- turns --------------------------------------------------------------------


async def test_at_the_limit_messages_stay_in_the_inbox_and_others_go_on(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=TWO) as parts:
        ids = await fill(parts, 4)
        assert [message.id for message in await parts.take("bob", 1)] == ids[:1]
        await parts.broker.ack("bob", ids[:1])
        assert not parts.budgets.is_stopped("bob")
        assert [message.id for message in await parts.take("bob", 100)] == ids[1:2], "no more than are left"
        await parts.broker.ack("bob", ids[1:2])
        assert parts.budgets.is_stopped("bob")
        assert await parts.take("bob") == []
        assert parts.broker.unread("bob") == 2
        await parts.send("alice", sender=BOB)
        assert len(await parts.take("alice")) == 1
        assert parts.budgets.stopped_until_ms("bob") == at("2026-03-29 00:00")
        assert parts.budgets.stopped_until_ms("alice") is None


async def test_a_stopped_agent_waits_rather_than_spins_and_is_handed_what_a_raise_lets_through(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=TWO) as parts:
        ids = await fill(parts, 4)
        await parts.take("bob", 2)
        async with receiving(parts) as task:
            await parts.send("bob", "one more arrives")
            await asyncio.sleep(0.05)
            assert not task.done()
            await parts.budgets.set(OPERATOR, SetBudget(name="bob", turns=3))
            assert [message.id for message in await task] == ids[2:3]
        assert parts.budgets.is_stopped("bob")


async def test_a_message_that_is_handed_over_as_it_is_sent_counts_too(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", noon()
    async with running(path, clock=clock, budget=TWO) as parts:
        for _ in range(2):
            async with receiving(parts) as task:
                sent = await parts.send("bob")
                assert [message.id for message in await task] == [sent]
            await parts.broker.ack("bob", [sent])
        async with receiving(parts) as task:
            await parts.send("bob")
            await asyncio.sleep(0.05)
            assert not task.done()
    async with running(path, clock=clock, budget=TWO) as parts:
        assert parts.budgets.view("bob").turns.used == 2, "as it is stored"
        assert await parts.take("bob") == []


async def test_nothing_that_a_receiver_does_gets_it_more_messages_than_its_budget(tmp_path: Path) -> None:
    """It never acks, asks for many, asks on many connections at once, and drops each of them."""
    async with running(
        tmp_path / "b.sqlite", clock=noon(), budget=BudgetSettings(Amounts(turns=7), zone=BERLIN)
    ) as parts:
        await fill(parts, 30)
        got = []
        for number in itertools.count():
            asked = [parts.take("bob", 3, f"c{number}-{each}") for each in range(3)]
            batch = [message.id for messages in await asyncio.gather(*asked) for message in messages]
            if not batch:
                break
            got += batch
            for each in range(3):
                parts.broker.release(f"c{number}-{each}")
        assert len(got) == 7
        assert await parts.take("bob") == []


async def test_what_was_counted_outlives_the_daemon(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", noon()
    async with running(path, clock=clock, budget=TWO) as parts:
        await fill(parts, 3)
        await parts.take("bob", 1)
    async with running(path, clock=clock, budget=TWO) as parts:
        assert parts.budgets.view("bob").turns.used == 1
        assert len(await parts.take("bob")) == 1, "and that which was in hand comes again"
        assert parts.budgets.is_stopped("bob")
    async with running(path, clock=clock, budget=TWO) as parts:
        assert parts.budgets.is_stopped("bob")
        assert await parts.take("bob") == []
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)
        clock.pass_seconds(24 * 3600)
        assert len(await parts.take("bob", 1)) == 1
    async with running(path, clock=clock, budget=TWO) as parts:
        view = parts.budgets.view("bob")
        assert (view.turns.used, view.turns.limit) == (1, 2), "what was stored of the day before is over"


# --- tokens and money ---------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "tokens", "dollars", "reached"),
    [
        (Amounts(tokens=1000), 999, 0.0, []),
        (Amounts(tokens=1000), 1000, 0.0, ["tokens"]),
        (Amounts(microdollars=500_000), 0, 0.49, []),
        (Amounts(microdollars=500_000), 10**10, 0.5, ["microdollars"]),
        (Amounts(tokens=1, microdollars=1), 10**10, 100_000.0, ["tokens", "microdollars"]),
    ],
)
async def test_tokens_and_money_are_as_the_harness_tells_them(
    tmp_path: Path, limits: Amounts, tokens: int, dollars: float, reached: list[str]
) -> None:
    settings = BudgetSettings(limits, zone=BERLIN)
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=settings) as parts:
        await fill(parts, 2)
        await parts.take("bob", 1)
        await tell(parts, tokens=tokens, dollars=dollars)
        assert parts.budgets.view("bob").reached == reached
        assert len(await parts.take("bob", 1)) == (0 if reached else 1)
        assert not parts.budgets.is_stopped("alice"), "huge figures stop nobody else"


async def test_what_was_told_is_known_after_a_restart(tmp_path: Path) -> None:
    path, clock, settings = tmp_path / "b.sqlite", noon(), BudgetSettings(Amounts(tokens=10), zone=BERLIN)
    async with running(path, clock=clock, budget=settings) as parts:
        await fill(parts, 2)
        await parts.take("bob", 1)
        await tell(parts, tokens=10)
    async with running(path, clock=clock, budget=settings) as parts:
        assert parts.budgets.is_stopped("bob")


# --- the operator's word --------------------------------------------------------


async def test_as_much_again_is_for_this_day_only(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=TWO) as parts:
        await fill(parts, 10)
        await parts.take("bob", 2)
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)
        assert len(await parts.take("bob")) == 2
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)
        assert parts.budgets.view("bob").turns.limit == 6
        assert len(await parts.take("bob")) == 2
        parts.clock.pass_seconds(24 * 3600)
        assert parts.budgets.view("bob").turns.model_dump() == {"used": 0, "limit": 2, "own": False}
        assert (await parts.audit.recent(1))[0].detail == "again"


async def test_a_limit_that_is_set_is_that_of_today_whatever_was_added(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=TWO) as parts:
        await fill(parts, 4)
        await parts.take("bob", 2)
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)
        view = await parts.budgets.set(OPERATOR, SetBudget(name="bob", turns=2))
        assert (view.turns.limit, view.stopped) == (2, True)
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)
        view = await parts.budgets.set(OPERATOR, SetBudget(name="bob", tokens=7))
        assert (view.turns.limit, view.tokens.limit) == (4, 7), "what is not named stays"


async def test_as_much_again_of_what_is_far_beyond_its_limit_lets_it_go_on(tmp_path: Path) -> None:
    settings = BudgetSettings(Amounts(tokens=10), zone=BERLIN)
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=settings) as parts:
        await tell(parts, tokens=1000)
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)
        assert not parts.budgets.is_stopped("bob")
        assert parts.budgets.view("bob").tokens.limit == 1010


@pytest.mark.parametrize("limits", [Amounts(turns=1), Amounts(tokens=5), Amounts(turns=1, tokens=5)])
async def test_one_more_turn_is_one_message(tmp_path: Path, limits: Amounts) -> None:
    settings = BudgetSettings(limits, zone=BERLIN)
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=settings) as parts:
        ids = await fill(parts, 5)
        assert len(await parts.take("bob", 1)) == 1
        await tell(parts, tokens=5)
        for expected in ids[1:3]:
            await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.ONE_TURN)
            assert [message.id for message in await parts.take("bob", 100)] == [expected]
            assert parts.budgets.is_stopped("bob")
        assert await parts.take("bob") == []


async def test_an_agent_that_is_not_stopped_has_no_answer_to_get(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=TWO) as parts:
        with pytest.raises(Conflict, match="bob is not used up"):
            await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.AGAIN)


async def test_its_own_limits_stand_before_the_default_one_by_one(tmp_path: Path) -> None:
    settings = BudgetSettings(Amounts(turns=2, tokens=50), zone=BERLIN)
    path = tmp_path / "b.sqlite"
    async with running(path, clock=noon(), budget=settings) as parts:
        await parts.budgets.set(OPERATOR, SetBudget(name="bob", turns=0))
        await parts.budgets.set(OPERATOR, SetBudget(name="bob", microdollars=9))
    async with running(path, clock=noon(), budget=settings) as parts:
        view = parts.budgets.view("bob")
        limits = [(each.limit, each.own) for each in (view.turns, view.tokens, view.microdollars)]
        assert limits == [(0, True), (50, False), (9, True)]
        await fill(parts, 5)
        assert len(await parts.take("bob")) == 5
        view = await parts.budgets.set(OPERATOR, SetBudget(name="bob", default=True))
        assert (view.turns.limit, view.microdollars.limit, view.stopped) == (2, 0, True)
        await parts.budgets.forget("bob")
        assert (parts.budgets.view("bob").turns.used, parts.budgets.is_stopped("bob")) == (0, False)


@pytest.mark.parametrize(
    ("body", "given"),
    [
        (b"turns=200&tokens=&dollars=", (200, None, None, False)),
        (b"turns=&tokens=1.5M&dollars=7.5", (None, 1_500_000, 7.5, False)),
        (b"turns=0&tokens=&dollars=0", (0, None, 0.0, False)),
        (b"turns=&tokens=&dollars=&default=true", (None, None, None, True)),
    ],
)
def test_a_form_takes_limits_as_people_write_them(body: bytes, given: tuple[object, ...]) -> None:
    fields = parse_form(body, BudgetForm)
    assert (fields.turns, fields.tokens, fields.dollars, fields.default) == given


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"turns=many", "turns"),
        (b"tokens=1.5", "tokens"),
        (b"turns=-1", "turns"),
        (b"tokens=9999999G", "tokens"),
        (b"dollars=nan", "dollars"),
        (b"dollars=-1", "dollars"),
        (b"turns=&tokens=", None),
    ],
)
def test_a_form_with_anything_else_names_what_is_wrong(body: bytes, field: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_form(body, BudgetForm)
    assert refused.value.field == field


# --- what is told -----------------------------------------------------------------


async def test_the_agent_is_told_once_a_day_that_it_nears_a_limit(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.sqlite", noon()
    settings = BudgetSettings(Amounts(turns=5, tokens=100), warn_percent=80, zone=BERLIN)
    async with running(path, clock=clock, budget=settings) as parts:
        await fill(parts, 9)
        await parts.take("bob", 3)
        assert await parts.budgets.notice("bob") == ""
        await parts.take("bob", 1)
        notice = await parts.budgets.notice("bob")
        assert notice.startswith("Today you have used 4 of 5 turns (80 %). When a limit is reached")
        assert "until 00:00 Europe/Berlin" in notice
        await tell(parts, tokens=99)
        assert await parts.budgets.notice("bob") == ""
        assert budget_words(parts.budgets.view("bob")) == (
            "Today, until 00:00 Europe/Berlin, you have used 4 of 5 turns (80 %), 99 of 100 tokens (99 %)."
        )
    async with running(path, clock=clock, budget=settings) as parts:
        assert await parts.budgets.notice("bob") == ""
        clock.pass_seconds(24 * 3600)
        await parts.take("bob", 4)
        assert "4 of 5 turns" in await parts.budgets.notice("bob")


async def test_the_operators_queue_has_it_while_messages_wait(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", clock=noon(), budget=TWO) as parts:
        source, changes = BudgetSource(parts.budgets, parts.broker, parts.registry), []
        await source.open(lambda: changes.append(None))
        await fill(parts, 2)
        parts.clock.pass_seconds(60)
        await parts.take("bob", 1)
        assert changes == [], "nobody is stopped"
        await parts.take("bob", 1)
        assert list(source.entries()) == [], "it has nothing to do"
        changes.clear()
        await fill(parts, 1)
        assert changes
        (entry,) = source.entries()
        assert (entry.id, entry.blocked, entry.link) == ("bob", ["bob"], "#budget-bob")
        assert entry.summary == "bob has used up its budget of today: 2 of 2 turns (100 %)"
        assert entry.otherwise == "goes on at 00:00 Europe/Berlin; until then its messages are kept"
        assert (entry.since_ms, entry.expires_at_ms) == (parts.clock.now_ms, at("2026-03-29 00:00"))
        await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.WAIT)
        assert list(source.entries()) == []
        assert await parts.take("bob") == []
        changes.clear()
        view = await parts.budgets.answer(OPERATOR, "bob", BudgetAnswer.ONE_TURN)
        assert changes, "it is stopped no longer"
        assert (view.stopped, view.left) == (False, False)
        assert budget_entry(view).kind == "budget"


# --- days -------------------------------------------------------------------------


async def test_midnight_lets_waiting_agents_go_on(tmp_path: Path) -> None:
    clock = FakeClock(now_ms=at("2026-03-29 00:00") - 20)
    async with running(tmp_path / "b.sqlite", clock=clock, budget=TWO) as parts:
        keeping = asyncio.create_task(parts.budgets.run())
        ids = await fill(parts, 3)
        await parts.take("bob", 2)
        async with receiving(parts) as task:
            await asyncio.sleep(0.05)
            assert not task.done()
            assert parts.budgets.view("bob").since_ms == clock.now_ms
            clock.now_ms += 20
            assert [message.id for message in await task] == ids[2:]
        assert parts.budgets.view("bob").day_ends_at_ms - clock.now_ms == 23 * HOUR_MS, "clocks go forward"
        assert parts.budgets.view("bob").turns.used == 1
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_clock_that_is_set_back_before_the_day_begins_another_one(tmp_path: Path) -> None:
    clock = noon()
    async with running(tmp_path / "b.sqlite", clock=clock, budget=TWO) as parts:
        await fill(parts, 4)
        await parts.take("bob", 2)
        clock.pass_seconds(-24 * 3600)
        keeping = asyncio.create_task(parts.budgets.run())
        async with receiving(parts) as task:
            assert len(await task) == 1
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


ZONES = (
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "Pacific/Apia",
    "America/Havana",
)


@given(st.sampled_from(ZONES), st.integers(0, 2_200_000_000_000))
def test_every_moment_is_in_one_day_of_its_place(name: str, at_ms: int) -> None:
    zone = ZoneInfo(name)
    days = Days(zone)
    day = days.of(at_ms)
    assert day.has(at_ms)
    assert days.of(day.end_ms).start_ms == day.end_ms
    assert days.of(day.start_ms) == day
    assert 22 * HOUR_MS < day.end_ms - day.start_ms < 26 * HOUR_MS
    dates = {datetime.fromtimestamp(each / 1000, zone).date() for each in (day.start_ms, day.end_ms - 1)}
    assert dates == {datetime.fromtimestamp(at_ms / 1000, zone).date()}


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_days_on_which_clocks_change_are_shorter_or_longer(day: str, hours: int) -> None:
    found = Days(BERLIN).of(at(f"{day} 18:00"))
    assert (found.start_ms, found.end_ms - found.start_ms) == (at(f"{day} 00:00"), hours * HOUR_MS)


def test_the_hosts_zone_is_that_of_its_link(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert zone_of_host(link).key == "UTC"
    link.symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    assert zone_of_host(link).key == "Europe/Berlin"
    link.unlink()
    link.symlink_to("/usr/share/zoneinfo/Nowhere/Land")
    assert zone_of_host(link).key == "UTC"
    assert Days(zone_of_host(link)).told(0) == "00:00 UTC"
    assert datetime.fromtimestamp(0, UTC).hour == 0


@pytest.mark.parametrize(
    ("text", "number"), [("200", 200), ("500k", 500_000), ("1.5M", 1_500_000), ("2G", 2 * 10**9), ("0", 0)]
)
def test_numbers_as_people_write_them(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "five", "1e3", "1.2345k", "9" * 30, "٣"])
def test_what_is_no_such_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_count(text)
