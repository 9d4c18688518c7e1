"""What is stored for agents that are gone: none of it may hold for a later agent of the same name."""

from typing import Final

from sqlalchemy import Connection, delete, or_, select, update

from hive_core.store import schema

OF_AGENTS: Final = (schema.budget, schema.next_turn, schema.permission_rule)


def end_leftovers(connection: Connection) -> None:
    """Delete what was allowed, counted or kept apart for names that no agent has.

    Nobody waits any more for what agents that were destroyed had asked to do.
    """
    names = select(schema.agent.c.name)
    for table in OF_AGENTS:
        connection.execute(delete(table).where(table.c.agent.not_in(names)))
    loop, permission = schema.loop.c, schema.permission.c
    connection.execute(delete(schema.loop).where(or_(loop.one.not_in(names), loop.other.not_in(names))))
    live = names.where(schema.agent.c.kept.is_(False))
    waiting = update(schema.permission).where(permission.closed == "", permission.agent.not_in(live))
    connection.execute(waiting.values(closed="withdrawn"))
