"""What a notification says. It leaves the machine: docs/operating.md tells the operator what is in it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hive_core.waiting.excerpt import excerpt
from hive_shared.wire import WaitingEntry, WaitingKind

Detail = Literal["excerpt", "count"]

SAID_CHARACTERS: Final = 120
LISTED: Final = 8  # entries of a digest that are told one by one
AGAIN: Final = "(Perhaps once more: hive-c0re ended while it was sending this.)"

_NAMES: Final = {
    WaitingKind.APPROVAL: ("approval", "approvals"),
    WaitingKind.QUESTION: ("question", "questions"),
    WaitingKind.STOP: ("stop", "stops"),
    WaitingKind.LOGIN: ("login", "logins"),
    WaitingKind.PERMISSION: ("permission", "permissions"),
    WaitingKind.FAILURE: ("failure", "failures"),
    WaitingKind.BUDGET: ("budget", "budgets"),
}


@dataclass(frozen=True)
class Notification:
    """One notification, plain text."""

    title: str
    body: str


def compose(
    entries: Sequence[WaitingEntry], base_url: str, detail: Detail, *, again: bool = False
) -> Notification:
    """One notification for all of `entries`, of which there is one at least; the queue's order is kept."""
    told = [] if detail == "count" else [_line(entry) for entry in entries[:LISTED]]
    if told and len(entries) > LISTED:
        told.append(f"and {len(entries) - LISTED} more")
    lines = [*told, *([AGAIN] if again else []), _link(entries, base_url, detail)]
    return Notification(_title(entries), "\n".join(line for line in lines if line))


def test_notification(base_url: str) -> Notification:
    """What `hive-c0re notify test` sends."""
    return Notification("hyperhive: a test", f"Notifications of this hive arrive here.\n{base_url}".strip())


def _title(entries: Sequence[WaitingEntry]) -> str:
    """`hyperhive: 2 questions and 1 login wait`."""
    counts = Counter(entry.kind for entry in entries)
    parts = [f"{count} {_NAMES[kind][count > 1]}" for kind, count in counts.most_common()]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"hyperhive: {listed} {'waits' if len(entries) == 1 else 'wait'}"


def _line(entry: WaitingEntry) -> str:
    said = excerpt(entry.said, SAID_CHARACTERS)
    return f"{entry.summary}: {said}" if said else entry.summary


def _link(entries: Sequence[WaitingEntry], base_url: str, detail: Detail) -> str:
    """To the one entry, or to the page; names and numbers are not told where only the count is."""
    if not base_url:
        return ""
    base = base_url.rstrip("/") + "/"
    return base + entries[0].link if len(entries) == 1 and detail == "excerpt" else f"{base}#waiting"
