"""What is stored for agents that are gone: none of it may hold for a later agent of the same name."""

from typing import Final

from sqlalchemy import Connection, delete, or_, select

from hive_core.store import schema

OF_AGENTS: Final = (schema.budget, schema.next_turn, schema.permission_rule)


def delete_leftovers(connection: Connection) -> int:
    """Delete what was allowed, counted or kept apart for names that no agent has; how many rows."""
    names = select(schema.agent.c.name)
    gone = sum(
        connection.execute(delete(table).where(table.c.agent.not_in(names))).rowcount for table in OF_AGENTS
    )
    loop = schema.loop.c
    either = or_(loop.one.not_in(names), loop.other.not_in(names))
    return gone + connection.execute(delete(schema.loop).where(either)).rowcount
