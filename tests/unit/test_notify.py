"""Notifications: what is told, when, and never twice; with servers that hang, fail and talk rubbish."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hive_core.config import BadConfig, load_settings
from hive_core.feed import Feed
from hive_core.notify.delivery import Outcome, by_courier
from hive_core.notify.ledger import FORGOTTEN_MS, Ledger, TargetPage
from hive_core.notify.notifier import (
    GATHER_MS,
    RETRY_FIRST_MS,
    RETRY_MAX_MS,
    Manners,
    Notifier,
    Outbox,
    name_of,
)
from hive_core.notify.quiet import QuietHours
from hive_core.notify.targets import Target, read_targets
from hive_core.notify.words import AGAIN, LISTED, Notification, compose
from hive_core.waiting.queue import WaitingQueue
from hive_core.waiting.sources import permission_entry
from hive_shared.errors import HiveError
from hive_shared.wire import PermissionView, WaitingEntry, WaitingKind
from tests.support.core_parts import FakeClock

GUARD_SECONDS = 60.0
BASE = "https://hive.example.org/h"
MANNERS = Manners(base_url=lambda: BASE)
PAUSE_MS = MANNERS.pause_ms
NTFY = Target("t1", "ntfy:// of line 1", "ntfy://secret-topic")
MAIL = Target("t2", "mailto:// of line 2", "mailto://me:hunter2@example.org")


def entry(number: int, kind: WaitingKind = WaitingKind.QUESTION, said: str = "which colour?") -> WaitingEntry:
    return WaitingEntry(
        kind=kind,
        id=str(number),
        who="alice",
        summary="alice asks",
        said=said,
        since_ms=number,
        otherwise="waits for ever",
        link=f"#{kind}-{number}",
    )


# --- words -------------------------------------------------------------------------


def test_one_entry_is_told_with_its_words_and_a_link_to_it() -> None:
    told = compose([entry(7)], BASE, "excerpt")
    assert told == Notification(
        "hyperhive: 1 question waits", f"alice asks: which colour?\n{BASE}/#question-7"
    )


def test_a_digest_counts_by_kind_and_lists_the_first() -> None:
    many = [entry(n) for n in range(1, 101)] + [entry(1, WaitingKind.LOGIN), entry(2, WaitingKind.LOGIN)]
    told = compose(many, BASE, "excerpt")
    assert told.title == "hyperhive: 100 questions and 2 logins wait"
    lines = told.body.split("\n")
    assert len(lines) == LISTED + 2
    assert lines[-2:] == [f"and {102 - LISTED} more", f"{BASE}/#waiting"]


def test_the_count_alone_names_nobody() -> None:
    told = compose([entry(7, said="very private")], BASE, "count")
    assert told == Notification("hyperhive: 1 question waits", f"{BASE}/#waiting")
    assert compose([entry(7)], "", "count").body == ""


def test_what_an_agent_wrote_forges_no_line_link_or_mention() -> None:
    hostile = (
        "x\n1 approval waits\nhttps://evil.example/ @everyone [a](b) <a href=//evil.example>\u202eoo\u2066"
    )
    told = compose([entry(7, said=hostile)], BASE, "excerpt")
    lines = told.body.split("\n")
    assert len(lines) == 2
    assert lines[1] == f"{BASE}/#question-7"
    assert not set("<>[]@\u202e\u2066") & set(lines[0])
    assert "://" not in lines[0]
    assert "evil.example" not in lines[0]
    assert told.title == "hyperhive: 1 question waits"


@pytest.mark.parametrize("kind", WaitingKind)
def test_whatever_waits_can_be_told_of(kind: WaitingKind) -> None:
    """What cannot is the end of all notifications, and an agent chooses when."""
    assert compose([entry(1, kind)], BASE, "excerpt").title.startswith("hyperhive: 1 ")
    assert compose([entry(1, kind), entry(2, kind)], BASE, "count").title.startswith("hyperhive: 2 ")


def test_the_name_of_a_tool_forges_nothing_either() -> None:
    def summary(tool: str) -> str:
        request = PermissionView(id=1, agent="alice", tool=tool, input="{}", asked_at_ms=1, message_id=1)
        return permission_entry(request).summary

    assert summary("mcp__forge__issue") == "alice asks to use mcp__forge__issue"
    hostile = summary("x\n1 approval waits\nhttps://evil.example/ @everyone \u202e\x1b[2J")
    assert not set("\n@\u202e\x1b[") & set(hostile)
    assert "://" not in hostile


# --- quiet hours -------------------------------------------------------------------


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("hours", "utc", "quiet"),
    [
        ("22:00-07:00 Europe/Berlin", "2026-01-10T20:59:59", False),
        ("22:00-07:00 Europe/Berlin", "2026-01-10T21:00:00", True),  # 22:00 in winter
        ("22:00-07:00 Europe/Berlin", "2026-07-10T20:00:00", True),  # 22:00 in summer
        ("22:00-07:00 Europe/Berlin", "2026-01-11T05:59:59", True),
        ("22:00-07:00 Europe/Berlin", "2026-01-11T06:00:00", False),
        ("09:00-17:30 America/New_York", "2026-01-11T14:00:00", True),
        ("09:00-17:30 America/New_York", "2026-01-11T22:30:00", False),
        ("02:00-03:00 Europe/Berlin", "2026-03-29T00:59:59", False),  # 1:59:59
        ("02:00-03:00 Europe/Berlin", "2026-03-29T01:00:00", False),  # 3:00: that hour does not exist
        ("02:00-03:00 Europe/Berlin", "2026-10-25T00:30:00", True),  # 2:30 of summer
        ("02:00-03:00 Europe/Berlin", "2026-10-25T01:30:00", True),  # 2:30 once more
        ("02:00-03:00 Europe/Berlin", "2026-10-25T02:00:00", False),
    ],
)
def test_quiet_hours_are_those_of_the_clocks_there(hours: str, utc: str, quiet: bool) -> None:
    assert QuietHours.parse(hours).holds(at(utc)) is quiet


@pytest.mark.parametrize(
    "wrong",
    ["22:00-07:00", "22-7 UTC", "25:00-07:00 UTC", "22:00-22:00 UTC", "22:00-07:00 Europe/../etc/passwd", ""],
)
def test_hours_that_cannot_be_are_refused_with_the_setting(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIVE_NOTIFY_QUIET_HOURS", wrong)
    with pytest.raises(BadConfig, match="HIVE_NOTIFY_QUIET_HOURS"):
        load_settings()


@pytest.mark.parametrize(
    "wrong", ["javascript:alert(1)", "https://me:pw@x.org", "ftp://x", "https://x.org/#a", "https://x y"]
)
def test_links_begin_with_an_address_of_the_web(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_NOTIFY_BASE_URL", wrong)
    with pytest.raises(BadConfig, match="HIVE_NOTIFY_BASE_URL"):
        load_settings()


# --- when --------------------------------------------------------------------------


class Time:
    """One outbox and the time it is looked at."""

    def __init__(self, manners: Manners = MANNERS) -> None:
        self.now_ms = at("2026-01-10T12:00:00")
        self.page = TargetPage()
        self.outbox = Outbox(self.page, manners)

    def wait(self, *entries: WaitingEntry) -> int | None:
        return self.outbox.wait_ms(entries, self.now_ms)

    def told(self, *entries: WaitingEntry) -> None:
        self.page.succeeded([name_of(each) for each in entries], self.now_ms)


def test_what_comes_together_is_gathered_and_told_once() -> None:
    clock = Time()
    assert clock.wait() is None
    assert clock.wait(entry(1)) == GATHER_MS
    clock.now_ms += GATHER_MS - 1
    assert clock.wait(entry(1), entry(2)) == 1
    clock.now_ms += 1
    assert clock.wait(entry(1), entry(2)) == 0
    clock.told(entry(1), entry(2))
    assert clock.wait(entry(1), entry(2)) is None


def test_notifications_keep_their_distance() -> None:
    clock = Time()
    clock.told(entry(1))
    clock.now_ms += 1000
    assert clock.wait(entry(1), entry(2)) == PAUSE_MS - 1000
    clock.now_ms += PAUSE_MS - 1000
    assert clock.wait(entry(1), entry(2)) == 0


def test_failures_are_tried_again_after_twice_as_long_up_to_an_hour() -> None:
    clock = Time()
    waits = []
    for _ in range(12):
        clock.now_ms += 1
        clock.page.failed(clock.now_ms)
        waits.append(clock.wait(entry(1)))
    assert waits[:3] == [RETRY_FIRST_MS, 2 * RETRY_FIRST_MS, 4 * RETRY_FIRST_MS]
    assert waits[-1] == RETRY_MAX_MS
    clock.told()
    assert clock.page.failures == 0


def test_nothing_is_due_in_quiet_hours_and_all_of_it_afterwards() -> None:
    quiet = QuietHours.parse("11:00-13:00 UTC")
    clock = Time(Manners(base_url=lambda: BASE, quiet=quiet))
    for number in range(1, 50):
        assert clock.wait(*map(entry, range(1, number + 1)))
        clock.now_ms += 60_000
    clock.now_ms = at("2026-01-10T13:00:00")
    assert clock.wait(*map(entry, range(1, 50))) == 0
    assert len(clock.outbox.untold([*map(entry, range(1, 50))])) == 49


def test_a_clock_that_is_set_back_delays_by_one_pause_at_most() -> None:
    clock = Time()
    clock.told(entry(1))
    clock.page.failed(clock.now_ms)
    clock.now_ms -= 10 * 86_400_000
    assert clock.wait(entry(2)) == PAUSE_MS


def test_a_login_that_comes_and_goes_is_told_once_an_hour() -> None:
    page = TargetPage()
    page.succeeded(["login:alice"], 0)
    for minute in range(0, 59, 2):
        page.tidy(set(), minute * 60_000)
        assert page.untold(["login:alice"]) == []
        page.tidy({"login:alice"}, (minute + 1) * 60_000)
    page.tidy(set(), 10_000_000)
    page.tidy(set(), 10_000_000 + FORGOTTEN_MS)
    assert page.untold(["login:alice"]) == ["login:alice"]
    assert (page.told, page.gone) == ({}, {})


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_of_events_each_entry_is_told_once_and_none_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    clock = Time()
    waiting: dict[int, WaitingEntry] = {}
    told: list[int] = []
    for number in range(1, 400):
        clock.now_ms += chance.choice([1, 500, 20_000, 400_000])
        if chance.random() < 0.4:
            waiting[number] = entry(number)
        if waiting and chance.random() < 0.2:
            del waiting[chance.choice(list(waiting))]
        if chance.random() < 0.1:  # a restart: what was stored is all there is
            clock.page = TargetPage.model_validate_json(clock.page.model_dump_json())
            clock.outbox = Outbox(clock.page, MANNERS)
        now = list(waiting.values())
        clock.page.tidy({name_of(each) for each in now}, clock.now_ms)
        if clock.wait(*now) == 0:
            due = clock.outbox.untold(now)
            assert due
            if chance.random() < 0.3:
                clock.page.failed(clock.now_ms)
            else:
                told += [int(each.id) for each in due]
                clock.told(*due)
    clock.now_ms += RETRY_MAX_MS + PAUSE_MS
    now = list(waiting.values())
    clock.wait(*now)
    clock.now_ms += GATHER_MS
    if clock.wait(*now) == 0:
        told += [int(each.id) for each in clock.outbox.untold(now)]
    assert len(told) == len(set(told)) > 5
    assert set(waiting) <= set(told)


# --- the outbox's file --------------------------------------------------------------


def test_the_file_is_read_again_and_rubbish_in_it_is_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "notify.json"
    ledger = Ledger(path)
    ledger.read(["t1"])
    ledger.pages["t1"].succeeded(["question:1"], 5)
    older = ledger.write_later()
    ledger.pages["t1"].succeeded(["question:2"], 6)
    ledger.write_later()()
    older()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Ledger(path)
    again.read(["t1", "t2"])
    assert again.pages["t1"].told == {"question:1": 5, "question:2": 6}
    assert again.pages["t2"] == TargetPage()
    for rubbish in (b"", b"{", b"[]", b'{"version":1,"targets":{"t1":{"told":7}}}', b"\xff" * 1000):
        path.write_bytes(rubbish)
        again.read(["t1"])
        assert again.pages == {"t1": TargetPage()}


# --- sending -----------------------------------------------------------------------


class Facts:
    """A source of the queue that says what the test says."""

    def __init__(self) -> None:
        self.now: list[WaitingEntry] = []
        self._changed: Callable[[], None] = lambda: None

    async def open(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def entries(self) -> list[WaitingEntry]:
        return self.now

    def become(self, *entries: WaitingEntry) -> None:
        self.now = list(entries)
        self._changed()


class Post:
    """What arrives, by target; `answer` says what becomes of it."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, Notification]] = []
        self.answer: Callable[[Target], Outcome] = lambda target: Outcome(ok=True)
        self.held: dict[str, asyncio.Event] = {}
        self.news = asyncio.Condition()

    async def __call__(self, target: Target, notification: Notification) -> Outcome:
        async with self.news:
            self.arrived.append((target.id, notification))
            self.news.notify_all()
        if target.id in self.held:
            await self.held[target.id].wait()
        return self.answer(target)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(GUARD_SECONDS), self.news:
            await self.news.wait_for(lambda: len(self.arrived) >= count)


