"""What waits for the operator, at the terminal; and whether notifications arrive."""

from typing import Annotated

import typer

from hive_core import cli_output
from hive_core.cli_command import Failed, Hive, command
from hive_core.cli_words import age, until
from hive_core.terminal_text import clean_line
from hive_shared import wire

notifications = typer.Typer(name="notify", help="Notifications on other devices.", no_args_is_help=True)


def waiting(
    hive: Hive,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each change.")] = False,
) -> None:
    """Show everything that waits for you: what holds up most first, then the oldest."""
    if follow:
        hive.follow(wire.Waiting(follow=True), _changed)
    else:
        hive.show(wire.Waiting(), _listed)


def dismiss(
    hive: Hive,
    approval_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, help="The approval that failed, as `waiting` lists it.")
    ],
) -> None:
    """Take note of an approval that failed; it does not wait any more."""
    hive.show(wire.Dismiss(approval_id=approval_id), cli_output.done(f"approval {approval_id} dismissed"))


def test(hive: Hive) -> None:
    """Send a test to every target of notifications, and say what became of it."""
    result = hive.show(wire.NotifyTest(), _tested)
    failed = sum(not outcome.ok for outcome in result.outcomes)
    if failed:
        raise Failed(f"{failed} of {len(result.outcomes)} could not be delivered")


command(notifications, "test", "Commands")(test)


def _listed(result: wire.WaitingList) -> None:
    if not result.entries:
        cli_output.tell("nothing waits for you")
    for entry in result.entries:
        cli_output.put(_told(entry))
    if result.total > len(result.entries):
        cli_output.tell(f"and {result.total - len(result.entries)} more")


def _changed(change: wire.WaitingChange) -> None:
    if change.settled:
        cli_output.put(f"- {_name(change.entry)}: settled")
    else:
        cli_output.put(_told(change.entry))


def _told(entry: wire.WaitingEntry) -> str:
    """Three lines: what waits, what was said, what happens if nothing is done."""
    held = f" · holds up {', '.join(map(clean_line, entry.blocked))}" if entry.blocked else ""
    lines = [f"{_name(entry)} · since {age(entry.since_ms) or '0s'}{held}"]
    if entry.said:
        lines.append(f"    {clean_line(entry.said)}")
    when = f"in {until(entry.expires_at_ms)}: " if entry.expires_at_ms is not None else ""
    lines.append(f"    {when}{clean_line(entry.otherwise)} · {clean_line(_command_for(entry))}")
    return "\n".join(lines)


def _name(entry: wire.WaitingEntry) -> str:
    number = f" #{clean_line(entry.id)}" if entry.id.isdecimal() else ""
    return f"{entry.kind}{number} {clean_line(entry.summary)}"


def _command_for(entry: wire.WaitingEntry) -> str:
    """What to type next."""
    match entry.kind:
        case wire.WaitingKind.APPROVAL:
            return f"hive-c0re diff {entry.id}"
        case wire.WaitingKind.QUESTION | wire.WaitingKind.STOP:
            return f"hive-c0re answer {entry.id} TEXT"
        case wire.WaitingKind.PERMISSION:
            return f"hive-c0re permissions allow {entry.id}"
        case wire.WaitingKind.FAILURE:
            return f"hive-c0re dismiss {entry.id}"
        case wire.WaitingKind.BUDGET:
            return f"hive-c0re budget {entry.id} --again"
        case wire.WaitingKind.LOGIN:
            return "log it in on its page"


def _tested(result: wire.NotifyTested) -> None:
    for outcome in result.outcomes:
        how = "delivered" if outcome.ok else f"NOT delivered: {outcome.note}"
        cli_output.put(clean_line(f"{outcome.target}: {how}"))
