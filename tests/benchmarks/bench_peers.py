"""The broker beside the queues that others rely on, in one run on one disk.

    python tests/benchmarks/bench_peers.py [--sends 4000] [--wakes 1000] [--rounds 5] [--only NAME …]
                                           [--directory DIR] [--json FILE]

- wake: microseconds from the beginning of a durable send until the one waiting consumer has the message;
- throughput: messages a second from the first send until the last one is acknowledged, with 1 and with 8
  producers of which each waits for its answer, and one consumer that takes what there is, 100 at most.

Every queue runs in a process of its own and is asked by its usual asyncio client from this process, except
persist-queue, which is a library. The measurements go round by turns, so that a busy moment of the
machine meets all of them; figures are medians over the rounds. What "durable" means is said for each.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support, run as a script

from tests.benchmarks.peers.base import Consumer, NotHere, Peer
from tests.benchmarks.peers.hive import Hive
from tests.benchmarks.peers.nats_jetstream import NatsJetStream
from tests.benchmarks.peers.postgres import Postgres
from tests.benchmarks.peers.redis_streams import RedisStreams
from tests.benchmarks.peers.sqlite_queue import SqliteQueue

PEERS: tuple[type[Peer], ...] = (Hive, RedisStreams, NatsJetStream, Postgres, SqliteQueue)
BODY = "x" * 200
PRODUCERS = (1, 8)
SETTLE_SECONDS = 0.002  # between two wakes: the consumer waits again, and the disk is at rest


@dataclass
class Figures:
    """Of one peer; per round where they are lists of lists."""

    wakes_us: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        hundredths = statistics.quantiles(self.wakes_us, n=100)
        result = {"wake_p50_us": hundredths[49], "wake_p99_us": hundredths[98]}
        rates = {f"rate_{count}": statistics.median(each) for count, each in self.rates.items()}
        return {name: round(value, 1) for name, value in (result | rates).items()}


def main() -> None:
    options = argparse.ArgumentParser(description="The broker beside the queues that others rely on.")
    options.add_argument("--sends", type=int, default=4000, help="per round and number of producers")
    options.add_argument("--wakes", type=int, default=1000, help="over all rounds")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", nargs="*", help="names of peers; ours is always there")
    options.add_argument("--directory", type=Path, help="where the data goes; default: a temporary one")
    options.add_argument("--json", type=Path, help="keep the figures there as well")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-peers-", dir=chosen.directory) as directory:
        Path(directory).chmod(0o755)  # PostgreSQL's user comes through
        figures, absent = uvloop.run(measure(Path(directory), chosen))
    console = Console()
    console.print(table(figures))
    for kind in PEERS:
        if kind.name in figures:
            console.print(f"{kind.name}: {kind.durability}")
    for line in absent:
        console.print(f"left out: {line}")
    if chosen.json:
        kept = {name: each.summary() for name, each in figures.items()}
        about = {"python": platform.python_version(), "machine": platform.machine(), "rounds": chosen.rounds}
        chosen.json.write_text(json.dumps({"about": about, "figures": kept}, indent=1) + "\n")


async def measure(directory: Path, chosen: argparse.Namespace) -> tuple[dict[str, Figures], list[str]]:
    peers, absent = await started(directory, chosen.only)
    figures = {peer.name: Figures() for peer in peers}
    consumers = {peer.name: await peer.consumer() for peer in peers}
    try:
        for number in range(chosen.rounds):
            for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
                await one_round(peer, consumers[peer.name], figures[peer.name], chosen)
    finally:
        for peer in peers:
            await consumers[peer.name].close()
            await peer.stop()
    return figures, absent


async def started(directory: Path, only: list[str] | None) -> tuple[list[Peer], list[str]]:
    peers: list[Peer] = []
    absent = []
    for kind in PEERS:
        if only and kind is not Hive and not any(part.lower() in kind.name.lower() for part in only):
            continue
        place = directory / kind.__name__.lower()
        place.mkdir()
        peer = kind(place)
        try:
            await peer.start()
        except NotHere as error:
            absent.append(f"{kind.name}: {error}")
        else:
            peers.append(peer)
    return peers, absent


async def one_round(peer: Peer, consumer: Consumer, figures: Figures, chosen: argparse.Namespace) -> None:
    figures.wakes_us += await wakes(peer, consumer, max(chosen.wakes // chosen.rounds, 1))
    for count in PRODUCERS:
        rate = await throughput(peer, consumer, count, chosen.sends)
        figures.rates.setdefault(count, []).append(rate)


async def wakes(peer: Peer, consumer: Consumer, count: int) -> list[float]:
    producer = await peer.producer()
    microseconds = []
    for _ in range(count):
        receiving = asyncio.ensure_future(consumer.take())
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        sending = asyncio.ensure_future(producer.send(BODY))
        if await receiving != 1:
            raise RuntimeError(f"{peer.name}: one message was sent, more came")
        microseconds.append((time.perf_counter() - began) * 1e6)
        await sending
        await consumer.ack()
    await producer.close()
    return microseconds


async def throughput(peer: Peer, consumer: Consumer, producers: int, total: int) -> float:
    sides = [await peer.producer() for _ in range(producers)]

    async def send(side_number: int) -> None:
        for _ in range(total // producers):
            await sides[side_number].send(BODY)

    async def consume() -> None:
        left = total // producers * producers
        while left > 0:
            left -= await consumer.take()
            await consumer.ack()

    began = time.perf_counter()
    await asyncio.gather(consume(), *(send(number) for number in range(producers)))
    seconds = time.perf_counter() - began
    for side in sides:
        await side.close()
    return total // producers * producers / seconds


def table(figures: dict[str, Figures]) -> Table:
    shown = Table(
        title="Durable send → waiting consumer", caption="in brackets: ours is so many times as good"
    )
    for heading in ("", "wake p50 µs", "wake p99 µs", "msg/s, 1 producer", "msg/s, 8 producers"):
        shown.add_column(heading, justify="right" if heading else "left")
    ours = figures[Hive.name].summary()
    for name, each in figures.items():
        cells = []
        for key, value in each.summary().items():
            better = value / ours[key] if key.startswith("wake") else ours[key] / value
            cells.append(f"{value:,.0f}" + ("" if name == Hive.name else f" ({better:.1f}×)"))
        shown.add_row(name, *cells)
    return shown


if __name__ == "__main__":
    main()
