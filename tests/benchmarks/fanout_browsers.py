"""The browsers of `bench_fanout.py`, in a process of their own that imports nothing of the hive."""

import asyncio
import json
import re
import statistics
import sys
import time
from typing import Any

import uvloop

SAMPLED_EVERY = 25  # browsers of which one's events are timed
CONNECT_SECONDS = 300.0  # for all browsers together
QUIET_SECONDS = 10.0  # without any event: nothing more comes
_SENT = re.compile(rb'"sent_ns":(\d+)')


class Browser:
    """One connection: how many events came, and how late, if it is one of those that are timed."""

    def __init__(self, timed: bool) -> None:
        self.events = 0
        self.late_ms: list[float] = []
        self._timed = timed
        self._rest = b""

    async def follow(self, port: int, session: dict[str, str], events: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        headers = {"host": f"127.0.0.1:{port}", **session}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET /messages/stream HTTP/1.1\r\n{lines}\r\n".encode())
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as patience:
                while self.events < events and (data := await reader.read(2**16)):
                    self._take(data)
                    if self.events:  # all are connected, and it has begun
                        patience.reschedule(asyncio.get_running_loop().time() + QUIET_SECONDS)
        except (TimeoutError, ConnectionError):
            pass  # what is missing is counted
        writer.close()

    def _take(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        whole = self._rest + data
        self.events += whole.count(b"event: message\n")
        self._rest = whole[-14:]  # shorter than what is counted: nothing is counted twice
        if self._timed:
            self.late_ms += [(now_ns - int(sent)) / 1e6 for sent in _SENT.findall(data)]


async def follow(task: dict[str, Any]) -> dict[str, object]:
    browsers = [Browser(number % SAMPLED_EVERY == 0) for number in range(task["browsers"])]
    sessions = task["sessions"]
    following = []
    for number, browser in enumerate(browsers):
        session = sessions[number % len(sessions)]
        following.append(asyncio.ensure_future(browser.follow(task["port"], session, task["events"])))
        await asyncio.sleep(0.015)  # the listener takes a hundred new connections a second
    await asyncio.gather(*following)
    late_ms = [each for browser in browsers for each in browser.late_ms]
    hundredths = statistics.quantiles(late_ms, n=100) if len(late_ms) > 1 else [0.0] * 99
    return {
        "delivered": sum(browser.events for browser in browsers),
        "lost": task["browsers"] * task["events"] - sum(browser.events for browser in browsers),
        "p50_ms": round(hundredths[49], 1),
        "p99_ms": round(hundredths[98], 1),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(follow(json.loads(sys.argv[1])))))
