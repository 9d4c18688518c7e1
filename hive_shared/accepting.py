"""Accept connections one after the other and at a pace: the event loop's own servers take all that come."""

import asyncio
import logging
import socket
from collections.abc import Callable

from hive_shared.pace import Pace

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


async def accept_all(
    listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], pace: Pace, what: str
) -> None:
    """Give every connection a protocol, until cancelled; those beyond the pace wait in the kernel."""
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        await pace.turn()
        try:
            peer, _ = await loop.sock_accept(listener)
            await loop.connect_accepted_socket(protocol, peer)
        except OSError as error:  # the peer has gone already, or no file is left to open
            log.warning("%s cannot accept a connection: %s", what, error)
            await asyncio.sleep(RETRY_SECONDS)
