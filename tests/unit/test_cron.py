"""When schedules run: cron's five fields, time zones, and days on which clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_core.cron import Cron
from hive_shared.errors import BadRequest

BERLIN = "Europe/Berlin"


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def runs(cron: str, after: str, count: int = 3, zone: str = BERLIN) -> list[str]:
    """The next runs after a time of that zone, as they are there, with their offset."""
    found = islice(Cron(cron, zone).after(ms(after, zone)), count)
    return [f"{datetime.fromtimestamp(at / 1000, ZoneInfo(zone)):%m-%d %H:%M %z}"[:-2] for at in found]


def test_every_weekday_at_nine() -> None:
    assert runs("0 9 * * mon-fri", "2026-11-20T09:00") == [
        "11-23 09:00 +01",
        "11-24 09:00 +01",
        "11-25 09:00 +01",
    ]
    assert Cron("0 9 * * mon-fri", BERLIN).means == "At 09:00 on Monday through Friday"


def test_a_time_of_day_stays_that_when_the_clocks_change() -> None:
    assert runs("0 9 * * *", "2026-03-27T12:00") == ["03-28 09:00 +01", "03-29 09:00 +02", "03-30 09:00 +02"]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0,30 2 * * *", "*/30 2 * * *", "* 2 * * *"])
def test_an_hour_that_is_left_out_is_made_up_for_once_right_after_it(cron: str) -> None:
    assert runs(cron, "2026-03-28T12:00", 1) == ["03-29 03:00 +02"]
    assert runs(cron, "2026-03-29T03:00", 1) != ["03-29 03:00 +02"]
    assert not runs(cron, "2026-03-29T03:00", 1)[0].startswith("03-29")


def test_what_a_gap_moves_onto_another_run_is_that_run() -> None:
    assert runs("0 1-4 * * *", "2026-03-29T00:00", 4) == [
        "03-29 01:00 +01",
        "03-29 03:00 +02",
        "03-29 04:00 +02",
        "03-30 01:00 +02",
    ]


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("30 2 * * *", ["02:30 +02"]),
        ("*/30 2 * * *", ["02:00 +02", "02:30 +02"]),
        ("30 1,3 * * *", ["01:30 +02", "03:30 +01"]),
    ],
)
def test_an_hour_that_comes_twice_counts_once(cron: str, times: list[str]) -> None:
    found = runs(cron, "2026-10-24T12:00", 6)
    assert [each.removeprefix("10-25 ") for each in found if each.startswith("10-25")] == times


def test_after_the_first_of_two_equal_hours_the_second_runs_nothing_again() -> None:
    first_half_past_two = ms("2026-10-25T00:30")
    in_the_second = first_half_past_two + 3_600_000 - 60_000
    assert Cron("30 2 * * *", BERLIN).next(in_the_second) == ms("2026-10-26T01:30")


def test_what_runs_every_hour_follows_the_hours_as_they_pass() -> None:
    assert runs("0 * * * *", "2026-10-25T01:30", 3) == [
        "10-25 02:00 +02",
        "10-25 02:00 +01",
        "10-25 03:00 +01",
    ]
    assert runs("0 * * * *", "2026-03-29T00:30", 3) == [
        "03-29 01:00 +01",
        "03-29 03:00 +02",
        "03-29 04:00 +02",
    ]


def test_zones_are_their_own() -> None:
    assert Cron("0 9 * * *", "Asia/Kathmandu").next(ms("2026-06-01T00:00")) == ms("2026-06-01T03:15")
    assert Cron("30 2 * * *", "Australia/Lord_Howe").next(ms("2026-10-03T12:00")) == ms("2026-10-03T15:30")


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("61 9 * * *", "field cron: bad minute"),
        ("0 25 * * *", "field cron: bad hour"),
        ("0 9 32 * *", "field cron: bad day-of-month"),
        ("0 9 * 13 *", "field cron: bad month"),
        ("0 9 * * someday", "field cron: bad day-of-week"),
        ("0 9 31 2 *", "field cron: bad day-of-month"),
        ("9:00", "has 1 fields instead of 5"),
        ("0 0 9 * * mon", "has 6 fields instead of 5"),
        ("   ", "has 0 fields"),
        ("-1 * * * *", "bad minute"),
        ("*/0 * * * *", "bad minute"),
        ("٣ * * * *", "bad minute"),
    ],
)
def test_a_wrong_text_is_told_with_its_field(cron: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as refused:
        Cron(cron, "UTC")
    assert refused.value.field == "cron"


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "Berlin", "", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b"]
)
def test_a_wrong_zone_is_told_with_its_field(zone: str) -> None:
    with pytest.raises(BadRequest, match="field timezone: there is no time zone") as refused:
        Cron("0 9 * * *", zone)
    assert refused.value.field == "timezone"
    assert (zone != "Berlin") or "do you mean Europe/Berlin?" in refused.value.message


@given(st.text(alphabet="0123456789*/,-#LW monfrijan", max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_is_a_schedule_or_refused(text: str) -> None:
    try:
        when = Cron(text, BERLIN)
    except BadRequest:
        return
    found = list(islice(when.after(ms("2026-03-28T12:00")), 5))
    assert found == sorted(set(found))


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "UTC"]),
)
@settings(max_examples=100, deadline=None)
def test_a_daily_run_comes_once_on_every_day(minute: int, hour: int, start: datetime, zone: str) -> None:
    found = list(islice(Cron(f"{minute} {hour} * * *", zone).after(int(start.timestamp() * 1000)), 400))
    local = [datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(zone)) for at in found]
    days = [at.date() for at in local]
    assert days == [days[0] + timedelta(days=number) for number in range(400)]
    assert sum((at.hour, at.minute) != (hour, minute) for at in local) <= 2  # those moved out of a gap


def test_missed_runs_are_counted_up_to_a_number() -> None:
    when = Cron("0 9 * * *", BERLIN)
    first = ms("2026-11-20T08:00")
    assert when.missed(first, first, 100) == (1, first)
    assert when.missed(first, first + 3 * 86_400_000, 100) == (4, ms("2026-11-23T08:00"))
    assert when.missed(first, first + 300 * 86_400_000, 100)[0] == 100
