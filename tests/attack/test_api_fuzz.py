"""Requests that nobody would write, to every route there is (SECURITY 3, 4 and 11).

The routes and their parameters come from the applications themselves, so a new one is attacked without being
listed here. Neither has a description of its forms that a generator of requests could start from: the forms
are read by hand, so fields, types and encodings are made up here. Whatever comes: no 500, no endless answer,
the strict headers, and an error that is JSON with a code.
"""

import asyncio
import json
import threading
import warnings
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from hive_agent.history import HISTORY_MAX_BYTES
from hive_agent.web import page_app
from hive_core.web import agent_pages, gate, headers
from tests.support.harness import harness_config
from tests.support.harness import running as running_harness
from tests.support.web_hive import WebHive, running_web

T = TypeVar("T")

CORE_ANSWER_MAX_BYTES = 4 * 1024 * 1024
AT_ONCE = 12  # routes that one made-up request is sent to
NOT_CALLED = {
    "/login",
    "/logout",
    "/logout-all",
}  # the session that all others need; each has its own attacks
STRICT = dict(headers.SECURITY_HEADERS)
FUZZ = settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)


class LoopThread:
    """An event loop beside the test, for what generators of examples cannot await."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass(frozen=True)
class Endpoint:
    """A method on a path, with the parameters that the application declares."""

    method: str
    path: str
    query: tuple[str, ...] = ()


@dataclass
class Target:
    """An application that runs, and how to call it as who may."""

    endpoints: list[Endpoint]
    client: httpx.Client
    most_bytes: int
    strict: bool
    log_in: Any = None
    seen: dict[str, set[int]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def hive(thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebHive]:
    stack = AsyncExitStack()
    hive = thread.run(stack.enter_async_context(running_web(tmp_path_factory.mktemp("hive"))))
    thread.run(hive.agent("alice"))
    yield hive
    thread.run(stack.aclose())


@pytest.fixture(scope="module")
def core(thread: LoopThread, hive: WebHive) -> Iterator[Target]:
    client = httpx.Client(base_url=hive.base, headers={"origin": hive.base}, timeout=30)

    def log_in() -> None:
        async def code() -> str:
            return (await hive.web.login_url()).code

        reply = client.post("/login", data={"code": thread.run(code())})
        client.headers["x-hive-key"] = reply.json()["key"]

    log_in()
    yield Target(endpoints_of(hive), client, CORE_ANSWER_MAX_BYTES, strict=True, log_in=log_in)
    client.close()


@pytest.fixture(scope="module")
def harness(thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    stack = AsyncExitStack()
    running = thread.run(
        stack.enter_async_context(running_harness(harness_config(tmp_path_factory.mktemp("h"))))
    )
    routes = [route for route in page_app(running).routes if isinstance(route, Route)]
    endpoints = [
        Endpoint(method, route.path, ("hours", "limit", "before"))
        for route in routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    socket = str(running.config.paths.page_socket)
    client = httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://page", timeout=30)
    yield Target(endpoints, client, HISTORY_MAX_BYTES + 64 * 1024, strict=False)
    client.close()
    thread.run(stack.aclose())


def endpoints_of(hive: WebHive) -> list[Endpoint]:
    """Every operation of core's application, from what it says of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two operations of a page have one name; nobody publishes this
        described = hive.web._application()._app.openapi()  # type: ignore[attr-defined]
    return [
        Endpoint(
            method.upper(),
            path,
            tuple(each["name"] for each in operation.get("parameters", []) if each["in"] == "query"),
        )
        for path, operations in sorted(described["paths"].items())
        for method, operation in sorted(operations.items())
        if path not in NOT_CALLED
    ]


# --- every route ---


def test_the_applications_tell_of_their_routes(core: Target, harness: Target) -> None:
    assert len({each.path for each in core.endpoints}) > 40
    assert {"/api/state", "/send", "/approve/{approval_id}", "/agents/{name}/events/stream"} <= {
        each.path for each in core.endpoints
    }
    assert len(harness.endpoints) == 11


