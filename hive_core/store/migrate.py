"""Bring a database to the tables of today, or say clearly why not."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DatabaseError

from hive_core.store import schema
from hive_shared.errors import Unavailable

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"
VERSION_TABLE: Final = "alembic_version"


def reason(error: BaseException | None) -> str:
    """What the database driver itself said, without SQL and parameters, which may hold bodies."""
    return str(getattr(error, "orig", None) or error or "unknown")


def bring_up_to_date(engine: Engine, path: Path) -> None:
    """Create or migrate the tables in one transaction.

    Raises `Unavailable` when the file is no SQLite database, is somebody else's, was written by a
    newer hyperhive, or lacks tables or columns it should have.
    """
    try:
        with engine.begin() as connection:
            if _revision(connection, path) != schema.HEAD_REVISION:
                _upgrade(connection, path)
            _check_tables(connection, path)
    except DatabaseError as error:
        raise Unavailable(
            f"the database {path} cannot be used: {reason(error)}; "
            "if another program holds it, end that; if it is damaged, move it away and restore a backup"
        ) from error


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
            f"this one knows up to {schema.HEAD_REVISION}); install that version or a later one"
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
                f"the database {path} is damaged: table {table.name} lacks {', '.join(missing)}; "
                "move it away and restore a backup"
            )
