"""Logging in and out: one-time codes, and a limit on guessing them (SECURITY 5).

A code has two halves. The first names it, and is no secret among the operator's own; the second is
compared in constant time, and a few wrong ones burn the code. So the limit that stops guessing counts
against the code that is being guessed, and a flood of nonsense from elsewhere, such as an agent on
the host's network, cannot keep the operator from logging in.
"""

import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from hive_core.audit import Audit
from hive_core.clock import Clock, steady_beside, time_ms
from hive_core.principals import Principal
from hive_core.web.cookie import SessionCookie
from hive_core.web.failures import WINDOW_MS, FailureLimit, ListedFailures
from hive_core.web.forms import LoginForm, form
from hive_core.web.refusals import WebRefusal, json_response
from hive_core.web.sessions import SESSIONS_MAX, NewSession, Session, Sessions

log = logging.getLogger(__name__)

CODE_MS: Final = 10 * 60_000
CODES_MAX: Final = 16
CODE_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # none that are read or typed as another
NAME_CHARACTERS: Final = 5
SECRET_CHARACTERS: Final = 20  # 99 bits
GROUP_CHARACTERS: Final = 5
WRONG_PER_CODE_MAX: Final = 5


@dataclass
class _Code:
    secret_sha256: bytes
    expires_at_ms: int  # of the clock that never jumps
    wrong: int = 0


class LoginCodes:
    """One-time codes, in memory only: a restart of the daemon forgets them."""

    def __init__(self, clock: Clock = time_ms, steady: Clock | None = None) -> None:
        self._clock = clock
        self._steady = steady or steady_beside(clock)
        self._codes: OrderedDict[str, _Code] = OrderedDict()

    def issue(self) -> tuple[str, int]:
        """A new code, and when it expires (Unix milliseconds). The oldest gives way to a 17th."""
        name, secret = _random(NAME_CHARACTERS), _random(SECRET_CHARACTERS)
        self._codes[name] = _Code(_hashed(secret), self._steady() + CODE_MS)
        while len(self._codes) > CODES_MAX:
            self._codes.popitem(last=False)
        return _grouped(name + secret), self._clock() + CODE_MS

    def redeem(self, text: str) -> bool:
        """Whether `text` is a code that is still good; it is not good again."""
        typed = "".join(character for character in text.lower() if character.isalnum())
        name, secret = typed[:NAME_CHARACTERS], typed[NAME_CHARACTERS:]
        code = self._codes.get(name)
        if code is None:
            return False
        over = self._steady() >= code.expires_at_ms
        good = not over and hmac.compare_digest(code.secret_sha256, _hashed(secret))
        code.wrong += not good
        if good or code.wrong >= WRONG_PER_CODE_MAX or over:
            self._burn(name)
        return good

    def _burn(self, name: str) -> None:
        del self._codes[name]

    def clear(self) -> None:
        """Forget every code that was not used yet."""
        self._codes.clear()


class Login:
    """Turns a code into a session, and writes both outcomes to the audit."""

    def __init__(self, codes: LoginCodes, sessions: Sessions, audit: Audit, clock: Clock = time_ms) -> None:
        self.codes = codes
        self.sessions = sessions
        self._audit = audit
        self._limit = FailureLimit(clock)
        self._listed = ListedFailures(clock)

    async def log_in(self, code: str, address: str, client: str) -> NewSession:
        """A session for whoever knows a one-time code; raises `WebRefusal` 403 or 429."""
        if not self.codes.redeem(code):
            raise await self._failed(address)
        new = await self.sessions.create(client)
        principal = Principal.operator(f"session {new.session.id}")
        await self._audit.record(principal, "login", address, "ok", client)
        for session in new.displaced:
            why = f"{SESSIONS_MAX} browsers are logged in already"
            await self._audit.record(Principal.system("web"), "logout", session.id, "ok", why)
        return new

    async def log_out(self, session: Session) -> None:
        await self.sessions.end(session)
        principal = Principal.operator(f"session {session.id}")
        await self._audit.record(principal, "logout", session.id, "ok")

    async def log_out_all(self) -> int:
        """End every session and forget every unused code; how many sessions there were."""
        self.codes.clear()
        return await self.sessions.end_all()

    async def _failed(self, address: str) -> WebRefusal:
        if self._limit.exceeded(address):
            if self._limit.begins_series(address):
                await self._list_failure(address, "too many failures; the rest of this minute is not listed")
            wait = {"retry-after": str(WINDOW_MS // 1000)}
            message = "too many failed logins; wait a minute, then use a fresh code from `hive-c0re url`"
            return WebRefusal(429, "rate_limited", message, headers=wait)
        self._limit.count(address)
        await self._list_failure(address, "not a valid code")
        message = "that code is wrong, used or expired; `hive-c0re url` prints a fresh one"
        return WebRefusal(403, "bad_code", message, field="code")

    async def _list_failure(self, address: str, detail: str) -> None:
        """In the audit and the log, both of which an agent that guesses all day must not fill."""
        listed = self._listed.note(detail)
        if listed is not None:
            log.warning("a login from %s failed: %s", address, listed)
            await self._audit.record(Principal.system("web"), "login", address, "refused", listed)


def routes(login: Login) -> APIRouter:
    """`POST /login` (the one change that needs no session) and `POST /logout`."""
    router = APIRouter()

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        fields = await form(request, LoginForm)
        address = request.scope["state"]["caller"].address
        new = await login.log_in(fields.code, address, request.headers.get("user-agent", ""))
        response = json_response({"ok": True, "key": new.key, "expires_at_ms": new.expires_at_ms})
        _cookie_of(request).put(response, new.cookie, login.sessions.absolute_ms // 1000)
        return response

    @router.post("/logout")
    async def log_out(request: Request) -> Response:
        await login.log_out(request.scope["state"]["session"])
        response = json_response({"ok": True})
        _cookie_of(request).put(response, "", 0)
        return response

    return router


def _cookie_of(request: Request) -> SessionCookie:
    cookie: SessionCookie = request.scope["state"]["cookie"]
    return cookie


def _random(characters: int) -> str:
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(characters))


def _grouped(code: str) -> str:
    return "-".join(code[start : start + GROUP_CHARACTERS] for start in range(0, len(code), GROUP_CHARACTERS))


def _hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