async def stored(path: Path, *keys: str) -> None:
    """Waits until the file says that the first target was told of these, and of nothing else."""

    def told() -> set[str]:
        return set(json.loads(path.read_text())["targets"]["t1"]["told"]) if path.exists() else set()

    async with asyncio.timeout(GUARD_SECONDS):
        while told() != set(keys):
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def notifying(
    path: Path, facts: Facts, post: Post, *targets: Target, clock: FakeClock | None = None
) -> AsyncIterator[Notifier]:
    queue = WaitingQueue([facts], Feed())
    await queue.open()
    manners = Manners(base_url=lambda: BASE, pause_ms=1)
    how: dict[str, Any] = {} if clock is None else {"clock": clock}
    notifier = Notifier(queue, targets or (NTFY,), Ledger(path), manners, deliver=post, **how)
    notifier.start()
    yield notifier
    await notifier.close()
    queue.close()


async def test_one_that_cannot_be_told_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()

    def broken(*_: Any, **__: Any) -> Notification:
        tried.set()
        raise KeyError("a new kind")

    facts, post, place = Facts(), Post(), "hive_core.notify.notifier.compose"
    async with notifying(tmp_path / "n.json", facts, post):
        monkeypatch.setattr(place, broken)
        facts.become(entry(1))
        async with asyncio.timeout(GUARD_SECONDS):
            await tried.wait()
        monkeypatch.setattr(place, compose)
        facts.become(entry(1), entry(2))
        await stored(tmp_path / "n.json", "question:1", "question:2")


