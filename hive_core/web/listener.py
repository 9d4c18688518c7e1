"""uvicorn inside the daemon's loop: no signals, no polling, and bounds on what strangers may hold.

Anyone on the machine, agents included, can connect to the operator's ports. A connection that has
not shown a session may therefore be dropped at any time: it gets little memory, little time, and
gives way to newer ones, so that a flood of them locks nobody out (SECURITY 11).
"""

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hive_core.web.doors import port_of
from hive_core.web.headers import SECURITY_HEADERS
from hive_core.web.proxies import BY_SOCKET
from hive_shared.accepting import accept_all
from hive_shared.pace import Pace

HEAD_MAX_BYTES = 32 * 1024
HEAD_SECONDS = 10.0  # from the connection, or the first byte of a later request, to its last header
PIPELINED_MAX = 4  # requests that wait for the one before; browsers send none
CLOSE_SECONDS = 3

_numbers = itertools.count(1)


class TooManyAtOnce(Exception):
    """More requests were sent ahead than are taken."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection of uvicorn's, with limits on headers, time, and how many there are."""

    connections_max = 256
    accepts_per_second = 100.0
    accept_burst = 64.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.number = next(_numbers)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._cycles: deque[RequestResponseCycle | None] = deque(maxlen=PIPELINED_MAX + 2)
        self._make_room()
        super().connection_made(transport)
        self._expect_head()

    def _make_room(self) -> None:
        """Drop the connection that has shown no session for the longest time, if there are too many.

        Each kind has room of its own: a flood of the port does not touch what comes by the proxy's socket.
        """
        if len(self.connections) < self.connections_max:
            return
        ours = [
            held
            for held in self.connections
            if isinstance(held, BoundedProtocol) and type(held) is type(self)
        ]
        strangers = [held for held in ours if not held.known]
        if strangers and len(ours) >= self.connections_max:
            min(strangers, key=lambda held: held.number).transport.abort()

    @property
    def known(self) -> bool:
        """Whether the last request of this connection came with a session."""
        return bool(self.scope) and "session" in self.scope.get("state", {})

    def data_received(self, data: bytes) -> None:
        began_in_head = self._in_head
        super().data_received(data)
        if not (began_in_head and self._in_head):
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers of the request are too long.")

    def _expect_head(self) -> None:
        self._in_head = True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            # The parser refuses the rest of what has come; else it would read on through all of it at once.
            raise TooManyAtOnce
        super().on_message_begin()
        # A stream whose reader has stalled has no other way to end its connection.
        self.scope["state"]["abort"] = self.transport.abort
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        # uvicorn tells only the last one. Those before would write to a connection that is gone, and every
        # such attempt would be a traceback in the log: anybody could fill the disk with them.
        for cycle in self._cycles:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._cycles.clear()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ProxySocketProtocol(BoundedProtocol):
    """A connection by the Unix socket that is a reverse proxy's."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][BY_SOCKET] = True


class AgentPortProtocol(BoundedProtocol):
    """A connection to an agent's own port, which only ever redirects."""

    connections_max = 32
    accepts_per_second = 20.0
    accept_burst = 32.0


class HttpServer:
    """An ASGI application on its listening sockets, until closed."""

    def __init__(
        self,
        app: Any,
        listeners: Sequence[socket.socket],
        protocol: type[BoundedProtocol],
        proxy_socket: socket.socket | None = None,
    ) -> None:
        self._listeners = list(listeners)
        self._proxy_socket = proxy_socket
        self._protocol = protocol
        self._accepting: list[asyncio.Task[None]] = []
        self._config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            # The gate reads them, and only from a proxy that the operator named.
            proxy_headers=False,
            server_header=False,
            date_header=False,
            headers=list(SECURITY_HEADERS),
            timeout_keep_alive=30,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        self._server = uvicorn.Server(self._config)

    @property
    def port(self) -> int:
        return port_of(self._listeners[0])

    async def start(self) -> None:
        """Begin to accept. `Server.serve` would take the daemon's signals and poll ten times a second."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        self._server.server_state.default_headers = self._config.encoded_headers
        await self._server.startup(sockets=[])
        for listener in self._listeners:
            pace = Pace(self._protocol.accepts_per_second, self._protocol.accept_burst)
            accepting = accept_all(listener, self._connection, pace, f"port {port_of(listener)}")
            self._accepting.append(asyncio.create_task(accepting, name="web-accept"))
        if self._proxy_socket is not None:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(self._from_proxy, sock=self._proxy_socket)
            self._server.servers.append(server)

    def _connection(self) -> asyncio.BaseProtocol:
        state = self._server.lifespan.state
        return self._protocol(config=self._config, server_state=self._server.server_state, app_state=state)

    def _from_proxy(self) -> ProxySocketProtocol:
        return ProxySocketProtocol(
            config=self._config,
            server_state=self._server.server_state,
            app_state=self._server.lifespan.state,
        )

    async def close(self) -> None:
        """Stop accepting and let running replies end, for at most `CLOSE_SECONDS`."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await self._server.shutdown(sockets=self._listeners)
        state = self._server.server_state
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=CLOSE_SECONDS)
        for connection in list(state.connections):
            connection.transport.abort()
