"""How fast is the broker?

    python tests/benchmarks/bench_broker.py [--sends 8000] [--wakes 2000] [--directory DIR]

Everything is measured in one run on the same disk: durable sends through the store's group commit
against the obvious way (an ORM session, add and commit per message, also `synchronous=FULL`), and how
long after a send begins its waiting receiver has the message, in process and over a real Unix socket
with the daemon's server and client. The wake-up includes the durable commit, so the cost of one bare
SQLite commit is printed beside it.
"""

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, event
from sqlmodel import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from hive_core.broker import Broker
from hive_core.store import schema
from hive_shared.client import Client
from hive_shared.server import Connection, SurfaceServer
from hive_shared.sockets import listen
from hive_shared.wire import Ack, Model, Recv, Request, Send, Surface
from tests.support.core_parts import ALICE, BOB, Parts, running

BODY = "x" * 200
SENDERS = (1, 8)


def main() -> None:
    options = argparse.ArgumentParser(description="How fast is the broker?")
    options.add_argument("--sends", type=int, default=8000, help="per way and number of senders")
    options.add_argument("--wakes", type=int, default=2000)
    options.add_argument("--directory", type=Path, help="where the databases go; default: a temporary one")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-broker-", dir=chosen.directory) as directory:
        uvloop.run(measure(Path(directory), chosen.sends, chosen.wakes))


async def measure(directory: Path, sends: int, wakes: int) -> None:
    rates = Table("durable sends per second", "1 sender", "8 senders", title="Throughput")
    ours = [await broker_rate(directory / f"ours{count}", count, sends) for count in SENDERS]
    peer = [orm_rate(directory / f"orm{count}", count, sends // 4) for count in SENDERS]
    rates.add_row("broker, group commit", *(f"{rate:,.0f}" for rate in ours))
    rates.add_row("ORM session, add and commit each", *(f"{rate:,.0f}" for rate in peer))
    rates.add_row("ratio", *(f"{mine / theirs:.1f}" for mine, theirs in zip(ours, peer, strict=True)))

    delays = Table("from send to received", "p50 µs", "p99 µs", title="Wake-up")
    bare = bare_commits(directory / "bare.sqlite", wakes)
    for name, seconds in (
        ("(one bare durable SQLite commit)", bare),
        ("in process", await wake_in_process(directory / "process", wakes)),
        ("over a Unix socket", await wake_over_socket(directory / "socket", wakes)),
    ):
        delays.add_row(
            name, *(f"{value * 1e6:,.0f}" for value in (percentile(seconds, 50), percentile(seconds, 99)))
        )
    Console().print(rates, delays)


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


# --- throughput ---------------------------------------------------------------


async def broker_rate(directory: Path, senders: int, total: int) -> float:
    async with running(directory / "b.sqlite") as parts:

        async def one_sender() -> None:
            for _ in range(total // senders):
                await parts.broker.send(ALICE, Send(to="bob", body=BODY))

        began = time.perf_counter()
        await asyncio.gather(*(one_sender() for _ in range(senders)))
        return total / (time.perf_counter() - began)


def orm_rate(directory: Path, senders: int, total: int) -> float:
    """The same rows (message and audit entry) by the ORM, each message in a session and commit of its own."""
    directory.mkdir()
    engine = create_engine(
        f"sqlite:///{directory}/b.sqlite", connect_args={"timeout": 60}, pool_size=senders, max_overflow=0
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    schema.metadata.create_all(engine)

    def one_sender(_: int) -> None:
        for _ in range(total // senders):
            now_ms = time.time_ns() // 1_000_000
            with Session(engine) as session:
                session.add(
                    schema.MessageRow(
                        host="local", sender="alice", recipient="bob", body=BODY, sent_at_ms=now_ms
                    )
                )
                session.add(
                    schema.Audit(
                        host="local",
                        at_ms=now_ms,
                        principal="alice",
                        action="send",
                        subject="bob",
                        outcome="ok",
                    )
                )
                session.commit()

    began = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(one_sender, range(senders)))
    elapsed = time.perf_counter() - began
    engine.dispose()
    return total / elapsed


# --- wake-up --------------------------------------------------------------------


def bare_commits(path: Path, count: int) -> list[float]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT)")
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        database.execute("INSERT INTO message (body) VALUES (?)", (BODY,))
        seconds.append(time.perf_counter() - began)
    database.close()
    return seconds


async def wake_in_process(directory: Path, count: int) -> list[float]:
    async with running(directory / "b.sqlite") as parts:
        broker = parts.broker
        return await wakes(
            count,
            recv=lambda: broker.recv("bob", Recv(wait_seconds=30), "c1"),
            send=lambda: broker.send(ALICE, Send(to="bob", body=BODY)),
            ack=lambda ids: broker.ack("bob", ids),
        )


async def wake_over_socket(directory: Path, count: int) -> list[float]:
    async with running(directory / "b.sqlite") as parts:
        servers = [await serve(parts, who.name, directory / f"{who.name}.sock") for who in (ALICE, BOB)]
        async with Client(directory / "alice.sock") as alice, Client(directory / "bob.sock") as bob:
            seconds = await wakes(
                count,
                recv=lambda: bob.call(Recv(wait_seconds=30)),
                send=lambda: alice.call(Send(to="bob", body=BODY)),
                ack=lambda ids: bob.call(Ack(ids=ids)),
            )
        for server in servers:
            await server.close()
        return seconds


async def wakes(
    count: int,
    *,
    recv: Callable[[], Awaitable[Any]],
    send: Callable[[], Awaitable[Any]],
    ack: Callable[[list[int]], Awaitable[Any]],
) -> list[float]:
    """Seconds from the beginning of each send until its waiting receiver has it."""
    seconds = []
    for _ in range(count):
        receiving = asyncio.ensure_future(recv())
        await asyncio.sleep(0.002)  # so that it waits, and the disk is at rest
        began = time.perf_counter()
        sending = asyncio.ensure_future(send())
        received = await receiving
        seconds.append(time.perf_counter() - began)
        await sending
        await ack([message.id for message in received.messages])
    return seconds


async def serve(parts: Parts, name: str, path: Path) -> SurfaceServer:
    server = SurfaceServer(Surface.AGENT, listen(path, mode=0o600), answer_for(parts.broker, name))
    await server.start()
    return server


def answer_for(broker: Broker, name: str) -> Callable[[Request[Any], Connection], Awaitable[Model]]:
    principal = ALICE if name == "alice" else BOB

    async def answer(request: Request[Any], connection: Connection) -> Model:
        match request:
            case Send():
                return await broker.send(principal, request)
            case Recv():
                return await broker.recv(name, request, connection.lease)
            case Ack():
                return await broker.ack(name, request.ids)
        raise AssertionError(request.op)

    return answer


if __name__ == "__main__":
    main()