def test_every_route_and_every_refusal_carries_the_strict_headers(core: Target, hive: WebHive) -> None:
    with httpx.Client(base_url=hive.base, timeout=30) as stranger:
        for endpoint in core.endpoints:
            path = filled(endpoint.path, "nobody", "1")
            for client in (core.client, stranger):
                with client.stream(endpoint.method, path) as reply:
                    assert strict(reply), (endpoint, reply.status_code)
        for path in NOT_CALLED:
            assert strict(stranger.post(path, headers={"origin": hive.base})), path
        for odd in ("/nowhere", "/static/../x", "/%00", "/agents/", "//evil.example/"):
            assert strict(stranger.get(odd)), odd
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            assert strict(stranger.request(method, "/api/state")), method
        assert strict(stranger.get("/", headers={"host": "evil.example"}))


def test_the_policy_allows_nothing_that_is_not_from_here() -> None:
    policy = dict(part.split(" ", 1) for part in STRICT["content-security-policy"].split("; "))

    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "'none'"
    allowed = {
        source for name, sources in policy.items() if name.endswith("-src") for source in sources.split()
    }
    assert allowed == {"'none'", "'self'", "data:"}
    assert "data:" not in policy["script-src"] + policy["style-src"] + policy["connect-src"]
    features = STRICT["permissions-policy"].split(", ")
    assert {"camera=()", "microphone=()", "geolocation=()", "usb=()"} <= set(features)
    assert all(feature.endswith("=()") for feature in features)


def strict(reply: httpx.Response) -> bool:
    return {name: reply.headers.get(name) for name in STRICT} == STRICT


# --- anything at all ---

NAMES = st.sampled_from(
    [
        "alice",
        "hm1nd",
        "nobody",
        "operator",
        "system",
        "*",
        "..",
        ".",
        "ALICE",
        "a" * 300,
        "al\x00ice",
        "../alice",
    ]
)
NUMBERS = st.one_of(
    st.integers(-5, 5).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["", "1e3", "٣", "0x1", "1.0", "NaN", "true", "9" * 5000, "-0", " 1", "1\n"]),
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "x" * 300_000, "\x00", "\u202e", "<script>", "'; --", "{{7*7}}", "%", "\ud7ff", "📛" * 999]
    ),
)
VALUES = st.one_of(NAMES, NUMBERS, TEXTS)
FIELDS = st.one_of(
    st.sampled_from(
        ["to", "body", "name", "note", "answer", "confirm", "code", "model", "commit", "in_reply_to"]
    ),
    st.sampled_from(
        ["key", "approval_id", "purge", "agent", "agents", "id", "base", "path", "limit", "host"]
    ),
    st.text(max_size=8),
)
TYPES = st.sampled_from(
    [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-7",
        "application/x-www-form-urlencoded; charset=\xff",
        "application/json",
        "multipart/form-data; boundary=x",
        "",
    ]
)


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    fields = draw(st.lists(st.tuples(FIELDS, VALUES), max_size=6))
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in fields).encode()


BODIES = st.one_of(forms(), forms(), st.binary(max_size=200), st.just(b"a=1&" * 5000), st.just(b"%" * 999))


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def filled(path: str, name: str, number: str) -> str:
    """A path with its parameters: names where a name belongs, numbers where a number does."""
    parts = []
    for part in path.split("/"):
        if part.startswith("{"):
            part = _quoted(name if "name" in part or "path" in part or "agent" in part else number)
        parts.append(part)
    return "/".join(parts)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "which": draw(st.integers(0, 100)),
        "name": draw(st.one_of(st.just("alice"), VALUES)),
        "number": draw(st.one_of(st.just("1"), VALUES)),
        "query": draw(st.lists(VALUES, max_size=3)),
        "others": draw(st.lists(st.tuples(FIELDS, VALUES), max_size=2)),
        "body": draw(BODIES),
        "type": draw(TYPES | st.just("application/x-www-form-urlencoded")),
        "last": draw(st.one_of(st.none(), NUMBERS)),
    }


