"""What was done lately, and by whom: the part of the audit that dashboards show, live (SPEC section 11).

Entries are written inside the transactions of what they tell of. Dashboards hear of one when it
is committed, and never of one that was undone.
"""

import asyncio
import logging
from typing import Final

from sqlalchemy import Integer, bindparam, func, literal_column, or_, select

from hive_core.audit import ENTRY, Audit
from hive_core.feed import Feed
from hive_core.store import schema
from hive_core.store.prepared import Prepared
from hive_shared.errors import HiveError
from hive_shared.names import OPERATOR
from hive_shared.wire import AuditEntry

log = logging.getLogger(__name__)

SHOWN: Final = frozenset({
    "start", "kill", "restart", "rebuild", "update", "destroy", "purge", "crash", "silent",
    "request_spawn", "request_apply_commit", "rollback", "approve", "deny", "deployed", "failed", "dismiss",
    "answer", "cancel_question", "expire_question", "pause", "end_pause",
    "answer_permission", "expire_permission", "add_permission_rule", "remove_permission_rule",
    "set_aside", "requeue", "take_out",
    "add_schedule", "remove_schedule", "pause_schedule", "resume_schedule", "run_schedule", "cancel_reminder",
    "login", "logout", "end_session", "logout_all",
    "page api/cancel", "page api/compact", "page api/new-session", "page api/model",
    "page login/start", "page login/code", "page login/cancel", "page send",
})  # fmt: skip
LOOKED_BACK: Final = 5000  # entries; agents write to each other all day, which is audited too
TOLD_AT_ONCE: Final = 100

_audit = schema.audit

_IS_SHOWN: Final = _audit.c.action.in_([literal_column(f"'{action}'") for action in sorted(SHOWN)])
_BY_OPERATOR: Final = _audit.c.principal.startswith(OPERATOR)
# What an agent says, and what it was refused, would push away what people did.
_IS_WORTH_SHOWING: Final = or_(
    _IS_SHOWN & ~_audit.c.outcome.startswith("refused"),
    _BY_OPERATOR & or_(_IS_SHOWN, _audit.c.action == "send"),
)
_NEWS: Final = Prepared(
    select(*ENTRY)
    .where(_IS_WORTH_SHOWING, _audit.c.id > bindparam("told"))
    .order_by(_audit.c.id)
    .limit(bindparam("max"))
)
_TOP: Final = func.coalesce(
    bindparam("before", type_=Integer), select(func.max(_audit.c.id) + 1).scalar_subquery()
)
_RECENT: Final = Prepared(
    select(*ENTRY)
    .where(_IS_WORTH_SHOWING, _audit.c.id < _TOP, _audit.c.id >= _TOP - LOOKED_BACK)
    .order_by(_audit.c.id.desc())
    .limit(bindparam("max"))
)


class Activity:
    """Reads the audit for the dashboard, and tells the feed what is new: `run` until cancelled."""

    def __init__(self, audit: Audit, feed: Feed) -> None:
        self._audit = audit
        self._feed = feed
        self._news = asyncio.Event()
        self._told = 0

    async def open(self) -> None:
        """From now on, new entries are told once `run` runs."""
        newest = await self._audit.matching(None, 1)
        self._told = newest[-1].id if newest else 0
        loop = asyncio.get_running_loop()

        def written(action: str) -> None:
            if is_shown(action) and not loop.is_closed():
                loop.call_soon_threadsafe(self._news.set)

        self._audit.on_entry = written

    async def run(self) -> None:
        """Publish every shown entry as an event `activity`, in the order of the audit."""
        told = ""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._audit.settled()
                if await self._tell():
                    told = ""  # what is undone says nothing of the disk
            except HiveError as error:
                if error.message != told:  # whatever is refused wants to be audited, and wakes us
                    log.warning("what was done lately cannot be shown: %s", error.message)
                told = error.message

    async def recent(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """The newest `limit` shown entries (with ids below `before`), oldest first."""
        found = await self._audit.asked(_RECENT, before=before, max=limit)
        return found[::-1]

    async def _tell(self) -> bool:
        """Publish what is new; whether anything was."""
        before = self._told
        while True:
            fresh = await self._audit.asked(_NEWS, told=self._told, max=TOLD_AT_ONCE)
            for entry in fresh:
                self._told = entry.id
                self._feed.publish("activity", entry.model_dump(mode="json"))
            if len(fresh) < TOLD_AT_ONCE:
                return self._told != before


def is_shown(action: str) -> bool:
    """Whether entries of that action are for the dashboard; of messages, only the operator's are."""
    return action in SHOWN or action == "send"