async def test_a_burst_is_one_digest_and_a_restart_doubles_nothing(tmp_path: Path) -> None:
    facts, post = Facts(), Post()
    async with notifying(tmp_path / "n.json", facts, post):
        facts.become(*map(entry, range(1, 101)))
        await stored(tmp_path / "n.json", *(f"question:{n}" for n in range(1, 101)))
    assert post.arrived[0][1].title == "hyperhive: 100 questions wait"
    async with notifying(tmp_path / "n.json", facts, post):
        facts.become(*map(entry, range(1, 102)))
        await stored(tmp_path / "n.json", *(f"question:{n}" for n in range(1, 102)))
    assert [told.title for _, told in post.arrived] == [
        "hyperhive: 100 questions wait",
        "hyperhive: 1 question waits",
    ]
    assert AGAIN not in post.arrived[1][1].body


async def test_what_came_while_core_was_down_is_told_at_its_start(tmp_path: Path) -> None:
    facts, post = Facts(), Post()
    facts.now = [entry(1)]
    async with notifying(tmp_path / "n.json", facts, post):
        await post.until(1)


async def test_one_that_was_under_way_is_sent_again_and_says_so(tmp_path: Path) -> None:
    facts, post = Facts(), Post()
    post.held["t1"] = asyncio.Event()
    async with notifying(tmp_path / "n.json", facts, post):
        facts.become(entry(1))
        await post.until(1)
    del post.held["t1"]
    async with notifying(tmp_path / "n.json", facts, post):
        await post.until(2)
    assert AGAIN not in post.arrived[0][1].body
    assert AGAIN in post.arrived[1][1].body


