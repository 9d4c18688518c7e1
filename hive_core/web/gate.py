"""What every request passes before any handler sees it: the default is no.

In this order: a `Host` that is ours, a known method, for changes the exact `Origin`, then a session
(cookie and key), then a body of bounded size and time. Only the pages and files that hold no data, and
the login itself, are public. One place, so that a new route cannot forget a rule.
"""

import asyncio
import logging
import re
import traceback
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hive_core.operations import Measured, OperationKind, operation
from hive_core.web.cookie import SessionCookie, under_any_name
from hive_core.web.headers import HostRules
from hive_core.web.proxies import Caller, Proxies
from hive_core.web.refusals import WebRefusal
from hive_core.web.sessions import KEY_HEADER, Session, Sessions
from hive_core.web.strangers import GivenUp, Strangers
from hive_shared.errors import HiveError, Internal, Unavailable

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 1024 * 1024  # a message of 256 KiB in form encoding takes up to three times that
LOGIN_BODY_MAX_BYTES = 4096
BODY_SECONDS = 20.0

FORM_TYPE = "application/x-www-form-urlencoded"
LOGIN_PATH = "/login"

_STOPPING = "the daemon stops; what was begun goes on at its next start, if it can"
_PAGE = re.compile(r"/|/login|/favicon\.ico|/stats|/static/.*|/agents/[a-z0-9-]{1,9}(/|/stats)?", re.DOTALL)
_READING = frozenset({"GET", "HEAD"})


def is_public(method: str, path: str) -> bool:
    """Whether a request is answered without a session: shells and assets hold no data."""
    if method in _READING:
        return _PAGE.fullmatch(path) is not None
    return path == LOGIN_PATH


