"""Metrics on a Unix socket of their own, for a scraper, which cannot log in (docs/metrics.md).

Nothing else is served there. Whoever may use the host socket may read it, and nobody else: the numbers tell
how busy each agent is.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hive_core.metrics import CONTENT_TYPE
from hive_core.web.doors import bind_unix
from hive_core.web.listener import BoundedProtocol, HttpServer
from hive_shared.sockets import take_away

MetricsText = Callable[[], Awaitable[str]]


class MetricsSocket:
    """Answers `GET /metrics` on `path`; made by `open`."""

    def __init__(self, path: Path, server: HttpServer) -> None:
        self._path = path
        self._server = server

    @classmethod
    async def open(cls, path: Path, group: str, text: MetricsText) -> "MetricsSocket":
        """Raises `HiveError` when it cannot listen there."""
        listener = bind_unix(path, group, "metrics_socket")

        async def answer(_: Request) -> Response:
            return Response(await text(), media_type=CONTENT_TYPE)

        app = Starlette(routes=[Route("/metrics", answer, methods=["GET"])])
        server = HttpServer(app, [], BoundedProtocol, listener)
        await server.start()
        return cls(path, server)

    async def close(self) -> None:
        take_away(self._path)
        await self._server.close()
