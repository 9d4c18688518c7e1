"""The harness's one connection to core: kept up with backoff, and calls that outlive a restart of core."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hive_shared.client import Client, NotReachable
from hive_shared.errors import HiveError, TooManyConnections, Unavailable
from hive_shared.names import OPERATOR
from hive_shared.wire import (
    Ack,
    Agents,
    Ask,
    AskPermission,
    ClosePermission,
    GetPermissionRules,
    Logs,
    LooseEnds,
    Model,
    PrepareSpawn,
    Recv,
    Report,
    ReportTurns,
    Request,
    RequestApplyCommit,
    RequestSpawn,
    Send,
    Status,
)

log = logging.getLogger(__name__)

RECONNECT_DELAYS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # the last one repeats

# Doing these twice does no more than doing them once: a lost reply is simply asked for again.
_REPEATABLE = (
    Recv,
    Ack,
    Status,
    Report,
    ReportTurns,
    AskPermission,
    ClosePermission,
    GetPermissionRules,
    LooseEnds,
    Agents,
    Logs,
    PrepareSpawn,
    RequestSpawn,
    RequestApplyCommit,
)

R = TypeVar("R", bound=Model)


class Link:
    """Calls to core. `run` keeps the connection; somebody must own it as a task."""

    def __init__(self, path: Path, delays_seconds: tuple[float, ...] = RECONNECT_DELAYS_SECONDS) -> None:
        self.path = path
        self.on_connect: list[Callable[[], None]] = []
        self._delays_seconds = delays_seconds
        self._client: Client | None = None
        self._up = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.connected

    async def run(self) -> None:
        """Connect, wait until the connection ends, connect again; until cancelled."""
        failures = 0
        while True:
            client = Client(self.path)
            try:
                await client.connect()
                failures = 0
                await self._hold(client)
            except Unavailable as error:
                if failures == 0:
                    log.info("core: %s", error.message)
            finally:
                await client.close()
            await asyncio.sleep(self._delays_seconds[min(failures, len(self._delays_seconds) - 1)])
            failures += 1

    async def call(self, request: Request[R], *, patience_seconds: float | None = None) -> R:
        """The result of `request`, waiting `patience_seconds` for core to be there (None: for ever).

        Raises what core answers; `Unavailable` when patience ran out, or when the connection broke
        after asking for something that must not be asked for twice.
        """
        try:
            async with asyncio.timeout(patience_seconds) as patience:
                while True:
                    await self._up.wait()
                    client = self._client
                    if client is None or not client.connected:
                        self._up.clear()
                        continue
                    if not _repeatable(request):
                        patience.reschedule(None)  # asked: from here on only the answer counts
                    try:
                        return await client.call(request)
                    except (NotReachable, TooManyConnections) as error:
                        await self._lost(client, request, error)
        except TimeoutError:
            raise Unavailable(
                f"the hive's daemon did not answer within {patience_seconds:g} seconds; "
                "it may be restarting, try again in a moment"
            ) from None

    async def _hold(self, client: Client) -> None:
        self._client = client
        self._up.set()
        log.info("connected to core")
        for callback in self.on_connect:
            callback()
        try:
            await client.wait_closed()
            log.info("the connection to core has ended")
        finally:
            self._up.clear()
            self._client = None

    async def _lost(self, client: Client, request: Request[Any], error: HiveError) -> None:
        if not _repeatable(request):
            raise Unavailable(
                f"the connection to the hive's daemon broke before it answered ({request.op}): "
                "it may or may not have been done, so look before you ask again"
            ) from error
        await client.wait_closed()
        if self._client is client:
            self._up.clear()


def _repeatable(request: Request[Any]) -> bool:
    if isinstance(request, Ask) and request.to == OPERATOR:
        return False
    return isinstance(request, _REPEATABLE) or (isinstance(request, Send | Ask) and request.key is not None)
