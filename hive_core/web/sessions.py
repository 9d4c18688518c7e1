"""The operator's browser sessions: two secrets each, stored as hashes (SECURITY 2 and 5).

The cookie goes wherever the browser sends cookies: to every port of this host. The key stays in the
storage of the dashboard's origin and travels in a header that only its own pages set. Either alone is
worth nothing.
"""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from hive_core.clock import Clock, time_ms
from hive_core.clock_jumps import JumpDetector
from hive_core.store import Store
from hive_core.store.schema import session as table
from hive_shared.errors import HiveError, NotFound
from hive_shared.wire import SessionView

log = logging.getLogger(__name__)

KEY_HEADER: Final = "x-hive-key"

DAY_MS: Final = 86_400_000
IDLE_DAYS: Final = 7.0
MAX_DAYS: Final = 30.0
SEEN_EVERY_MS: Final = 300_000  # how exact `last_seen_ms` is in the store
SESSIONS_MAX: Final = 64  # beyond that, the one unused for longest ends
SECRET_BYTES: Final = 32
CLIENT_MAX_CHARACTERS: Final = 200


@dataclass(frozen=True)
class Session:
    """One logged-in browser. `id` is shown to the operator and written to the audit; it is no secret."""

    id: str
    cookie_sha256: str
    key_sha256: str
    created_at_ms: int
    last_seen_ms: int
    client: str


@dataclass(frozen=True)
class NewSession:
    """A session and its two secrets, which exist nowhere else."""

    session: Session
    cookie: str
    key: str
    expires_at_ms: int  # however much it is used
    displaced: tuple[Session, ...] = ()  # logged out, since there were too many


