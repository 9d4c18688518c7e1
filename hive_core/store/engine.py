"""Connections to the database, and the one writer that commits for everybody (SPEC section 5).

Writes are handed to one thread. It takes all that wait, runs each in a savepoint of one
transaction, commits once, and tells the event loop: so a commit's fsync is shared by everyone who
came while the last one was under way. That thread begins and ends its transactions on the driver
itself: for the shortest write, SQLAlchemy's own bookkeeping took a fifth of its time.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError

from hive_core import disk
from hive_core.operations import OperationKind, operation
from hive_core.store.migrate import WAY_BACK, bring_up_to_date, reason
from hive_core.store.refusals import Refusals
from hive_shared.errors import NotAvailable, Unavailable
from hive_shared.log_fields import Value, bound

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_SECONDS: Final = 5.0  # how long another program, such as a backup, may hold the write lock
BATCH_MAX_JOBS: Final = 256  # of one commit, so that the first of them does not wait for ever
QUEUE_MAX_JOBS: Final = 10_000
PATIENCE_SECONDS: Final = 0.002
READERS: Final = 2
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600


class Store:
    """The database of one hive. Made by `open`; `close` commits what was accepted before."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self._reading = _Reading(path)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._writing = _engine(path)
        self._writer = _Writer(path, self._writing.connect(), loop, self._found_damage)
        self._writer.start()
        self._closed = False
        self._loop = loop
        self.damaged: asyncio.Future[Unavailable] = loop.create_future()  # when the file is found damaged

    @classmethod
    async def open(cls, url_or_path: Path | str) -> "Store":
        """Open the database at a path or `sqlite:///` URL; create or migrate it as needed.

        Raises `Unavailable`, naming the path and what to do, when the file is no database of ours,
        is damaged, or was written by a newer hyperhive; `NotAvailable` for other databases.
        """
        path = _path_of(url_or_path)
        await asyncio.to_thread(_prepare, path)
        return cls(path, asyncio.get_running_loop())

    @property
    def closed(self) -> bool:
        return self._closed

    async def write(
        self,
        work: Work[T],
        *,
        durable: bool = True,
        patient: bool = False,
        committed: Callable[[T], None] | None = None,
    ) -> T:
        """What `work` returns, once it is committed; see `submit`."""
        return await self.submit(work, durable=durable, patient=patient, committed=committed)

    def submit(
        self,
        work: Work[T],
        *,
        durable: bool = True,
        patient: bool = False,
        committed: Callable[[T], None] | None = None,
        settled: Callable[[], None] | None = None,
    ) -> "asyncio.Future[T]":
        """Queue `work` for the next commit; it runs whether or not anybody awaits the future, or cancels it.

        `patient` work lets others come first that then share its commit, for `PATIENCE_SECONDS` at most.
        `durable` waits for the disk; otherwise the write survives a killed process but perhaps not
        a power cut. `committed` is called on the event loop with the result, in commit order and
        before the future resolves: the place to update what is cached in memory. `settled` is called
        after that, and also if nothing was committed. An exception of `work` undoes that work alone.
        `Unavailable` means that the whole batch was not stored.
        """
        if self._closed:
            raise Unavailable(f"the store {self.path} is closed; the daemon is shutting down")
        return self._writer.put(work, durable, patient, committed, settled)

    async def read(self, work: Work[T]) -> T:
        """What `work` returns, run in a read-only transaction that sees one state of the database."""
        if self._closed:
            raise Unavailable(f"the store {self.path} is closed; the daemon is shutting down")
        with operation(OperationKind.READ, "database"):
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    @property
    def waiting_writes(self) -> int:
        """How many writes wait for their commit."""
        return self._writer.waiting

    async def close(self) -> None:
        """Commit what is queued, end the threads, close the connections. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._reading.close()
        self._writing.dispose()

    def _read(self, work: Work[T]) -> T:
        try:
            return self._reading.run(work)
        except (DatabaseError, sqlite3.DatabaseError) as error:
            if _is_damage(error):
                self._found_damage(error)
            raise Unavailable(f"the database {self.path} cannot be read: {reason(error)}") from error

    def _found_damage(self, error: BaseException) -> None:
        """From any thread."""
        found = Unavailable(f"the database {self.path} is damaged: {reason(error)}; {WAY_BACK}")

        def tell() -> None:
            if not self.damaged.done():
                log.error(found.message)
                self.damaged.set_result(found)

        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(tell)


class _Reading:
    """A connection for each thread that reads: taking one from a pool would cost as much as a short query."""

    def __init__(self, path: Path) -> None:
        self._engine = _engine(path, pragmas=("query_only=ON",))
        self._own = threading.local()
        self._open: list[Connection] = []

    def run(self, work: Work[T]) -> T:
        """In a transaction that sees one state of the database."""
        connection = self._connection()
        try:
            driver = _driver(connection)
            driver.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.rollback()  # what SQLAlchemy began by itself with the work's first statement
                driver.rollback()
        except (DatabaseError, sqlite3.DatabaseError):
            self._forget(connection)  # whatever it is: the next read begins with a new one
            raise

    def close(self) -> None:
        """Once all threads have ended."""
        for connection in self._open:
            connection.close()
        self._engine.dispose()

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._engine.connect()
            self._open.append(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._own.connection = None
        self._open.remove(connection)
        with contextlib.suppress(DatabaseError, sqlite3.DatabaseError):
            connection.invalidate()
            connection.close()


# --- the writer -------------------------------------------------------------


@dataclass(eq=False)
class _Job(Generic[T]):
    """One piece of work, and what became of it."""

    work: Work[T]
    durable: bool
    patient: bool
    committed: Callable[[T], None] | None
    settled: Callable[[], None] | None
    future: "asyncio.Future[T]"
    about: dict[str, tuple[Value, ...]]  # the ids that log lines of whoever asked for it would have
    result: Any = None
    error: BaseException | None = None


class _BatchLost(Exception):
    """SQLite ended the transaction by itself, so nothing of the batch is stored."""


class _Writer(threading.Thread):
    """The thread that owns the writing connection."""

    def __init__(
        self,
        path: Path,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        found_damage: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="store-write", daemon=True)
        self._found_damage = found_damage
        self._path = path
        self._connection = connection
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._synchronous = ""
        self._refusals = Refusals(path)
        self._context = contextvars.copy_context()  # of who observes operations

    @property
    def waiting(self) -> int:
        """How many writes wait."""
        return self._jobs.qsize()

    def put(
        self,
        work: Work[T],
        durable: bool,
        patient: bool,
        committed: Callable[[T], None] | None,
        settled: Callable[[], None] | None,
    ) -> "asyncio.Future[T]":
        if self._jobs.qsize() >= QUEUE_MAX_JOBS:
            raise Unavailable(f"{QUEUE_MAX_JOBS} writes wait for the disk already; try again in a moment")
        job = _Job(work, durable, patient, committed, settled, self._loop.create_future(), bound())
        self._jobs.put(job)
        return job.future

    def stop(self) -> None:
        """End the thread when everything queued before has been committed."""
        self._jobs.put(None)

    def run(self) -> None:
        self._context.run(self._run)

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._next_batch()
            if not batch:
                continue
            how = "durable" if any(job.durable for job in batch) else "quick"
            with operation(OperationKind.COMMIT, how, **_about(batch)):
                self._commit(batch)
            try:
                self._loop.call_soon_threadsafe(_resolve, batch)
            except RuntimeError:
                break  # the loop is gone, and everyone who waited with it
        self._connection.close()

    def _next_batch(self) -> tuple[list[_Job[Any]], bool]:
        """All jobs that wait, at least one; and whether they are the last ones."""
        batch: list[_Job[Any]] = []
        job = self._jobs.get()
        until, patient = time.monotonic() + PATIENCE_SECONDS, True
        while job is not None:
            batch.append(job)
            patient = patient and job.patient
            if len(batch) == BATCH_MAX_JOBS:
                return batch, False
            try:
                # A commit takes as long for one as for many: an ack alone would hold up the next send.
                job = self._jobs.get(patient, max(0.0, until - time.monotonic()))
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Job[Any]]) -> None:
        """Run the jobs in one transaction; afterwards each has a result or an error."""
        try:
            before = self._raw().total_changes if self._refusals.lasting else 0
            self._synchronise("FULL" if any(job.durable for job in batch) else "NORMAL")
            self._in_transaction(batch)
        except Exception as error:  # noqa: BLE001 - every waiter of the batch gets it
            # Even a refusal may rest on what another job of this batch had written.
            lost = self._unavailable(error.__cause__ if isinstance(error, _BatchLost) else error)
            self._refusals.refused(lost.message, len(batch))
            for job in batch:
                job.error = lost
            self._recover()
        else:
            if self._refusals.lasting and self._raw().total_changes != before:
                self._refusals.stored()

    def _synchronise(self, level: str) -> None:
        """Set whether commits wait for the disk; SQLite allows it between transactions only."""
        if level != self._synchronous:
            self._raw().execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    def _in_transaction(self, batch: list[_Job[Any]]) -> None:
        raw = self._raw()
        raw.execute("BEGIN IMMEDIATE")
        if len(batch) == 1:  # nobody else's work is to be kept, so it needs no savepoint
            self._attempt(raw, batch[0])
            if batch[0].error is None:
                _commit(raw)
            else:
                raw.execute("ROLLBACK")
        else:
            for job in batch:
                raw.execute("SAVEPOINT job")
                self._attempt(raw, job)
                if job.error is not None:
                    raw.execute("ROLLBACK TO job")
                raw.execute("RELEASE job")
            _commit(raw)
        # What SQLAlchemy began by itself with a work's first statement is over as well.
        self._connection.rollback()

    def _attempt(self, raw: sqlite3.Connection, job: _Job[Any]) -> None:
        """Run one job. Raises `_BatchLost` if that ended the whole transaction."""
        try:
            job.result = job.work(self._connection)
        except Exception as error:
            if not raw.in_transaction:
                raise _BatchLost from error
            job.error = self._unavailable(error) if _is_the_database(error) else error

    def _raw(self) -> sqlite3.Connection:
        return _driver(self._connection)

    def _unavailable(self, error: BaseException | None) -> Unavailable:
        if error is not None and _is_damage(error):
            self._found_damage(error)
        why, then = reason(error), ", so try again once the disk or the other program lets it"
        if error is not None and _is_of_the_disk(error) and disk.is_read_only(self._path.parent):
            why, then = disk.READ_ONLY, f"; {disk.WAY_OUT}"
        return Unavailable(f"the database {self._path} cannot be written: {why}; nothing was stored{then}")

    def _recover(self) -> None:
        """Leave a connection on which the next batch can begin."""
        try:
            self._connection.rollback()
            raw = self._raw()
            if raw.in_transaction:  # SQLite keeps it open when COMMIT fails, SQLAlchemy thinks it over
                raw.execute("ROLLBACK")
        except (DBAPIError, sqlite3.Error) as error:
            log.warning("the store opens a new connection: %s", reason(error))
            self._connection.invalidate()
            self._connection.rollback()
            self._synchronous = ""


def _about(batch: list[_Job[Any]]) -> dict[str, tuple[Value, ...]]:
    """What a commit for all of them is about."""
    merged: dict[str, tuple[Value, ...]] = {}
    for job in batch:
        for name, values in job.about.items():
            merged[name] = tuple(dict.fromkeys((*merged.get(name, ()), *values)))
    return merged


def _is_the_database(error: Exception) -> bool:
    """Whether the database failed (full, locked, damaged), rather than refused what broke a rule of it."""
    failed = isinstance(error, DatabaseError | sqlite3.DatabaseError)
    return failed and not isinstance(error, IntegrityError | sqlite3.IntegrityError)


def _is_damage(error: BaseException) -> bool:
    """Whether the file itself is not what SQLite wrote."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_of_the_disk(error: BaseException) -> bool:
    """Whether the kernel refused SQLite something; why, SQLite does not say."""
    return _code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _code(error: BaseException) -> int:
    """What SQLite calls it, without what that is extended by; 0 for what is not SQLite's."""
    return int(getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)) & 0xFF


