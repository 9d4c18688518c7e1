"""What Alembic runs; the connection, inside its transaction, comes from `hive_core.store.migrate`."""

from alembic import context

from hive_core.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