class Gate:
    """ASGI middleware in front of the dashboard's application."""

    def __init__(self, app: ASGIApp, hosts: HostRules, sessions: Sessions, proxies: Proxies) -> None:
        self._app = app
        self._hosts = hosts
        self._sessions = sessions
        self._proxies = proxies
        self._strangers = Strangers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        timed = operation(OperationKind.PAGE, "other", who="browser")
        with timed:
            await self._answer(scope, receive, _Answer(scope, send, timed))

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            if not self._sessions.has_cookie(under_any_name(Headers(scope=scope), self._hosts.port)):
                await self._strangers.turn()
            await self._admit(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _replay(body, receive), answer)
        except GivenUp:
            await answer.refuse(_too_busy(), scope, receive)
        except WebRefusal as refusal:
            await answer.refuse(refusal, scope, receive)
        except HiveError as error:
            await answer.refuse(WebRefusal.of(error), scope, receive)
        except asyncio.CancelledError:
            # Only the server's own end cancels a request, after a time of grace.
            await answer.refuse(WebRefusal.of(Unavailable(_STOPPING)), scope, receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the browser gets an answer
            log.error("%s %s failed: %s", scope["method"], ascii(scope["path"])[:200], _in_one_line(error))
            await answer.refuse(WebRefusal.of(Internal()), scope, receive)

    async def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        caller = state["caller"] = self._proxies.caller(scope, headers)
        origin = state["origin"] = self._our_origin(scope, headers, caller)
        base = state["base_path"] = self._hosts.base_path_of(origin)
        state["cookie"] = SessionCookie.of(origin, base, self._hosts.port)
        method, path = scope["method"], _within(scope["path"], base)
        scope["path"] = path
        if method not in _READING and method != "POST":
            message = f"method {method[:20]} is not used here"
            raise WebRefusal(405, "method_not_allowed", message, headers={"allow": "GET, HEAD, POST"})
        if method == "POST":
            self._check_origin(state["origin"], headers)
            _check_form(headers)
        if is_public(method, path):
            return
        self._check_fetch_site(headers)
        state["session"] = self._session(state["cookie"], headers)
        await self._sessions.touch(state["session"])

    def _our_origin(self, scope: Scope, headers: Headers, caller: Caller) -> str:
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise WebRefusal(400, "bad_host", "the request names no host, or several")
        server = scope.get("server") or (None, None)
        origin = self._hosts.origin_of(caller.host or hosts[0], server[0])
        if origin is None:
            raise WebRefusal(
                421,
                "bad_host",
                "this hive does not answer to that host name; add it to allowed_hosts if it should",
            )
        if caller.scheme is not None and not origin.startswith(f"{caller.scheme}:"):
            message = f"the proxy was called over {caller.scheme}, and allowed_hosts has {origin}"
            raise WebRefusal(421, "bad_scheme", message)
        return origin

    def _check_origin(self, ours: str, headers: Headers) -> None:
        """SECURITY 2: the whole origin, port included, or the browser's word that it is the same."""
        origins = headers.getlist("origin")
        sites = headers.getlist("sec-fetch-site")
        if any(origin != ours for origin in origins) or any(site != "same-origin" for site in sites):
            raise WebRefusal(403, "forbidden", "the request comes from another origin")
        if not origins and not sites:
            raise WebRefusal(403, "forbidden", "the request does not say which origin it comes from")

    def _check_fetch_site(self, headers: Headers) -> None:
        if any(site not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
            raise WebRefusal(403, "forbidden", "the request comes from another origin")

    def _session(self, cookie: SessionCookie, headers: Headers) -> Session:
        session = self._sessions.find(cookie.values(headers), headers.get(KEY_HEADER, ""))
        if session is None:
            raise WebRefusal(401, "no_session", "log in first; `hive-c0re url` prints a login address")
        return session

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] in _READING:
            return b""
        limit = LOGIN_BODY_MAX_BYTES if scope["path"] == LOGIN_PATH else BODY_MAX_BYTES
        declared = Headers(scope=scope).get("content-length", "0")
        if int(declared) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read(receive, limit)
        except TimeoutError:
            raise WebRefusal(408, "timeout", "the request's body did not arrive in time") from None


def _too_busy() -> WebRefusal:
    message = "too many requests without a login wait already; try again in a moment"
    return WebRefusal(503, "unavailable", message, headers={"retry-after": "2"})


def _too_large(limit: int) -> WebRefusal:
    return WebRefusal(413, "body_too_large", f"the request is larger than {limit // 1024} KiB")


def _check_form(headers: Headers) -> None:
    kind = headers.get("content-type", FORM_TYPE).partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise WebRefusal(415, "unsupported_media_type", f"changes are sent as {FORM_TYPE}")


def _within(path: str, base: str) -> str:
    """`path` as the routes know it: a proxy may take the base path away, or leave it to us."""
    if base == "/" or not path.startswith(base.rstrip("/")):
        return path
    if path == base.rstrip("/"):
        raise WebRefusal(308, "moved", f"the dashboard is at {base}", headers={"location": base})
    return path.removeprefix(base.rstrip("/")) if path.startswith(base) else path


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise WebRefusal(400, "bad_request", "the connection ended within the request")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one piece, then what really comes: the disconnect."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return message

    return replay


class _Answer:
    """`send`, which remembers how far the answer has come: once begun it is too late to refuse."""

    def __init__(self, scope: Scope, send: Send, timed: Measured) -> None:
        self._scope = scope
        self._send = send
        self._timed = timed
        self._begun = False
        self._ended = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if not self._begun:
            self._answered(message["status"])
        self._begun = True
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def _answered(self, status: int) -> None:
        """What comes now may last for ever. The route is a pattern, not the path that was asked for."""
        route = getattr(self._scope.get("route"), "path", None)
        if route is not None:
            self._timed.what = f"{self._scope['method']} {route}"
        self._timed.end("ok" if status < 400 else str(status))

    async def refuse(self, refusal: WebRefusal, scope: Scope, receive: Receive) -> None:
        if not self._begun:
            self._answered(refusal.status)
            await refusal.response()(scope, receive, self._send)
        elif not self._ended and (abort := scope["state"].get("abort")):
            abort()


def _in_one_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {ascii(str(error))[:500]}{where}"
