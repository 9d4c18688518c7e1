"""Tells core what the harness is doing, so that the dashboard need not ask; and again, as a sign of life."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from hive_agent.context import Context
from hive_agent.link import Link
from hive_agent.status import Status
from hive_shared.errors import HiveError
from hive_shared.wire import TOKENS_MAX, Report

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
FIRST_BEAT_SECONDS = 5.0  # until core has said how often it wants to hear

CONTEXT_STEP = 0.02  # of the context's size: smaller changes are told with the next badge


class Reporter:
    """Sends the newest badge; several changes in a row become one report. Owned as a task by the harness."""

    def __init__(
        self, link: Link, status: Status, context: Context, backend: str, model: Callable[[], str]
    ) -> None:
        self._link = link
        self._status = status
        self._context = context
        self._backend = backend
        self._model = model
        self._changed = asyncio.Event()
        self._again_seconds = FIRST_BEAT_SECONDS
        self._told_tokens = 0
        status.on_badge.append(self._changed.set)
        context.on_change.append(self._context_changed)
        link.on_connect.append(self._changed.set)  # a core that has restarted knows nothing

    def changed(self) -> None:
        """Something besides the badge is different (the model)."""
        self._changed.set()

    def _context_changed(self) -> None:
        """A turn may have an inference each second: not each is worth a report."""
        change, told = abs(self._context.tokens - self._told_tokens), max(self._told_tokens, 1)
        if self._context.tokens == 0 or change >= CONTEXT_STEP * told:
            self._changed.set()

    async def run(self) -> None:
        """Report at every change, and as often as core wants to hear it, until cancelled."""
        await self._changed.wait()
        while True:
            self._changed.clear()
            try:
                self._again_seconds = (await self._link.call(self._report())).again_seconds
            except HiveError as error:
                log.warning("report: %s", error.message)
                await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._again_seconds):
                    await self._changed.wait()

    def _report(self) -> Report:
        status, context = self._status, self._context
        self._told_tokens = context.tokens
        return Report(
            beats=True,
            badge=status.badge,
            backend=self._backend,
            model=self._model(),
            note=status.note,
            resumes_at_ms=status.resumes_at_ms,
            context_tokens=min(context.tokens, TOKENS_MAX),
            window_tokens=min(context.window_tokens, TOKENS_MAX),
        )
