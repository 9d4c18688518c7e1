"""Schedules and reminders over the web: what a form says, what a snapshot and the feed tell."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_core.actions import REMINDERS_SHOWN
from hive_core.principals import Principal
from hive_shared.wire import TEXT_MAX_CHARACTERS, Remind
from tests.support.core_parts import OPERATOR
from tests.support.web_hive import WebHive, running_web

FORM = {"name": "alice", "cron": "0 9 * * mon-fri", "timezone": "Europe/Berlin", "body": "sum up"}


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("hm1nd")
        await running.agent("alice")
        yield running


async def state(operator: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await operator.get("/api/state")).json())


async def test_a_schedule_is_added_paused_resumed_run_and_removed(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    made = (await operator.post("/add-schedule", data=FORM)).json()["schedule"]
    (shown,) = (await state(operator))["schedules"]
    assert shown == made
    assert (made["means"], len(made["next_runs_ms"])) == ("At 09:00 on Monday through Friday", 3)
    for verb, paused in (("pause", "operator"), ("resume", ""), ("run", "")):
        reply = await operator.post(f"/{verb}-schedule/{made['id']}")
        assert (reply.status_code, reply.json()["schedule"]["paused"]) == (200, paused)
    (message,) = (await state(operator))["messages"]
    assert (message["sender"], message["to"]) == ("operator", "alice")
    assert (await operator.post(f"/remove-schedule/{made['id']}")).json()["schedule"]["removed"]
    assert (await state(operator))["schedules"] == []
    assert (await operator.post(f"/run-schedule/{made['id']}")).status_code == 404


WRONG = [
    ({"cron": "0 99 * * *"}, "cron", 422),
    ({"cron": ""}, "cron", 422),
    ({"cron": "*" * 101}, "cron", 422),
    ({"timezone": "Mars/Olympus"}, "timezone", 422),
    ({"name": "nobody"}, "name", 404),
    ({"body": ""}, "body", 422),
    ({"body": "x" * (TEXT_MAX_CHARACTERS + 1)}, "body", 422),
]


async def test_a_wrong_field_is_named(operator: httpx.AsyncClient) -> None:
    for changes, field, status in WRONG:
        reply = await operator.post("/add-schedule", data={**FORM, **changes})
        assert (reply.status_code, reply.json()["error"]["field"]) == (status, field), reply.text
    assert (await state(operator))["schedules"] == []


async def test_a_preview_tells_the_next_runs_or_what_is_wrong(operator: httpx.AsyncClient) -> None:
    query = {"cron": "*/15 * * * *", "timezone": "UTC"}
    reply = (await operator.get("/api/schedule-preview", params=query)).json()
    first, second, third = reply["next_runs_ms"]
    assert (reply["means"], second - first, third - second) == (
        "Every 15th minute of every hour",
        900_000,
        900_000,
    )
    wrong = await operator.get("/api/schedule-preview", params={**query, "timezone": "Berlin"})
    assert wrong.json()["error"]["field"] == "timezone"
    assert "Europe/Berlin" in wrong.json()["error"]["message"]


async def test_a_purge_takes_the_reminders_along_and_pauses_the_schedules(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    await operator.post("/add-schedule", data=FORM)
    await hive.actions.remind(Principal.agent("alice"), Remind(body="look", after_seconds=3600))
    assert [each["body"] for each in (await state(operator))["reminders"]] == ["look"]
    await operator.post("/destroy/alice")
    kept = await state(operator)
    assert (len(kept["reminders"]), kept["schedules"][0]["paused"]) == (1, "")
    assert (await operator.post("/add-schedule", data=FORM)).status_code == 409
    await operator.post("/purge-tombstone/alice", data={"confirm": "alice"})
    left = await state(operator)
    assert (left["reminders"], left["schedules"][0]["paused"]) == ([], "purged")


async def test_a_reminder_is_taken_back_once(hive: WebHive, operator: httpx.AsyncClient) -> None:
    asked = await hive.actions.remind(Principal.agent("alice"), Remind(body="look", after_seconds=3600))
    path = f"/cancel-reminder/{asked.reminder_id}"
    assert (await operator.post(path)).json()["reminder"]["closed"] == "cancelled"
    assert (await operator.post(path)).status_code == 404
    assert (await state(operator))["reminders"] == []


async def test_agents_that_remind_themselves_of_much_hide_no_other(hive: WebHive) -> None:
    for name in ("dora", "emil", "fred", "gina"):
        for number in range(REMINDERS_SHOWN // 4):
            await hive.actions.remind(Principal.agent(name), Remind(body="x", after_seconds=60 + number))
    await hive.actions.remind(Principal.agent("alice"), Remind(body="mine", after_seconds=86_400))
    shown = (await hive.actions.snapshot(OPERATOR))["reminders"]
    assert (len(shown), shown[-1]["agent"]) == (REMINDERS_SHOWN, "alice")