class Sessions:
    """The sessions of this host: looked up in memory, kept in the store."""

    def __init__(
        self,
        store: Store,
        host: str,
        clock: Clock = time_ms,
        *,
        idle_days: float = IDLE_DAYS,
        max_days: float = MAX_DAYS,
        steady: Clock | None = None,
    ) -> None:
        self._jumps = JumpDetector(clock, steady)
        self._store = store
        self._host = host
        self._clock = clock
        self._idle_ms = round(idle_days * DAY_MS)
        self.absolute_ms = round(max_days * DAY_MS)
        self._by_cookie: dict[str, Session] = {}
        self._stored_seen_ms: dict[str, int] = {}
        self.on_end: list[Callable[[str], None]] = []  # called with the id of each session that ended

    async def load(self) -> None:
        """Read the sessions that are still good, and forget the others."""
        rows = [self._not_ahead(found) for found in await self._store.read(self._rows)]
        for found in rows:
            self._keep(found)
        await self._end([found for found in rows if self._over(found)])

    def find(self, cookies: Iterable[str], key: str) -> Session | None:
        """The session of one of these cookies, if the key is its own and its time is not over."""
        self._heed_jump()
        key_sha256 = _hashed(key)
        for cookie in cookies:
            found = self._by_cookie.get(_hashed(cookie))
            if found and hmac.compare_digest(found.key_sha256, key_sha256) and not self._over(found):
                return found
        return None

    def has_cookie(self, cookies: Iterable[str]) -> bool:
        """Whether one of these is the cookie of a session; it lets in nobody by itself."""
        return any(_hashed(cookie) in self._by_cookie for cookie in cookies)

    async def create(self, client: str) -> NewSession:
        """A new session for a browser that proved to be the operator's. Raises `Unavailable`."""
        self._heed_jump()
        await self._end([found for found in self._by_cookie.values() if self._over(found)])
        displaced = self._oldest()[: max(0, len(self._by_cookie) - SESSIONS_MAX + 1)]
        await self._end(displaced)
        cookie, key = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        now_ms = self._clock()
        session = Session(
            id=secrets.token_hex(4),
            cookie_sha256=_hashed(cookie),
            key_sha256=_hashed(key),
            created_at_ms=now_ms,
            last_seen_ms=now_ms,
            client=client[:CLIENT_MAX_CHARACTERS],
        )
        await self._store.write(lambda connection: self._insert(connection, session))
        self._keep(session)
        return NewSession(session, cookie, key, now_ms + self.absolute_ms, tuple(displaced))

    async def touch(self, session: Session) -> None:
        """It was used just now. A store that cannot be written costs no request: the session stays good."""
        held = self._by_cookie.get(session.cookie_sha256)
        if held is None:
            return
        seen = replace(held, last_seen_ms=max(held.last_seen_ms, self._clock()))
        self._by_cookie[session.cookie_sha256] = seen
        if abs(seen.last_seen_ms - self._stored_seen_ms.get(seen.id, 0)) < SEEN_EVERY_MS:
            return
        self._stored_seen_ms[seen.id] = seen.last_seen_ms
        try:
            await self._store.write(lambda connection: self._store_seen(connection, seen), durable=False)
        except HiveError as error:
            log.warning("session %s: last use not stored: %s", seen.id, error.message)

    async def end(self, session: Session) -> None:
        """Log this browser out."""
        await self._end([session])

    async def end_id(self, session_id: str) -> None:
        """Log the browser of that session out; raises `NotFound`."""
        found = [held for held in self._by_cookie.values() if held.id == session_id and not self._over(held)]
        if not found:
            raise NotFound(
                f"there is no session {session_id[:64]!r}; `hive-c0re sessions` lists those there are",
                field="session_id",
            )
        await self._end(found)

    async def end_all(self) -> int:
        """Log every browser out; how many there were."""
        ended = list(self._by_cookie.values())
        await self._end(ended)
        return len(ended)

    def is_live(self, session: Session) -> bool:
        self._heed_jump()
        held = self._by_cookie.get(session.cookie_sha256)
        return held is not None and not self._over(held)

    def views(self) -> list[SessionView]:
        """The sessions that are good now, as the operator may see them, the last used first."""
        self._heed_jump()
        return [
            SessionView(
                id=held.id,
                created_at_ms=held.created_at_ms,
                last_seen_ms=held.last_seen_ms,
                ends_at_ms=self._ends_at_ms(held),
                client=held.client,
            )
            for held in reversed(self._oldest())
            if not self._over(held)
        ]

    def _oldest(self) -> list[Session]:
        return sorted(self._by_cookie.values(), key=lambda held: held.last_seen_ms)

    def _over(self, session: Session) -> bool:
        return self._clock() >= self._ends_at_ms(session)

    def _heed_jump(self) -> None:
        """When the wall clock was set, what it measured is set with it."""
        _, by_ms = self._jumps.look()
        if by_ms:
            for cookie, held in self._by_cookie.items():
                self._by_cookie[cookie] = _moved(held, by_ms)
            self._jumps.heeded(by_ms)

    def _not_ahead(self, session: Session) -> Session:
        """As stored; what a clock stored that was ahead begins now, or it would last as much longer."""
        return _moved(session, min(0, self._clock() - session.last_seen_ms))

    def _ends_at_ms(self, session: Session) -> int:
        """When it ends, unless it is used again before."""
        return min(session.last_seen_ms + self._idle_ms, session.created_at_ms + self.absolute_ms)

    def _keep(self, session: Session) -> None:
        self._by_cookie[session.cookie_sha256] = session
        self._stored_seen_ms[session.id] = session.last_seen_ms

    async def _end(self, sessions: list[Session]) -> None:
        """Memory first: even if the store cannot be written, nobody uses them in this daemon."""
        if not sessions:
            return
        for session in sessions:
            self._by_cookie.pop(session.cookie_sha256, None)
            self._stored_seen_ms.pop(session.id, None)
            for callback in self.on_end:
                callback(session.id)
        ids = [session.id for session in sessions]
        await self._store.write(lambda connection: _delete(connection, ids))

    def _rows(self, connection: Connection) -> list[Session]:
        columns = (
            table.c.id,
            table.c.cookie_sha256,
            table.c.key_sha256,
            table.c.created_at_ms,
            table.c.last_seen_ms,
            table.c.client,
        )
        found = connection.execute(select(*columns).where(table.c.host == self._host))
        return [Session(*row) for row in found]

    def _insert(self, connection: Connection, session: Session) -> None:
        values = {
            "id": session.id,
            "host": self._host,
            "cookie_sha256": session.cookie_sha256,
            "key_sha256": session.key_sha256,
            "created_at_ms": session.created_at_ms,
            "last_seen_ms": session.last_seen_ms,
            "client": session.client,
        }
        connection.execute(insert(table).values(values))

    def _store_seen(self, connection: Connection, session: Session) -> None:
        times = {"created_at_ms": session.created_at_ms, "last_seen_ms": session.last_seen_ms}
        connection.execute(update(table).where(table.c.id == session.id).values(times))


def _moved(session: Session, by_ms: int) -> Session:
    created_at_ms, last_seen_ms = session.created_at_ms + by_ms, session.last_seen_ms + by_ms
    return replace(session, created_at_ms=created_at_ms, last_seen_ms=last_seen_ms)


def _delete(connection: Connection, ids: list[str]) -> None:
    connection.execute(delete(table).where(table.c.id.in_(ids)))


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