def _resolve(batch: list[_Job[Any]]) -> None:
    """On the event loop: first what is cached, then who waits, in commit order."""
    for job in batch:
        if job.error is None and job.committed is not None:
            _call(partial(job.committed, job.result))
        if job.settled is not None:
            _call(job.settled)
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


def _call(told: Callable[[], None]) -> None:
    try:
        told()
    except Exception:
        log.exception("after a commit")


# --- connections ------------------------------------------------------------


def _path_of(url_or_path: Path | str) -> Path:
    text = str(url_or_path)
    if text.startswith("sqlite:///"):
        return Path(text.removeprefix("sqlite:///"))
    if "://" in text:
        scheme = text.partition("://")[0]
        raise NotAvailable(f"database_url: {scheme} is not supported yet; give a path or sqlite:///path")
    return Path(text)


def _prepare(path: Path) -> None:
    """A database file at `path`, private to this user, with the tables of today."""
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database itself.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        path.chmod(FILE_MODE)
    except OSError as error:
        raise Unavailable(
            f"the database {path} cannot be opened: {error.strerror}; "
            "check that the directory exists and belongs to the user who runs the daemon"
        ) from None
    engine = _engine(path, begin="BEGIN IMMEDIATE")
    try:
        bring_up_to_date(engine, path)
    finally:
        engine.dispose()


def _commit(driver: sqlite3.Connection) -> None:
    """The one place where writes wait for the disk; tests of faults stand in its way."""
    driver.execute("COMMIT")


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def _engine(path: Path, *, begin: str = "", pragmas: tuple[str, ...] = ()) -> Engine:
    """Connections to `path` whose transactions open with `begin`; without, the caller opens them."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=READERS)
    # The driver would begin by itself, too late and without the lock; so it is told not to, above.
    if begin:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
