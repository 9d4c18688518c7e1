"""The store, the broker and the queues put together for tests, on a real database file."""

import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hive_core.approvals import Approvals
from hive_core.audit import Audit
from hive_core.broker import Broker, BrokerLimits
from hive_core.budgets import Budgets, BudgetSettings
from hive_core.principals import Principal
from hive_core.questions import Questions
from hive_core.registry import Registry
from hive_core.reminders import Reminders
from hive_core.store import Store, engine
from hive_shared.names import MANAGER, hashed_port
from hive_shared.wire import Message, Recv, Send

ALICE = Principal.agent("alice", via="agent socket")
BOB = Principal.agent("bob", via="agent socket")
OPERATOR = Principal.operator(via="host socket")

UNLIMITED = BrokerLimits(sends_per_minute=1e12, send_burst=10**9)


@dataclass
class FakeClock:
    """A wall clock in milliseconds, and a monotonic one in seconds, that move when told to."""

    now_ms: int = 1_700_000_000_000
    now_seconds: float = 1000.0

    def __call__(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.now_seconds

    def pass_seconds(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        self.now_seconds += seconds


@contextlib.contextmanager
def before_commits(hook: Callable[[], None]) -> Iterator[None]:
    """Call `hook` in the writer's thread before each commit, which fails with what it raises."""
    real = engine._commit

    def commit(driver: sqlite3.Connection) -> None:
        hook()
        real(driver)

    with mock.patch.object(engine, "_commit", commit):
        yield


@contextlib.contextmanager
def failing_commits(times: int | None = None) -> Iterator[None]:
    """The disk fails at every commit, or at the first `times` ones."""
    left = itertools.count() if times is None else iter(range(times))

    def fail() -> None:
        if next(left, None) is not None:
            raise sqlite3.OperationalError("disk I/O error")

    with before_commits(fail):
        yield


@dataclass
class Parts:
    """What the daemon's composition root would build, without containers, sockets and pages."""

    store: Store
    clock: FakeClock
    audit: Audit
    registry: Registry
    broker: Broker
    approvals: Approvals
    questions: Questions
    reminders: Reminders
    budgets: Budgets
    told: list[Message] = field(default_factory=list)

    async def send(self, to: str, body: str = "hello", sender: Principal = ALICE) -> int:
        return (await self.broker.send(sender, Send(to=to, body=body))).ids[0]

    async def take(self, who: str, maximum: int = 100, lease: str = "c1") -> list[Message]:
        return (await self.broker.recv(who, Recv(max=maximum), lease)).messages


_empty: list[bytes] = []


async def _empty_database() -> bytes:
    """A migrated database without rows: migrating takes longer than most tests."""
    if not _empty:
        with tempfile.TemporaryDirectory(prefix="empty-hive-") as directory:
            path = Path(directory) / "b.sqlite"
            await (await Store.open(path)).close()
            _empty.append(path.read_bytes())
    return _empty[0]


async def build(
    path: Path,
    *,
    agents: Sequence[str] = ("alice", "bob"),
    limits: BrokerLimits = UNLIMITED,
    clock: FakeClock | None = None,
    budget: BudgetSettings | None = None,
) -> Parts:
    """All parts on the database at `path`; `agents` are added if they are new."""
    clock = clock or FakeClock()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(await _empty_database())
    store = await Store.open(path)
    audit = Audit(store, clock=clock)
    registry = Registry(store, clock=clock)
    await registry.load()
    for name in agents:
        if registry.get(name) is None:
            await registry.add(name, "manager" if name == MANAGER else "agent", hashed_port(name))
    budgets = Budgets(store, audit, budget, clock=clock)
    broker = Broker(store, registry, audit, limits, clock=clock, monotonic=clock.monotonic, budget=budgets)
    budgets.on_stop = broker.hold
    await budgets.open()
    await broker.open()
    questions = Questions(store, broker, audit, clock=clock)
    approvals, reminders = Approvals(store, broker, audit, clock=clock), Reminders(store, audit, clock=clock)
    parts = Parts(store, clock, audit, registry, broker, approvals, questions, reminders, budgets)
    broker.subscribe(parts.told.append)
    return parts


@contextlib.asynccontextmanager
async def running(
    path: Path,
    *,
    agents: Sequence[str] = ("alice", "bob"),
    limits: BrokerLimits = UNLIMITED,
    clock: FakeClock | None = None,
    budget: BudgetSettings | None = None,
) -> AsyncIterator[Parts]:
    """As `build`, closed at the end."""
    parts = await build(path, agents=agents, limits=limits, clock=clock, budget=budget)
    try:
        yield parts
    finally:
        await parts.store.close()


async def fill_the_disk(store: Store, *, spare_pages: int = 0) -> None:
    """From now on the database file cannot grow: what a full disk does, without one."""

    def work(connection: object) -> None:
        driver = connection.connection.driver_connection  # type: ignore[attr-defined]
        pages = driver.execute("PRAGMA page_count").fetchone()[0]
        driver.execute(f"PRAGMA max_page_count={pages + spare_pages}")

    await store.write(work)


async def free_the_disk(store: Store) -> None:
    """Undo `fill_the_disk`."""

    def work(connection: object) -> None:
        driver = connection.connection.driver_connection  # type: ignore[attr-defined]
        driver.execute("PRAGMA max_page_count=1073741823")

    await store.write(work)
