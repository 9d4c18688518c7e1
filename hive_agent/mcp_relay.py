"""Relay stdio to the running harness's MCP server, byte for byte.

Started once for every process of the backend, so it must be ready at once: IMPORT ONLY THE
STANDARD LIBRARY HERE, and as little of it as will do. The backend runs this file itself
(`python -I -S mcp_relay.py <socket>`); `hive-ag3nt mcp` ends up here too.

Ends when the harness closes the connection, when nobody reads our output any more, or when
our input has ended and the harness has answered all that it is going to.
"""

import os
import select
import socket
import sys
import time

CONNECT_SECONDS = 10.0  # a harness that restarts is back by then
LINGER_SECONDS = 5.0  # for the last answers, once our input has ended
CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 4096  # what a pipe that polls as writable takes without blocking (PIPE_BUF)
ADDRESS_MAX_BYTES = 107

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


def main(arguments: list[str]) -> int:
    """Relay until either side ends; the exit code."""
    path = (
        arguments[0] if arguments else os.path.join(os.environ.get("HIVE_RUN_DIR", "/run/hive"), "tools.sock")
    )
    try:
        harness = connect(path)
    except OSError as error:
        sys.stderr.write(f"hive-ag3nt mcp: no harness answers on {path}: {error.strerror or error}\n")
        return 1
    with harness:
        relay(0, 1, harness)
    return 0


def connect(path: str, patience_seconds: float = CONNECT_SECONDS) -> socket.socket:
    """A connection to the Unix socket at `path`, retried while the harness is not up yet."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _connect_now(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.02)


def _connect_now(path: str) -> socket.socket:
    harness = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if len(os.fsencode(path)) <= ADDRESS_MAX_BYTES:
            harness.connect(path)
            return harness
        directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            harness.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
    except OSError:
        harness.close()
        raise
    return harness


def relay(source: int, sink: int, harness: socket.socket) -> None:
    """Copy `source` to the harness and the harness to `sink`, never blocking one on the other."""
    harness.setblocking(False)
    upward, downward = bytearray(), bytearray()
    source_open, deadline = True, None
    while True:
        ready = _wait(
            source if source_open and not upward else None, sink, harness, upward, downward, deadline
        )
        if ready is None:
            return
        if source_open and ready.get(source, 0) & _READABLE:
            upward += (data := os.read(source, CHUNK_BYTES))
            if not data:
                source_open = False
                harness.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + LINGER_SECONDS
        try:
            if upward:
                _send(harness, upward)
            if ready.get(harness.fileno(), 0) & _READABLE and not downward:
                downward += (data := harness.recv(CHUNK_BYTES))
                if not data:
                    return
        except BlockingIOError:
            continue
        except OSError:
            return  # the harness has gone
        events = ready.get(sink, 0)
        try:
            if downward and events & select.POLLOUT:
                del downward[: os.write(sink, downward[:PIPE_BYTES])]
            elif events & (select.POLLERR | select.POLLHUP):
                return
        except BrokenPipeError:
            return


def _send(harness: socket.socket, data: bytearray) -> None:
    try:
        del data[: harness.send(data)]
    except BlockingIOError:
        return  # poll says when there is room


def _wait(
    source: int | None,
    sink: int,
    harness: socket.socket,
    upward: bytearray,
    downward: bytearray,
    deadline: float | None,
) -> dict[int, int] | None:
    """What is ready, by descriptor; None when the time after the end of the input is over."""
    poll = select.poll()
    if source is not None:
        poll.register(source, select.POLLIN)
    interest = (select.POLLOUT if upward else 0) | (0 if downward else select.POLLIN)
    poll.register(harness.fileno(), interest)
    poll.register(sink, select.POLLOUT if downward else 0)
    if deadline is None:
        return dict(poll.poll())
    left_ms = int((deadline - time.monotonic()) * 1000)
    return dict(poll.poll(left_ms)) if left_ms > 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