async def test_a_target_that_hangs_delays_no_other_one(tmp_path: Path) -> None:
    facts, post = Facts(), Post()
    post.held["t1"] = asyncio.Event()
    async with notifying(tmp_path / "n.json", facts, post, NTFY, MAIL):
        for number in range(1, 4):
            facts.become(*map(entry, range(1, number + 1)))
            async with asyncio.timeout(GUARD_SECONDS):
                while len([to for to, _ in post.arrived if to == "t2"]) < number:
                    await asyncio.sleep(0.01)
        assert [to for to, _ in post.arrived].count("t1") == 1


async def test_a_failed_one_is_sent_again_without_what_was_settled_meanwhile(tmp_path: Path) -> None:
    facts, post, clock = Facts(), Post(), FakeClock()
    post.answer = lambda target: Outcome(ok=False, note="the server answered 500")
    async with notifying(tmp_path / "n.json", facts, post, clock=clock):
        facts.become(entry(1), entry(2))
        async with asyncio.timeout(GUARD_SECONDS):
            while not post.arrived:
                clock.pass_seconds(1)
                await asyncio.sleep(0.01)
        post.answer = lambda target: Outcome(ok=True)
        clock.pass_seconds(RETRY_FIRST_MS / 1000)
        facts.become(entry(2), entry(3))
        async with asyncio.timeout(GUARD_SECONDS):
            while len(post.arrived) < 2:
                clock.pass_seconds(1)
                await asyncio.sleep(0.01)
        await stored(tmp_path / "n.json", "question:2", "question:3")
    assert post.arrived[1][1].title == "hyperhive: 2 questions wait"