def spread(target: Target, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The request to several routes, evenly apart, so that none is left out by chance."""
    step = max(1, len(target.endpoints) // AT_ONCE)
    for first in range(request["which"] % step, len(target.endpoints), step):
        yield {**request, "which": first}


def played(target: Target, request: dict[str, Any]) -> httpx.Response:
    """The request as this application would get it; an event stream is not read to its end."""
    endpoint = target.endpoints[request["which"] % len(target.endpoints)]
    pairs = [*zip(endpoint.query, request["query"], strict=False), *request["others"]]
    query = "&".join(f"{_quoted(name)}={_quoted(value[:2000])}" for name, value in pairs)
    name = request["name"][:2000]
    if name == "alice" and endpoint.path.startswith(("/destroy", "/purge")):
        name = "nobody"  # the other requests need her
    path = filled(endpoint.path, name, request["number"][:2000]) + (f"?{query}" if query else "")
    told = {}
    if request["last"] is not None and request["last"].isprintable() and request["last"].isascii():
        told["last-event-id"] = request["last"][:2000].strip()
    content = None
    if endpoint.method == "POST":
        content = request["body"]
        told |= {"content-type": request["type"].encode("latin-1")}
    with target.client.stream(endpoint.method, path, content=content, headers=told) as reply:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            target.seen.setdefault(endpoint.path, set()).add(reply.status_code)
            return httpx.Response(reply.status_code, headers=reply.headers)
        body = bytearray()
        for piece in reply.iter_raw():
            body += piece
            assert len(body) <= target.most_bytes, f"{path} answers without end"
    target.seen.setdefault(endpoint.path, set()).add(reply.status_code)
    return httpx.Response(reply.status_code, headers=reply.headers, content=bytes(body))


# What core says when it understood and could not: a container without its directory, a part that is off.
MEANT = {"failed", "not_available", "timeout", "unavailable"}


def check(target: Target, reply: httpx.Response) -> None:
    if reply.status_code >= 500 and reply.content:
        assert json.loads(reply.content)["error"]["code"] in MEANT, reply.text[:500]
    if target.strict:
        assert strict(reply)
    if reply.status_code >= 400 and reply.content:  # an answer to HEAD has none
        assert reply.headers["content-type"].startswith("application/json")
        error = json.loads(reply.content)["error"]
        assert error["code"]
        assert "Traceback" not in error["message"]
        assert len(error["message"]) < 4000


@FUZZ
@given(request=requests())
def test_core_answers_whatever_comes_with_sense(core: Target, request: dict[str, Any]) -> None:
    for one in spread(core, request):
        reply = played(core, one)
        if reply.status_code == 401:
            core.log_in()
        check(core, reply)


@FUZZ
@given(request=requests())
def test_a_harness_answers_whatever_comes_with_sense(harness: Target, request: dict[str, Any]) -> None:
    for one in spread(harness, request):
        check(harness, played(harness, one))


def test_the_requests_came_far_enough(core: Target, harness: Target) -> None:
    """Runs last: neither all refused at the door, nor most routes never met."""
    for target in (core, harness):
        met = set(target.seen)
        if not met:
            pytest.skip("only together with the tests before it")
        assert len(met) >= 0.8 * len({each.path for each in target.endpoints})
        assert {200, 422} <= {status for statuses in target.seen.values() for status in statuses}


@pytest.mark.parametrize("planted", ["an error", "a header less", "no end"])
def test_the_checks_see_what_they_forbid(core: Target, planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = next(number for number, each in enumerate(core.endpoints) if each.path == "/api/state")
    request = {
        "which": state,
        "name": "alice",
        "number": "1",
        "query": [],
        "others": [],
        "body": b"",
        "type": "",
    }
    request["last"] = None
    check(core, played(core, request))
    if planted == "an error":
        monkeypatch.setattr(gate, "is_public", lambda method, path: 1 / 0)
    elif planted == "a header less":
        monkeypatch.setitem(STRICT, "x-not-sent", "1")
    else:
        core = Target(core.endpoints, core.client, 100, strict=True)

    with pytest.raises(AssertionError):
        check(core, played(core, request))


def test_the_relay_has_a_limit_too() -> None:
    assert agent_pages.relay.BODY_MAX_BYTES <= 16 * 1024 * 1024
