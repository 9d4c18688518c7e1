"""Databases as an earlier hyperhive left them, made by the migrations of that time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from hive_core.store.migrate import MIGRATIONS


def database_at(path: Path, revision: str) -> None:
    """An empty database at `path` whose tables are those of `revision`."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
