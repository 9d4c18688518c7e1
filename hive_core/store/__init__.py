"""The broker's database: tables, migrations, and the one writer."""

from hive_core.store.engine import Store

__all__ = ["Store"]
