"""A real hive, looked at from outside: the way of a message and of an approval, metrics, slow operations."""

import json
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hive_core import metrics as m
from hive_shared import wire
from tests.support.hive import Hive, eventually, running_hive


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    (tmp_path / "scrape").mkdir(mode=0o700)
    settings = {
        "HIVE_METRICS_SOCKET": str(tmp_path / "scrape" / "metrics.sock"),
        "HIVE_SLOW_SECONDS": "0.000001",  # so everything is slow
        "HIVE_LOG_FORMAT": "json",
    }
    async with running_hive(tmp_path / "hive", **settings) as running:
        yield running


def lines(hive: Hive) -> list[dict[str, object]]:
    """The daemon's own lines, in order."""
    return [json.loads(line) for line in hive.log().splitlines() if line.startswith('{"time"')]


def of(hive: Hive, name: str, number: int) -> list[str]:
    """What the daemon's log says of a message or approval."""
    found = []
    for line in lines(hive):
        value = line.get(name)
        if number in (value if isinstance(value, list) else [value]):
            found.append(str(line["message"]))
    return found


def console(hive: Hive, agent: str, word: str) -> list[str]:
    """As `grep -w` in the console of an agent."""
    text = hive.paths.log_file(agent).read_text()
    return [line for line in text.splitlines() if re.search(rf"\b{word}\b", line)]


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in (s for family in text_string_to_metric_families(text) for s in family.samples):
        found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_one_number_shows_the_whole_way_of_a_message(hive: Hive) -> None:
    await hive.spawn("alice", "bob")
    asked = await hive.send("alice", "send bob a secret word: swordfish")
    done = await eventually(
        lambda: [line for line in console(hive, "alice", f"msg={asked}") if "tool send" in line],
        "alice has sent",
    )
    made = int(re.search(r"\bmade=(\d+)", done[0])[1])  # type: ignore[index]
    await eventually(lambda: "acked by bob" in of(hive, "msg", made), "bob is done with it")
    await eventually(lambda: "acked by alice" in of(hive, "msg", asked), "alice is done with hers")

    told = [text for text in of(hive, "msg", asked) if not text.startswith("slow: ")]
    assert told == [f"message {asked} from operator to alice", "delivered to alice", "acked by alice"]
    turn = [re.sub(r"^INFO \S+: ", "", line)[:20] for line in console(hive, "alice", f"msg={asked}")]
    assert [words.split(" ")[0] for words in turn] == ["turn:", "tool", "turn:"]
    told = [text for text in of(hive, "msg", made) if not text.startswith("slow: ")]
    assert told == [f"message {made} from alice to bob", "delivered to bob", "acked by bob"]
    assert console(hive, "bob", f"msg={made}")
    assert "swordfish" not in hive.log(), "bodies are nobody else's business"


async def test_one_number_shows_the_whole_way_of_an_approval(hive: Hive) -> None:
    await hive.spawn("alice")
    await hive.send("hm1nd", "set variable COLOUR=blue for alice because of the walls")

    async def waiting() -> list[wire.ApprovalView]:
        listed = (await hive.call(wire.Pending())).approvals
        return [a for a in listed if a.status is wire.ApprovalStatus.PENDING]

    [asked] = await eventually(waiting, "the change is asked for")
    await hive.call(wire.Approve(approval_id=asked.id, commit=asked.commit))

    await eventually(lambda: "deployed" in str(of(hive, "approval", asked.id)), "the log has it")
    told = of(hive, "approval", asked.id)
    states = [text.partition(": apply_commit alice: ")[2] for text in told if "apply_commit alice: " in text]
    assert states == ["pending", "approved", "building (build)", "building (switch)", "deployed"]
    slow = {text.split(" ")[1] for text in told if text.startswith("slow: ")}
    # Of git there are more than ten lines at once before that, which is the limit of its kind.
    assert {"build", "container", "deploy"} <= slow, "what it was made of"
    [tool] = await eventually(
        lambda: [line for line in console(hive, "hm1nd", f"approval={asked.id}") if "tool" in line],
        "the manager's tool call names it",
    )
    assert "request_apply_commit" in tool
    assert re.search(r"\bmsg=\d+", tool), "and the message for which it was"


async def test_metrics_are_the_same_by_every_way_and_for_nobody_else(hive: Hive, tmp_path: Path) -> None:
    await hive.spawn("alice")
    await hive.send("alice", "remember the milk")
    await eventually(
        lambda: any("acked by alice" in str(line["message"]) for line in lines(hive)), "alice is done"
    )
    operator = await hive.login()
    page = await operator.http.get("/metrics")
    path = tmp_path / "scrape" / "metrics.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://hive") as scraper:
        by_socket = await scraper.get("/metrics")
        elsewhere = [(await scraper.get(place)).status_code for place in ("/", "/api/state", "/login")]
        changed = (await scraper.post("/metrics")).status_code
    terminal = (await hive.call(wire.Metrics())).text
    stranger = await httpx.AsyncClient(base_url=operator.base).get("/metrics")
    forged = await operator.http.get("/no/such/../page%0aHIVE")

    assert (elsewhere, changed) == ([404, 404, 404], 405)
    assert stranger.status_code == 401
    assert "hive_" not in stranger.text
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    for text in (page.text, by_socket.text, terminal):
        found = samples(text)
        assert found["hive_messages_acked_total"]["alice",] == 1
        assert sum(found["hive_agents"].values()) == 2
        assert set(found["hive_agents"]) == {(status.value,) for status in wire.AgentStatus}
        assert found["hive_approvals"]["deployed",] == 1
        assert found["hive_deploy_duration_seconds_count"]["spawn", "deployed"] == 1
        assert found["hive_transaction_duration_seconds_count"]["durable",] > 5
        assert found["hive_database_size_bytes"]["main",] > 0
    assert by_socket.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert forged.status_code == 404

    found = samples((await hive.call(wire.Metrics())).text)
    routes = {labels[-1] for labels in found["hive_http_request_duration_seconds_count"]}
    assert routes <= {"other", "GET /metrics", "POST /login", "GET /login"}
    known = {family.name for family in (*m.LOOKED_AT, *m.MEASURED)}
    ours = {name for name in found if not name.startswith("process_")}
    assert {name if name in known else re.sub("_(sum|count|bucket)$", "", name) for name in ours} <= known
    await operator.close()


async def test_the_socket_goes_with_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "scrape").mkdir(mode=0o700)
    path = tmp_path / "scrape" / "metrics.sock"
    async with running_hive(tmp_path / "hive", HIVE_METRICS_SOCKET=str(path)):
        assert path.is_socket()
    assert not path.exists()
