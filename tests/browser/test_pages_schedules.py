"""SCH3DUL3S on the dashboard: the next runs, what became of the last, the form that shows what it means."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.mock_hive import MockHive, now_ms, reminder, schedule

pytestmark = pytest.mark.browser


def opened(page: Page) -> Page:
    page.goto("/")
    expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
    return page


def test_a_schedule_shows_its_next_runs_and_what_became_of_the_last(hive: MockHive, page: Page) -> None:
    hive.schedules = [
        schedule(1, last_at_ms=now_ms(), last_outcome="sent", last_message_id=17),
        schedule(2, last_at_ms=now_ms(), last_outcome="skipped", last_message_id=18, missed=2),
        schedule(3, paused="purged", next_runs_ms=[], body="<img src=x onerror=alert(1)>"),
    ]
    opened(page)
    first, second, third = (page.locator(f'#schedule-list > [data-key="{number}"]') for number in (1, 2, 3))
    for text in (
        "alice",
        "At 09:00 on Monday through Friday",
        "Europe/Berlin",
        "write a summary",
        "message 17",
    ):
        expect(first).to_contain_text(text)
    runs = first.locator(".next-runs li")
    expect(runs).to_have_count(3)
    for run, zone in zip(runs.all(), ("CEST", "CEST", "CET"), strict=True):
        expect(run).to_contain_text(f"09:00 {zone}")  # of the schedule's zone, not of the browser's
    expect(second).to_contain_text("skipped 2 times now: alice is not done with message 18")
    expect(third).to_contain_text("its agent was purged")
    expect(third).to_contain_text("has not run yet")
    expect(third.locator("img")).to_have_count(0)


def test_a_schedule_is_paused_resumed_run_and_deleted(hive: MockHive, page: Page) -> None:
    hive.schedules = [schedule(1), schedule(2, paused="operator", next_runs_ms=[])]
    opened(page)
    for name, path in (
        ("Pause: schedule 1", "/pause-schedule/1"),
        ("Resume: schedule 2", "/resume-schedule/2"),
        ("Run now: schedule 2", "/run-schedule/2"),
    ):
        page.get_by_role("button", name=name).click()
        expect(page.locator("#schedules form[data-busy]")).to_have_count(0)
        page.wait_for_function("() => document.querySelectorAll('#toasts > *').length > 0")
        assert hive.posts[-1] == (path, {})
    page.get_by_role("button", name="Delete: schedule 1").click()
    assert len(hive.posts) == 3
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("#toasts")).to_contain_text("Schedule 1 is gone.")
    assert hive.posts[-1] == ("/remove-schedule/1", {})
    hive.publish("schedule", schedule(1, removed=True))
    expect(page.locator('#schedule-list > [data-key="1"]')).to_have_count(0)


def test_the_form_shows_what_is_meant_before_it_is_added(hive: MockHive, page: Page) -> None:
    opened(page)
    page.locator("#schedule-new > summary").click()
    cron, preview = page.locator("#schedule-cron"), page.locator("#schedule-preview")
    assert page.locator("#schedule-zone").input_value()  # the browser's
    page.locator("#schedule-zone").fill("Europe/Berlin")
    cron.fill("0 9 * * mon-fri")
    expect(preview).to_contain_text("At 09:00 on Monday through Friday")
    expect(preview.locator("li")).to_have_count(3)
    cron.fill("0 99 * * *")
    expect(preview).to_contain_text("bad hour")
    expect(cron).to_have_attribute("aria-invalid", "")
    cron.fill("30 7 * * *")
    expect(preview).to_contain_text("At 07:30 every day")
    page.locator("#schedule-zone").fill("Mars/Olympus")
    expect(preview).to_contain_text("there is no time zone")
    page.locator("#schedule-zone").fill("UTC")
    expect(preview.locator("li").first).to_contain_text("07:30 UTC")
    page.locator("#schedule-agent").select_option("hm1nd")
    page.locator('#schedule-add textarea[name="body"]').fill("sum up")
    page.get_by_role("button", name="Add the schedule").click()
    expect(page.locator("#toasts")).to_contain_text("It is scheduled.")
    sent = {"name": "hm1nd", "cron": "30 7 * * *", "timezone": "UTC", "body": "sum up"}
    assert hive.posts == [("/add-schedule", sent)]
    expect(cron).to_have_value("")
    expect(preview).to_have_text("")


def test_the_reminders_of_agents_are_seen_and_taken_back(hive: MockHive, page: Page) -> None:
    hive.reminders = [reminder(4, "look <b>again</b>"), reminder(5, "and again")]
    opened(page)
    fold = page.locator("#reminders")
    expect(fold.locator("summary")).to_contain_text("(2)")
    fold.locator("summary").click()
    expect(page.locator('#reminder-list > [data-key="4"]')).to_contain_text("look <b>again</b>")
    page.get_by_role("button", name="Cancel reminder 4 of alice").click()
    expect(page.locator("#toasts")).to_contain_text("Reminder 4 of alice is off.")
    assert hive.posts == [("/cancel-reminder/4", {})]
    for number in (4, 5):
        hive.publish("reminder", {**reminder(number, ""), "closed": "delivered"})
    expect(fold).to_be_hidden()
