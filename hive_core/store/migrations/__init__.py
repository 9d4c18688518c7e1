"""Alembic migrations, run by `hive_core.store.migrate` at start."""
