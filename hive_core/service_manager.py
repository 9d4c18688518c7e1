"""What the daemon tells systemd, where that started it (sd_notify(3), sd_watchdog_enabled(3))."""

import asyncio
import logging
import os
import socket
from typing import Final

log = logging.getLogger(__name__)

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"


def tell(state: str) -> None:
    """Tell the service manager, if there is one; that it cannot be told is no reason to end."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as messenger:
        try:
            messenger.sendto(state.encode(), target)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state, error)


def watchdog_seconds() -> float | None:
    """After how long without a sign of life systemd restarts this process; None if it does not watch it."""
    microseconds, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if process and process != str(os.getpid()):
        return None  # meant for whoever started us
    return int(microseconds) / 1_000_000


async def show_life() -> None:
    """Say that the event loop runs, twice in each of the watchdog's intervals; returns if nobody watches."""
    interval_seconds = watchdog_seconds()
    while interval_seconds is not None:
        tell(ALIVE)
        await asyncio.sleep(interval_seconds / 2)