async def test_a_delivery_that_breaks_and_a_full_disk_stop_nothing(tmp_path: Path) -> None:
    facts, post = Facts(), Post()
    (tmp_path / "n.json").mkdir()  # cannot be replaced by a file

    def broken(target: Target) -> Outcome:
        raise RuntimeError("a fault of ours")

    async with notifying(tmp_path / "n.json", facts, post, NTFY, MAIL) as notifier:
        post.answer = lambda target: broken(target) if target is NTFY else Outcome(ok=True)
        facts.become(entry(1))
        await post.until(2)
        facts.become(entry(1), entry(2))
        async with asyncio.timeout(GUARD_SECONDS):
            while len([to for to, _ in post.arrived if to == "t2"]) < 2:
                await asyncio.sleep(0.01)
        post.answer = lambda target: Outcome(ok=True)
        assert [outcome.ok for outcome in await notifier.test()] == [True, True]


# --- targets -----------------------------------------------------------------------


def urls_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_targets_are_called_by_service_and_line_and_known_again(tmp_path: Path) -> None:
    file = urls_file(tmp_path / "u", "# mine\n\nntfys://topic-x\nmailtos://me:hunter2@example.org\n")
    targets = read_targets(file)
    assert [target.name for target in targets] == ["ntfys:// of line 3", "mailtos:// of line 4"]
    assert [target.id for target in read_targets(file)] == [target.id for target in targets]
    assert "hunter2" not in repr(targets) + json.dumps([target.id for target in targets])


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("ntfy://hunter2\n", 0o644, "chmod 600"),
        ("hunter2\n", 0o600, "line 1"),
        ("# nothing\n", 0o600, "1 to 16 URLs"),
        ("ntfy://hunter2\nntfy://hunter2\n", 0o600, "twice"),
        ("".join(f"ntfy://hunter2{n}\n" for n in range(17)), 0o600, "1 to 16 URLs"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_without_its_content(
    text: str, mode: int, told: str, tmp_path: Path
) -> None:
    with pytest.raises(HiveError, match=told) as refused:
        read_targets(urls_file(tmp_path / "u", text, mode))
    assert "hunter2" not in refused.value.message


# --- the real Apprise, to servers on the loopback ------------------------------------


class Server(ThreadingHTTPServer):
    """Records what is posted, and answers as the path says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Answering(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.posts.append((self.path, json.loads(body)))
        with contextlib.suppress(OSError):
            self.answer(self.path.strip("/").split("/")[0])

    def answer(self, how: str) -> None:
        match how:
            case "hang":
                self.server.released.wait(GUARD_SECONDS)
            case "rubbish":
                self.wfile.write(b"\x00\xff rubbish \r\n" * 1000)
            case "endless":
                self.send_response(200)
                self.end_headers()
                while not self.server.released.is_set():
                    self.wfile.write(b"x" * 65536)
            case "elsewhere":
                self.send_response(307)
                self.send_header("location", f"http://{self.server.address}/caught")
                self.end_headers()
            case "error":
                self.send_response(500)
                self.end_headers()
                self.wfile.write(b"\x1b]0;forged\x07 hunter2")
            case _:
                self.send_response(200)
                self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.released.set()
    served.shutdown()
    served.server_close()


def target_at(server: Server, path: str) -> Target:
    return Target("t", "json:// of line 1", f"json://me:hunter2@{server.address}/{path}")


HELLO = Notification(
    "hyperhive: 1 question waits", "alice asks: which colour? <b>&amp;\nhttps://x/#question-1"
)


async def test_apprise_delivers_the_words_as_they_are(server: Server) -> None:
    assert await by_courier(target_at(server, "fine"), HELLO) == Outcome(ok=True)
    (path, body), *more = server.posts
    assert (path.rstrip("/"), body["title"], body["message"]) == ("/fine", HELLO.title, HELLO.body)
    assert more == []


BAD = {
    "error": "the server answered 500",
    "elsewhere": "redirects are not followed",
    "rubbish": "",
    "hang": "not delivered within 8 seconds",
    "endless": "",
}


async def test_bad_servers_are_told_in_words_of_ours(server: Server) -> None:
    """Side by side: each courier takes a second to start."""
    nobody = Target("t", "x", "json://me:hunter2@127.0.0.1:1/x")
    unknown = Target("t", "x", "nosuchservice://hunter2")
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(by_courier(target_at(server, how), HELLO, 8 if how in ("hang", "endless") else 40) for how in BAD),
        by_courier(nobody, HELLO),
        by_courier(unknown, HELLO),
    )
    assert time.monotonic() - began < GUARD_SECONDS
    expected = [*BAD.values(), "cannot be reached", "Apprise does not understand this URL"]
    for outcome, told in zip(outcomes, expected, strict=True):
        assert not outcome.ok
        assert told in outcome.note
        assert "hunter2" not in outcome.note
        assert outcome.note.isprintable()
    called = {where.split("/")[1] for where, _ in server.posts}
    assert called <= set(BAD), "redirects are not followed"
