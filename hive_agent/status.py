"""What the harness is doing right now: the badge, the running turn, the last one."""

from collections.abc import Callable
from typing import Any

from hive_agent.session import wall_clock_ms
from hive_shared.events import TurnStats
from hive_shared.wire import Badge, Message

NOTE_MAX_CHARACTERS = 500  # as in wire.Report


class Status:
    """Mutable, on the loop only. `on_change` hears of every change, `on_badge` of the badge alone."""

    def __init__(self, last_turn: TurnStats | None = None) -> None:
        self.badge = Badge.IDLE
        self.since_ms = wall_clock_ms()
        self.note = ""
        self.resumes_at_ms: int | None = None
        self.unread = 0
        self.turn: dict[str, Any] | None = None
        self.last_turn = last_turn
        self.on_change: list[Callable[[], None]] = []
        self.on_badge: list[Callable[[], None]] = []

    def show(self, badge: Badge, note: str = "", resumes_at_ms: int | None = None) -> None:
        """Set the badge; saying the same again changes nothing."""
        note = note[:NOTE_MAX_CHARACTERS].encode("utf-8", "replace").decode()
        if (badge, note, resumes_at_ms) == (self.badge, self.note, self.resumes_at_ms):
            return
        if badge != self.badge:
            self.since_ms = wall_clock_ms()
        self.badge, self.note, self.resumes_at_ms = badge, note, resumes_at_ms
        _tell(self.on_badge)
        self.changed()

    def turn_began(self, message: Message, unread: int) -> None:
        self.turn = {"from": message.sender, "message_id": message.id, "started_at_ms": wall_clock_ms()}
        self.unread = unread
        self.show(Badge.THINKING)

    def turn_ended(self, stats: TurnStats) -> None:
        self.turn = None
        self.last_turn = stats
        self.show(Badge.IDLE)

    def changed(self) -> None:
        """Something that the page shows is different now."""
        _tell(self.on_change)

    def snapshot(self) -> dict[str, Any]:
        """These fields as `GET /api/state` has them."""
        return {
            "badge": self.badge.value,
            "since_ms": self.since_ms,
            "note": self.note,
            "resumes_at_ms": self.resumes_at_ms,
            "unread": self.unread,
            "turn": self.turn,
            "last_turn": self.last_turn.model_dump() if self.last_turn else None,
        }


def _tell(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
