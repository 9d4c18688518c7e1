"""The hive at one moment: the database, the refs of the applied repositories, and core's small files.

An approval's state is in the database, what came of it in refs and files; core changes one after the other,
and can go on from every point in between. So what belongs together has to be of one point. The database is
pinned by a read transaction, which in WAL mode is one state of it and keeps nobody from writing. The
others are read before and after it is: if they are the same, that is what they were.

Objects are no part of this: commits are imported before they are in the database, and never removed.
"""

import asyncio
import os
import sqlite3
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hive_core.backup.manifest import AGENTS, APPLIED, BUILDS, is_ref_of_ours
from hive_core.git import limits
from hive_core.git.program import Git
from hive_core.store.migrate import VERSION_TABLE
from hive_shared.errors import HiveError, NotFound, Unavailable
from hive_shared.names import MANAGER, is_agent_name
from hive_shared.paths import HostPaths

TRIES: Final = 40
PAUSE_SECONDS: Final = 0.25
BUSY_SECONDS: Final = 5.0
SMALL_MAX_BYTES: Final = 8 * 2**20
GIT_PARALLEL: Final = 4

Refs = dict[str, str]


@dataclass(frozen=True)
class Facts:
    """What is beside the database: agents with directories, refs by agent, core's small files by path."""

    agents: tuple[str, ...]
    repositories: dict[str, Refs]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Moment:
    """Facts and database of the same moment; the connection holds it until it is closed."""

    facts: Facts
    connection: sqlite3.Connection


async def hold_moment(paths: HostPaths) -> Moment:
    """Raises `NotFound` where there is no hive, `Unavailable` where it never holds still."""
    if not paths.database.is_file():
        raise NotFound(f"there is no hive: {paths.database} does not exist; name the hive with --root")
    connection = _connect(paths.database)
    try:
        before = await _look(paths)
        for _ in range(TRIES):
            connection.execute("BEGIN")
            connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall()  # noqa: S608
            after = await _look(paths)
            if after == before:
                return Moment(after, connection)
            connection.execute("ROLLBACK")
            before = after
            await asyncio.sleep(PAUSE_SECONDS)
    except sqlite3.Error as error:
        connection.close()
        raise Unavailable(f"the database {paths.database} cannot be read: {error}") from None
    except BaseException:
        connection.close()
        raise
    connection.close()
    raise Unavailable("agents are created, changed or removed all the time; try again when that is over")


def copy_database(connection: sqlite3.Connection, place: Path) -> str:
    """Copy what the connection sees, without any browser's session; the migration it is at.

    Raises `Unavailable` if the copy is damaged, since then the database is too, or if the disk is full.
    """
    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    copy = sqlite3.connect(place, isolation_level=None)
    try:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()
        copy.execute("PRAGMA secure_delete=ON").fetchall()
        copy.execute("DELETE FROM session")
        problems = integrity_problems(copy)
        if problems:
            raise Unavailable(
                f"the database is damaged ({problems[0]}); `hive-c0re doctor --deep` says more, and an "
                "earlier backup brings it back"
            )
        return str(copy.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()[0])  # noqa: S608
    except sqlite3.Error as error:
        raise Unavailable(f"the database cannot be copied: {error}") from None
    finally:
        copy.close()


def integrity_problems(connection: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds wrong; [] if nothing is."""
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    found = [] if found == ["ok"] else found
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    return found + [f"a row of {row[0]} refers to one of {row[2]} that is not there" for row in broken[:20]]


def _connect(database: Path) -> sqlite3.Connection:
    # Not read-only, although nothing is written: a hive that was killed leaves a log to be read with it.
    connection = sqlite3.connect(
        f"file:{_quoted(database)}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    connection.execute("PRAGMA query_only=ON")
    return connection


def _quoted(path: Path) -> str:
    return quote(str(path.absolute()))


# --- what is beside it ------------------------------------------------------


async def _look(paths: HostPaths) -> Facts:
    agents = tuple(_names(paths.agents))
    with_repository = [name for name in _names(paths.applied_root) if (paths.applied(name) / ".git").is_dir()]
    room = asyncio.Semaphore(GIT_PARALLEL)

    async def refs(name: str) -> Refs:
        async with room:
            return await refs_of(paths, name)

    found = await asyncio.gather(*(refs(name) for name in with_repository))
    repositories = dict(zip(with_repository, found, strict=True))
    return Facts(agents, repositories, await asyncio.to_thread(_small_files, paths, agents))


async def refs_of(paths: HostPaths, name: str) -> Refs:
    """The refs of the applied repository that are core's own; {} if it went away just now."""
    git = Git(paths.applied(name) / ".git")
    try:
        output = await git.run(
            "for-each-ref", "--format=%(refname) %(objectname)", output_max_bytes=16 * limits.MIB
        )
    except (HiveError, OSError):
        if git.directory.is_dir():
            raise
        return {}
    pairs = (line.split() for line in output.decode("utf-8").splitlines())
    return {ref: sha for ref, sha in pairs if is_ref_of_ours(ref)}


def _names(directory: Path) -> list[str]:
    """The agents that have an entry there."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    return [name for name in names if name == MANAGER or is_agent_name(name)]


def _small_files(paths: HostPaths, agents: tuple[str, ...]) -> dict[str, bytes]:
    """Core's own files that say how far something has come, by their path in the archive."""
    places: dict[str, Path] = {}
    for name in agents:
        for what in ("port", "prepared"):
            places[f"{AGENTS}/{name}/{what}"] = paths.agent_dir(name) / what
    for name in _names_of_applied(paths):
        places[f"{APPLIED}/{name}"] = paths.applied_root / name
    for place in sorted(paths.builds.glob("*/*.json")):
        places[f"{BUILDS}/{place.parent.name}/{place.name}"] = place
    read = ((path, _read_small(place)) for path, place in places.items())
    return {path: data for path, data in read if data is not None}


def _names_of_applied(paths: HostPaths) -> list[str]:
    try:
        names = sorted(os.listdir(paths.applied_root))
    except FileNotFoundError:
        return []
    endings = (".system.json", ".hyperhive-rev")
    agents = {
        ending: [n[1 : -len(ending)] for n in names if n.startswith(".") and n.endswith(ending)]
        for ending in endings
    }
    return [
        f".{name}{ending}"
        for ending, found in agents.items()
        for name in found
        if name == MANAGER or is_agent_name(name)
    ]


def _read_small(place: Path) -> bytes | None:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.read(SMALL_MAX_BYTES)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
