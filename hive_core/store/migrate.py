"""Bring a database to the tables of today, or say clearly why not."""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DatabaseError

from hive_core.store import schema
from hive_shared.errors import Unavailable

log = logging.getLogger(__name__)

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"
VERSION_TABLE: Final = "alembic_version"
COPIES_KEPT: Final = 2  # of the database before a migration, each as large as it was
CHECKED_BYTES: Final = 128 * 2**20  # of a database, before it is used: about half a second
WAY_BACK: Final = (
    "move it away with its -wal and -shm files and restore a backup (`hive-c0re restore`); "
    "`hive-c0re doctor --deep` says more"
)


def reason(error: BaseException | None) -> str:
    """What the database driver itself said, without SQL and parameters, which may hold bodies."""
    return str(getattr(error, "orig", None) or error or "unknown")


def bring_up_to_date(engine: Engine, path: Path) -> None:
    """Create or migrate the tables in one transaction.

    Raises `Unavailable` when the file is no SQLite database, is somebody else's, was written by a
    newer hyperhive, or lacks tables or columns it should have; and when one of a former hyperhive
    cannot be copied, since nothing is migrated without a copy of what was there before.
    """
    try:
        _check_pages(engine, path)
        _keep_a_copy(engine, path)
        with engine.begin() as connection:
            if _revision(connection, path) != schema.HEAD_REVISION:
                _upgrade(connection, path)
            _check_tables(connection, path)
        _forget_old_copies(path)
    except DatabaseError as error:
        raise Unavailable(
            f"the database {path} cannot be used: {reason(error)}; "
            f"if another program holds it, end that; if it is damaged, {WAY_BACK}"
        ) from error


def copy_before(path: Path, revision: str) -> Path:
    """Where the database is kept as it was before it was migrated from `revision`."""
    return path.with_name(f"{path.name}.before-migration-of-{revision}")


def _check_pages(engine: Engine, path: Path) -> None:
    """A damaged page is found now, not when a message that it held is asked for."""
    if path.stat().st_size > CHECKED_BYTES:
        return  # a hive with a long history has to start too; what is damaged is noticed when it is read
    with engine.connect() as connection:
        found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if found != "ok":
        raise Unavailable(f"the database {path} is damaged: {' '.join(found.split())[:200]}; {WAY_BACK}")


def _keep_a_copy(engine: Engine, path: Path) -> None:
    """Before anything is migrated: all of it, written to the disk, whole or not at all."""
    with engine.connect() as connection:
        present = _revision(connection, path)
    if present is None or present >= schema.HEAD_REVISION or copy_before(path, present).exists():
        return
    unfinished = path.with_name(path.name + ".copying")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(unfinished)) as target,
        ):
            source.backup(target)
        _sync(unfinished)
        unfinished.rename(copy_before(path, present))
        _sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(
            f"the database {path} has to be migrated, and no copy of it can be made before: {error}; "
            f"make room for one more ({path.stat().st_size // 2**20 + 1} MiB), then start again"
        ) from None


def _forget_old_copies(path: Path) -> None:
    """Once this hyperhive's tables are there: what is older than the newest copies, in nobody's way back."""
    copies = [each for each in path.parent.iterdir() if each.name.startswith(copy_before(path, "").name)]
    for old in sorted(copies, key=lambda copy: copy.lstat().st_mtime_ns)[:-COPIES_KEPT]:
        try:
            old.unlink()
        except OSError as error:
            log.warning("%s: %s; it is not needed any more", old, error.strerror)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _revision(connection: Connection, path: Path) -> str | None:
    """The migration the database is at; None for an empty one."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise Unavailable(
            f"{path} is a database, but not hyperhive's: it has tables and no {VERSION_TABLE}; "
            "move it away, or point state_root elsewhere"
        )
    return connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608


def _upgrade(connection: Connection, path: Path) -> None:
    # Imported here: most starts find nothing to migrate, and Alembic takes a while to load.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    present = _revision(connection, path)
    if present is not None and present not in known:
        raise Unavailable(
            f"the database {path} was written by a newer hyperhive (migration {present}, "
            f"this one knows up to {schema.HEAD_REVISION}); install that version or a later one, or go back "
            f"to {copy_before(path, '…').name} beside it, which knows nothing that happened since"
        )
    command.upgrade(config, "head")


def _check_tables(connection: Connection, path: Path) -> None:
    """A database that says it is up to date must also look it."""
    found = inspect(connection)
    present = set(found.get_table_names())
    for table in schema.metadata.sorted_tables:
        columns = (
            {column["name"] for column in found.get_columns(table.name)} if table.name in present else set()
        )
        missing = sorted(set(table.columns.keys()) - columns)
        if missing:
            raise Unavailable(
                f"the database {path} is damaged: table {table.name} lacks {', '.join(missing)}; {WAY_BACK}"
            )
