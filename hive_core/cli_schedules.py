"""What comes at set times, at the terminal: the operator's schedules, and the reminders of agents."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive, command
from hive_core.cli_words import ago, moment, until
from hive_core.terminal_text import clean, clean_line
from hive_shared import wire

LOCAL_TIME: Final = Path("/etc/localtime")
PAUSED: Final = {
    wire.SchedulePause.OPERATOR: "by you",
    wire.SchedulePause.PURGED: "its agent was purged",
    wire.SchedulePause.OVER: "its time never comes again",
    wire.SchedulePause.BROKEN: "its time zone is no longer known here",
}

schedules = typer.Typer(
    name="schedules", help="What is sent to agents at set times, such as every weekday.", no_args_is_help=True
)
reminders = typer.Typer(name="reminders", help="What agents will remind themselves of.", no_args_is_help=True)

Number = Annotated[
    int, typer.Argument(metavar="ID", min=1, help="The schedule, as `schedules list` shows it.")
]
CronText = Annotated[
    str,
    typer.Argument(
        metavar="CRON", help="Minute, hour, day of the month, month, day of the week: '0 9 * * mon-fri'."
    ),
]
Zone = Annotated[
    str, typer.Option("--timezone", help="Such as Europe/Berlin. Without: the one of this machine.")
]


def listed(hive: Hive) -> None:
    """Show every schedule, with its next runs and what became of the last one."""
    hive.show(wire.Schedules(), _listed)


def add(
    hive: Hive,
    cron: CronText,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Who gets the message.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What it says.")],
    timezone: Zone = "",
) -> None:
    """Send an agent a message at set times, from now on."""
    zone = timezone or local_zone()
    hive.show(wire.AddSchedule(name=agent, cron=cron, timezone=zone, body=text), _shown)


def preview(hive: Hive, cron: CronText, timezone: Zone = "") -> None:
    """Show when a schedule would run; adds none."""
    zone = timezone or local_zone()
    asked = wire.PreviewSchedule(cron=cron, timezone=zone)
    hive.show(asked, lambda seen: cli_output.put(f"{seen.means}\nnext: {_moments(seen.next_runs_ms, zone)}"))


def remove(hive: Hive, number: Number) -> None:
    """End a schedule for good."""
    hive.show(wire.RemoveSchedule(schedule_id=number), lambda gone: _told(gone, "is gone"))


def pause(hive: Hive, number: Number) -> None:
    """Send nothing until `schedules resume`; what falls in between is not made up for."""
    hive.show(wire.PauseSchedule(schedule_id=number), lambda view: _told(view, "is paused"))


def resume(hive: Hive, number: Number) -> None:
    """Go on with the next run from now."""
    hive.show(wire.ResumeSchedule(schedule_id=number), _shown)


def run(hive: Hive, number: Number) -> None:
    """Send its message now, once more than its times say."""
    hive.show(
        wire.RunSchedule(schedule_id=number), lambda view: _told(view, f"sent message {view.last_message_id}")
    )


def pending(
    hive: Hive, agent: Annotated[str | None, typer.Argument(metavar="[AGENT]", help="Only its own.")] = None
) -> None:
    """Show the reminders that are still to come."""
    hive.show(wire.Reminders(name=agent), _pending)


def cancel(
    hive: Hive,
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="As `reminders list` shows it.")],
) -> None:
    """Take an agent's reminder back; the agent is not told."""
    hive.show(wire.CancelReminder(reminder_id=number), _cancelled)


for _name, _function in (
    ("list", listed),
    ("add", add),
    ("preview", preview),
    ("pause", pause),
    ("resume", resume),
    ("run", run),
    ("remove", remove),
):
    command(schedules, _name, "Commands")(_function)
for _name, _function in (("list", pending), ("cancel", cancel)):
    command(reminders, _name, "Commands")(_function)


def local_zone() -> str:
    """The time zone of this machine, by its name; UTC where that cannot be told."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if "/" in named and not named.startswith("/"):
        return named
    _, found, name = str(LOCAL_TIME.resolve()).rpartition("/zoneinfo/")
    return name if found else "UTC"


def _listed(result: wire.ScheduleList) -> None:
    if not result.schedules:
        cli_output.tell("nothing is scheduled; `hive-c0re schedules add` does")
    for view in result.schedules:
        _shown(view)
    if result.more:
        cli_output.tell(f"and {result.more} more")


def _shown(view: wire.ScheduleView) -> None:
    when = f"{view.means or '?'} ({view.cron}, {view.timezone})"
    lines = [f"#{view.id} {view.agent} · {when}"]
    lines += [f"    {line}" for line in clean(view.body).splitlines()]
    if view.paused:
        lines.append(f"    paused: {PAUSED[view.paused]}")
    else:
        lines.append(f"    next: {_moments(view.next_runs_ms, view.timezone)}")
    if view.last_at_ms is not None:
        lines.append(f"    last: {ago(view.last_at_ms)}: {_outcome(view)}")
    cli_output.put("\n".join(lines))


def _outcome(view: wire.ScheduleView) -> str:
    if view.last_outcome != "skipped":
        return f"sent as message {view.last_message_id}"
    times = "" if view.missed == 1 else f", {view.missed} times now"
    return f"skipped{times}: {view.agent} is not done with message {view.last_message_id}"


def _moments(times: list[int], timezone: str) -> str:
    """As the clocks of that zone show them, which may be another than the terminal's."""
    try:
        zone = ZoneInfo(timezone)
        told = [f"{datetime.fromtimestamp(at_ms / 1000, zone):%a %Y-%m-%d %H:%M %Z}" for at_ms in times]
    except (OSError, ValueError, KeyError, OverflowError):  # this machine may know fewer zones
        told = [moment(at_ms) for at_ms in times]
    return ", ".join(told) or "never"


def _told(view: wire.ScheduleView, what: str) -> None:
    cli_output.put(f"schedule {view.id} for {view.agent} {what}: {view.cron} ({view.timezone})")


def _pending(result: wire.ReminderList) -> None:
    cli_output.put_table(
        ("ID", "AGENT", "IN", "AT", "WHAT"),
        [_row(view) for view in result.reminders],
        empty="no reminder is set",
    )
    if result.more:
        cli_output.tell(f"and {result.more} more")


def _row(view: wire.ReminderView) -> tuple[object, ...]:
    text = clean_line(view.body) + (" …" if view.truncated else "")
    return view.id, view.agent, until(view.due_at_ms), moment(view.due_at_ms), text


def _cancelled(view: wire.ReminderView) -> None:
    cli_output.put(f"reminder {view.id} of {view.agent} is off: {clean_line(view.body)}")
