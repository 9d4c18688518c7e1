"""The web, loaded while everything else answers already.

FastAPI and the routes are a quarter of what the daemon loads. Agents and `hive-c0re` need none of it, so
they are answered first after a restart; a browser waits in the queue of a port that is ours (`doors.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from hive_shared.errors import Unavailable
from hive_shared.wire import LoginUrl, SessionView


class Dashboard(Protocol):
    """The web, as far as the daemon and its surfaces know it."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def login_url(self) -> LoginUrl: ...

    def session_views(self) -> list[SessionView]: ...

    async def end_session(self, session_id: str) -> None: ...

    async def logout_all(self) -> int: ...

    def stream_counts(self) -> tuple[int, int]: ...


class LateWeb:
    """A dashboard that is made by `start`; who asks for a login before that waits for it."""

    def __init__(self, load: Callable[[], Awaitable[Dashboard]]) -> None:
        self._load = load
        self._web: Dashboard | None = None  # not closed yet
        self._started: asyncio.Future[Dashboard] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Load it and have it answer. Raises what its own start raises."""
        self._web = await self._load()
        await self._web.start()
        self._started.set_result(self._web)

    async def close(self) -> None:
        """Safe also if it never came to be."""
        if self._web is not None:
            await self._web.close()

    async def login_url(self) -> LoginUrl:
        """A fresh one-time login."""
        return await (await self._there()).login_url()

    async def end_session(self, session_id: str) -> None:
        """End one session with its streams; raises `NotFound`."""
        await (await self._there()).end_session(session_id)

    async def logout_all(self) -> int:
        """End every session, and void unused logins; how many sessions there were."""
        return await (await self._there()).logout_all()

    def session_views(self) -> list[SessionView]:
        """The browsers that are logged in; raises `Unavailable` while they are not read yet."""
        if not self._started.done():
            raise Unavailable("the dashboard is being loaded; ask again in a moment")
        return self._started.result().session_views()

    def stream_counts(self) -> tuple[int, int]:
        """How many event streams browsers follow, and how many of them come from agents' harnesses."""
        return (0, 0) if self._web is None else self._web.stream_counts()

    async def _there(self) -> Dashboard:
        return await asyncio.shield(self._started)  # one who gives up must not end it for the others
