"""What does a hostile crowd cost a well-behaved agent?

    python tests/benchmarks/bench_fairness.py [--wakes 200] [--directory DIR] [--only NAME …]

One daemon, and in one run, side by side: how long after alice begins to send bob, who waits, has the
message; with nobody else there, under each attack, and under all of them at once. The quiet hive is measured
again after every attack, and the ratios are to the best of these. The attackers are another process with the
lowest priority, since the cores of a host are divided among containers by their limits; what is measured is
what the daemon does. Memory is the daemon's own.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.floods import LET_GO
from hive_shared import wire
from hive_shared.client import Client
from hive_shared.errors import HiveError, RateLimited
from tests.support.hive import Hive, running_hive

AGENTS = ("alice", "bob", "mallory", "carol")
BODY = "x" * 200
PENDING = 10_000
CONNECTIONS = 200
STREAMS = 100
SETTLE_SECONDS = 2.0
MEASURE_SECONDS = 30.0  # at most, of one measurement
PAUSE_SECONDS = 0.005  # between two wakes, so that the receiver waits again

Attack = Callable[["Target"], Coroutine[Any, Any, None]]


def main() -> None:
    options = argparse.ArgumentParser(description="What does a hostile crowd cost a well-behaved agent?")
    options.add_argument("--wakes", type=int, default=200, help="of each measurement")
    options.add_argument("--directory", type=Path, help="where the hive goes; default: a temporary one")
    options.add_argument("--only", nargs="*", choices=list(ATTACKS), default=list(ATTACKS))
    options.add_argument("--attack", help=argparse.SUPPRESS)  # the other process
    chosen = options.parse_args()
    if chosen.attack:
        os.nice(19)
        asyncio.run(attack(json.loads(chosen.attack)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-fairness-", dir=chosen.directory) as directory:
        asyncio.run(measure(Path(directory) / "hive", chosen.wakes, chosen.only))


async def measure(root: Path, wakes: int, names: list[str]) -> None:
    async with running_hive(root) as hive:
        pid = (await hive.call(wire.DaemonStatus())).pid
        for name in AGENTS:
            await hive.call(wire.Spawn(name=name))
        for name in AGENTS:
            await hive.call(wire.Kill(name=name))  # their harnesses would take what is measured
        await fill(hive, "carol", PENDING)
        await ease(hive, "alice")
        quiet, pressed = [await latencies(hive, wakes)], {}
        for attacks in [[name] for name in names] + ([names] if len(names) > 1 else []):
            async with under(hive, attacks):
                title = attacks[0] if len(attacks) == 1 else "all of these"
                pressed[title] = (await latencies(hive, wakes), memory_mib(pid, "VmRSS"))
            quiet.append(await latencies(hive, wakes))
        peak_mib = memory_mib(pid, "VmHWM")
    calm = min(quiet, key=lambda seconds: percentile(seconds, 50))
    table = Table(
        "", "p50 ms", "p95 ms", "p50 ratio", "p95 ratio", "memory MiB", title="From send to received"
    )
    table.add_row(*row("quiet, the best", calm, calm))
    table.add_row(*row("quiet, the worst", max(quiet, key=lambda seconds: percentile(seconds, 50)), calm))
    for name, (seconds, memory) in pressed.items():
        table.add_row(*row(name, seconds, calm), f"{memory:.0f}")
    Console().print(table)
    Console().print(f"The daemon's memory was at most {peak_mib:.0f} MiB.")


def row(name: str, seconds: list[float], calm: list[float]) -> list[str]:
    shown = [percentile(seconds, percent) for percent in (50, 95)]
    against = [percentile(calm, percent) for percent in (50, 95)]
    ratios = [f"{mine / theirs:.1f}" for mine, theirs in zip(shown, against, strict=True)]
    return [name, *(f"{value * 1000:.2f}" for value in shown), *ratios]


def memory_mib(pid: int, what: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


# --- who behaves ----------------------------------------------------------------


async def latencies(hive: Hive, count: int) -> list[float]:
    """Seconds from the beginning of each send until its waiting receiver has it."""
    await asyncio.sleep(SETTLE_SECONDS)
    seconds: list[float] = []
    ends = time.perf_counter() + MEASURE_SECONDS
    async with connected(hive.paths.socket("alice")) as alice, connected(hive.paths.socket("bob")) as bob:
        while len(seconds) < count and (len(seconds) < 5 or time.perf_counter() < ends):
            receiving = asyncio.ensure_future(bob.call(wire.Recv(wait_seconds=60)))
            await asyncio.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            sending = asyncio.ensure_future(alice.call(wire.Send(to="bob", body=BODY)))
            received = await receiving
            seconds.append(time.perf_counter() - began)
            await sending
            await bob.call(wire.Ack(ids=[message.id for message in received.messages]))
    return seconds


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    client = Client(path)
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def ease(hive: Hive, name: str) -> None:
    """Let an agent send ten times as much as the limits say, as an operator does: it is measured often."""
    async with connected(hive.paths.socket(name)) as client:
        with contextlib.suppress(RateLimited):
            while True:
                await client.call(wire.Send(to="operator", body="a flood"))
    while not (questions := (await hive.call(wire.Questions())).questions):
        await asyncio.sleep(0.1)
    await hive.call(wire.Answer(question_id=questions[0].id, answer=LET_GO))


async def fill(hive: Hive, name: str, count: int) -> None:
    """Let `count` messages wait."""
    async with hive.client() as operator:
        for start in range(0, count, 500):
            await asyncio.gather(
                *(operator.call(wire.Send(to=name, body=f"{start + number}")) for number in range(500))
            )


# --- who does not ---------------------------------------------------------------


class Target:
    """What attackers were given: sockets of agents that turned, a port, and sessions of a browser."""

    def __init__(self, given: dict[str, str]) -> None:
        self.mallory = Path(given["mallory"])
        self.carol = Path(given["carol"])
        self.logins = given["logins"].split()
        parts = urlsplit(self.logins[0])
        self.host, self.port = parts.hostname or "", parts.port or 0


@contextlib.asynccontextmanager
async def under(hive: Hive, attacks: list[str]) -> AsyncIterator[None]:
    """The attacks, by another process, for as long as the context lasts."""
    logins = [(await hive.call(wire.MakeLoginUrl())).url for _ in range(5)]
    given = {
        "attacks": ",".join(attacks),
        "mallory": str(hive.paths.socket("mallory")),
        "carol": str(hive.paths.socket("carol")),
        "logins": " ".join(logins),
    }
    attacker = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--attack", json.dumps(given), stdin=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(SETTLE_SECONDS)
        yield
        assert attacker.returncode is None, "the attackers gave up"
    finally:
        attacker.kill()
        await attacker.wait()


async def attack(given: dict[str, str]) -> None:
    target = Target(given)
    async with asyncio.TaskGroup() as attackers:
        for name in given["attacks"].split(","):
            attackers.create_task(ATTACKS[name](target))


async def crowd(target: Target) -> None:
    """Connections that ask, write nonsense and come again, all at the socket of one agent."""
    await asyncio.gather(*(_nuisance(target.mallory, number) for number in range(CONNECTIONS)))


NONSENSE = (
    b'{"op":"status","id":1}\n' * 50,
    b'{"op":"status"}\n' * 50,
    b"{]\n" * 50,
    b'{"op":"send","to":"nobody","body":"x","id":1}\n' * 50,
    b'{"op":"report","badge":"idle","note":"' + b"x" * 400 + b'"}\n' * 20,
)


async def _nuisance(path: Path, number: int) -> None:
    noise = NONSENSE[number % len(NONSENSE)]
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(path)
            reading = asyncio.ensure_future(_drain(reader)) if number % 2 else None
            try:
                while reading is None or not reading.done():
                    writer.write(noise)
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                writer.close()
        await asyncio.sleep(0)


async def _drain(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(2**16):
            pass


async def sender(target: Target) -> None:
    """One agent that sends as fast as it can, to everybody there is."""
    recipients = itertools.cycle(("carol", "*", "operator", "bobby", "hm1nd"))

    async def one(client: Client) -> None:
        while True:
            with contextlib.suppress(HiveError):
                await client.call(wire.Send(to=next(recipients), body=BODY))

    async with connected(target.mallory) as client:
        await asyncio.gather(*(one(client) for _ in range(32)))


async def hoarder(target: Target) -> None:
    """Takes what it can of ten thousand messages, and goes away with it, again and again."""

    async def one() -> None:
        while True:
            with contextlib.suppress(HiveError):
                async with connected(target.carol) as client:
                    await client.call(wire.Recv(max=100))
            await asyncio.sleep(0)

    await asyncio.gather(*(one() for _ in range(20)))


async def streams(target: Target) -> None:
    """A hundred readers of the dashboard's events that never read, while there is much to tell."""
    from tests.support.hive import Operator

    held = []
    for login in target.logins:
        operator = await Operator.by_url(login)
        cookies = "; ".join(f"{name}={value}" for name, value in operator.http.cookies.items())
        head = (
            f"GET /messages/stream HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nCookie: {cookies}\r\n"
            f"X-Hive-Key: {operator.http.headers['X-Hive-Key']}\r\n\r\n"
        )
        for _ in range(STREAMS // len(target.logins)):
            connection = socket.create_connection((target.host, target.port))
            connection.sendall(head.encode())
            held.append(connection)
    async with connected(target.mallory) as client:
        while True:
            with contextlib.suppress(HiveError):
                await client.call(wire.Send(to="carol", body="y" * 200_000))
            await asyncio.sleep(0.1)


async def strangers(target: Target) -> None:
    """Connections to the dashboard's port that ask for pages without a login."""

    async def one(number: int) -> None:
        path = ("/", "/api/state", "/messages/stream", "/static/js/dashboard.js")[number % 4]
        request = f"GET {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n\r\n".encode()
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                reading = asyncio.ensure_future(_drain(reader))
                try:
                    while not reading.done():
                        writer.write(request)
                        await writer.drain()
                        await asyncio.sleep(0)
                finally:
                    writer.close()
            await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))


ATTACKS: dict[str, Attack] = {
    "crowd": crowd,
    "sender": sender,
    "hoarder": hoarder,
    "streams": streams,
    "strangers": strangers,
}


if __name__ == "__main__":
    main()
