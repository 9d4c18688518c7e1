"""Which agents there are: the `agent` table, cached in memory (SPEC section 2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from hive_core.clock import Clock, time_ms
from hive_core.store import Store, schema
from hive_core.store.leftovers import end_leftovers
from hive_shared.errors import Conflict, UnknownAgent
from hive_shared.names import check_existing_name

Role = Literal["manager", "agent"]
Wanted = Literal["running", "stopped"]

NAMES_SHOWN: Final = 20  # in an error that says who exists


@dataclass(frozen=True)
class AgentRecord:
    """One agent. `kept` marks a tombstone; `wanted` is what its container shall be."""

    name: str
    role: Role
    port: int
    host: str
    kept: bool
    wanted: Wanted
    created_at_ms: int


class Registry:
    """All agents of the hive. Reads are from memory; a change is there once it is committed."""

    def __init__(self, store: Store, host: str = "local", clock: Clock = time_ms) -> None:
        self.host = host
        self._store = store
        self._clock = clock
        self._agents: dict[str, AgentRecord] = {}

    async def load(self) -> None:
        """Read the table, and enter this host if it is new. Call once, before anything else."""

        def work(connection: Connection) -> list[AgentRecord]:
            present = insert(schema.host).on_conflict_do_nothing()
            connection.execute(present, {"name": self.host, "first_seen_at_ms": self._clock()})
            end_leftovers(connection)
            rows = connection.execute(select(schema.agent)).all()
            return [AgentRecord(**row._mapping) for row in rows]

        records = await self._store.write(work)
        self._agents = {record.name: record for record in records}

    def get(self, name: str) -> AgentRecord | None:
        """The agent or tombstone of that name, or None."""
        return self._agents.get(name)

    def require(self, name: str) -> AgentRecord:
        """The agent or tombstone of that name; `UnknownAgent` says who exists."""
        record = self._agents.get(name)
        if record is None:
            raise UnknownAgent(f"agent {name[:40]!r} does not exist; {self.who_exists()}", field="name")
        return record

    def live(self) -> list[AgentRecord]:
        """All agents that are not tombstones, the manager first, then by name."""
        return sorted((a for a in self._agents.values() if not a.kept), key=_order)

    def tombstones(self) -> list[AgentRecord]:
        """The agents that were destroyed with their state kept, by name."""
        return sorted((a for a in self._agents.values() if a.kept), key=_order)

    def who_exists(self) -> str:
        """For errors: the names there are, not too many of them."""
        names = [agent.name for agent in self.live()]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"there are: {', '.join(names[:NAMES_SHOWN])}{more}" if names else "there are no agents yet"

    async def add(self, name: str, role: Role, port: int) -> AgentRecord:
        """Enter a new agent that shall run. Raises `InvalidName`, or `Conflict` if the name is taken."""
        check_existing_name(name)
        record = AgentRecord(name, role, port, self.host, False, "running", self._clock())

        def work(connection: Connection) -> AgentRecord:
            done = connection.execute(insert(schema.agent).on_conflict_do_nothing(), _row(record))
            if not done.rowcount:
                raise Conflict(f"agent {name}: exists already, or its kept state does", field="name")
            return record

        return await self._store.write(work, committed=self._remember)

    async def set_wanted(self, name: str, wanted: Wanted) -> AgentRecord:
        """Note whether the agent's container shall run, also after a restart of the daemon."""
        return await self._change(name, lambda record: replace(record, wanted=wanted))

    def store_wanted(self, connection: Connection, name: str, wanted: Wanted) -> None:
        """As `set_wanted`, within the caller's transaction, who calls `set_wanted` once it is committed."""
        this = schema.agent.c.name == name
        connection.execute(update(schema.agent).where(this).values(wanted=wanted))

    async def set_kept(self, name: str, kept: bool) -> AgentRecord:
        """Make an agent a tombstone, or bring it back from being one."""
        return await self._change(name, lambda record: replace(record, kept=kept))

    async def forget(self, name: str) -> None:
        """Remove an agent for good (purged), and what was allowed or counted for it.

        At once, since a later agent of the name would have that. See also `Broker.purge`, for its inbox.
        """
        self.require(name)

        def work(connection: Connection) -> None:
            connection.execute(delete(schema.agent).where(schema.agent.c.name == name))
            end_leftovers(connection)

        def forgotten(_: None) -> None:
            self._agents.pop(name, None)

        await self._store.write(work, committed=forgotten)

    async def _change(self, name: str, change: Callable[[AgentRecord], AgentRecord]) -> AgentRecord:
        self.require(name)

        def work(connection: Connection) -> AgentRecord:
            this = schema.agent.c.name == name
            row = connection.execute(select(schema.agent).where(this)).one_or_none()
            if row is None:
                raise UnknownAgent(f"agent {name}: was purged just now", field="name")
            record = change(AgentRecord(**row._mapping))
            connection.execute(update(schema.agent).where(this).values(_row(record)))
            return record

        return await self._store.write(work, committed=self._remember)

    def _remember(self, record: AgentRecord) -> None:
        self._agents[record.name] = record


def _row(record: AgentRecord) -> dict[str, object]:
    return cast(dict[str, object], dict(vars(record)))


def _order(record: AgentRecord) -> tuple[bool, str]:
    return record.role != "manager", record.name
