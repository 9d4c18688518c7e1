"""The real daemon with the real Apprise: what waits arrives once, whatever becomes of core and servers."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hive_core import cli
from hive_shared import wire
from tests.support.hive import Hive, eventually

SECRET = "hunter2hunter2"


class Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiving)
        self.arrived: list[dict[str, Any]] = []


class _Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.arrived.append({"path": self.path.strip("/"), **body})
        if self.path.startswith("/hang"):
            threading.Event().wait(60)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    served = Receiver()
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def environment(receiver: Receiver, directory: Path, *paths: str) -> dict[str, str]:
    file = directory / "urls"
    where = f"127.0.0.1:{receiver.server_address[1]}"
    file.write_text("".join(f"json://me:{SECRET}@{where}/{path}\n" for path in paths))
    file.chmod(0o600)
    return {
        "HIVE_NOTIFY_URLS_FILE": str(file),
        "HIVE_NOTIFY_PAUSE_SECONDS": "0.2",
        "HIVE_NOTIFY_BASE_URL": "https://hive.example.org",
    }


async def test_each_thing_is_told_once_although_core_is_killed_and_another_server_hangs(
    tmp_path: Path, receiver: Receiver
) -> None:
    hive = Hive(tmp_path / "h", environment(receiver, tmp_path, "hang", "fine"))

    def told() -> list[str]:
        return [each["message"] for each in receiver.arrived if each["path"] == "fine"]

    def stored(number: int) -> bool:
        ledger = hive.paths.notify_ledger
        pages = json.loads(ledger.read_text())["targets"].values() if ledger.exists() else []
        return any(f"approval:{number}" in page["told"] for page in pages)

    await hive.start()
    try:
        for number, name in ((1, "alice"), (2, "bob")):
            asked = await hive.call(wire.RequestSpawn(name=name, note="see https://evil.example now"))
            assert asked.approval.id == number
            await eventually(lambda number=number: stored(number), f"approval {number} was told")
            await hive.kill()
            await hive.start()
        listed = (await hive.call(wire.Waiting())).entries
        assert [(each.kind, each.id) for each in listed] == [("approval", "1"), ("approval", "2")]
        assert len(told()) == 2
        for number, (name, message) in enumerate(zip(("alice", "bob"), told(), strict=True), 1):
            words, link = message.split("\n")
            assert words.startswith(f"spawn {name}: see https")
            assert "evil.example" not in words
            assert link == f"https://hive.example.org/#approval-{number}"

        # A server that hangs holds up nothing that core does, and its courier dies with core.
        answers = await asyncio.gather(*(hive.call(wire.DaemonStatus()) for _ in range(20)))
        assert {answer.pending_approvals for answer in answers} == {2}
        assert await hive.stop() == 0
        assert SECRET not in hive.log()
    finally:
        await hive.kill()


async def test_the_terminal_shows_what_waits_and_whether_notifications_arrive(
    tmp_path: Path, receiver: Receiver
) -> None:
    hive = Hive(tmp_path / "h", environment(receiver, tmp_path, "fine"))

    async def run(*arguments: str) -> Any:
        invoked = CliRunner().invoke
        return await asyncio.to_thread(invoked, cli.app, ["--root", str(hive.root), *arguments])

    await hive.start()
    try:
        assert "nothing waits" in (await run("waiting")).output
        await hive.call(wire.RequestSpawn(name="alice", note="a reviewer"))
        shown = await run("waiting")
        assert "approval #1 spawn alice" in shown.output
        assert "hive-c0re diff 1" in shown.output
        (entry,) = json.loads((await run("waiting", "--json")).output)["entries"]
        assert (entry["kind"], entry["said"]) == ("approval", "a reviewer")
        tested = await run("notify", "test")
        assert (tested.exit_code, tested.output) == (0, "json:// of line 1: delivered\n")
        assert any(each["title"] == "hyperhive: a test" for each in receiver.arrived)
        refused = await run("dismiss", "1")
        assert refused.exit_code == 1
    finally:
        await hive.kill()
