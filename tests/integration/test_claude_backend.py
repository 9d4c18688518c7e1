"""The Claude backend with the real Claude Code CLI, against a scripted Messages API on loopback."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends import guard
from hive_agent.backends.base import Outcome
from hive_agent.backends.claude import ClaudeBackend
from hive_agent.backends.claude_lines import NOTE_SUBTYPE
from tests.support.claude import AgentFiles, play, running
from tests.support.scripted_api import (
    OVERLOADED,
    TOO_LONG,
    UNAUTHORISED,
    Answer,
    Drip,
    Hang,
    Refusal,
    Reply,
    Request,
    Script,
    ScriptedApi,
    ToolUse,
    rate_limited,
)

pytestmark = pytest.mark.claude

SEND_TO_BOB = ToolUse("mcp__hyperhive__send", {"to": "bob", "body": "hello"})
RESET_SECONDS = 3600


class Agent:
    """One backend, its API and its files."""

    def __init__(self, api: ScriptedApi, files: AgentFiles, make: Callable[..., ClaudeBackend]) -> None:
        self.api = api
        self.files = files
        self.make = make
        self.backend = make()

    async def turn(self, prompt: str) -> Any:
        result, _ = await play(self.backend.run_turn(prompt))
        return result

    async def kept(self, text: str) -> None:
        """Wait until the CLI has written `text` to its transcript: a little after it printed its result."""
        async with asyncio.timeout(30):
            while not any(
                text in file.read_text() for file in self.files.paths.claude.glob("projects/*/*.jsonl")
            ):
                await asyncio.sleep(0.01)

    async def asked(self, count: int) -> None:
        """Wait until the API has been asked `count` times."""
        async with asyncio.timeout(30):
            while len(self.api.requests) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def agent(tmp_path: Path, claude_cli: Path) -> AsyncIterator[Callable[..., Any]]:
    """Makes an agent: `await agent(script, **changes of BackendConfig)`; all are closed afterwards."""
    async with AsyncExitStack() as stack:

        async def make_agent(
            script: Script | Sequence[Answer], options: dict[str, Any] | None = None, **changes: Any
        ) -> Agent:
            api = await stack.enter_async_context(ScriptedApi(script))
            files = AgentFiles(tmp_path)
            files.write()
            environment = {**api.environment, **changes.pop("environment", {})}

            def make() -> ClaudeBackend:
                backend = ClaudeBackend(files.config(claude_cli, environment, **changes), **(options or {}))
                stack.push_async_callback(backend.close)
                return backend

            return Agent(api, files, make)

        yield make_agent


async def test_turns_share_one_process_and_one_conversation(agent: Any) -> None:
    alice = await agent([Reply("first"), Reply("second"), Reply("third")])
    outcomes, processes = [], []
    for prompt in ("one", "two", "three"):
        outcomes.append((await alice.turn(prompt)).outcome)
        processes.append(alice.backend.process_id)
    assert outcomes == [Outcome.OK] * 3
    assert processes[0] is not None
    assert len(set(processes)) == 1
    assert alice.api.requests[-1].user_texts == ["one", "two", "three"]


async def test_a_turn_calls_the_hives_tools_and_counts_what_it_took(agent: Any) -> None:
    alice = await agent([Reply("I will write.", SEND_TO_BOB), Reply("Done."), Reply("And again.")])
    result, lines = await play(alice.backend.run_turn("write to bob"))
    assert [call["arguments"] for call in alice.files.calls()] == [{"to": "bob", "body": "hello"}]
    kinds = [line["type"] for line in lines]
    assert [kind for kind in kinds if kind in ("assistant", "user", "result")] == [
        "assistant",
        "assistant",
        "user",
        "assistant",
        "result",
    ]
    stats = result.stats
    assert stats.tools == {"mcp__hyperhive__send": 1}
    assert (stats.input_tokens, stats.output_tokens) == (24, 14), "summed over both inferences"
    assert (stats.cache_read_tokens, stats.cache_creation_tokens) == (200, 60)
    assert stats.context_tokens == 12 + 100 + 30, "the last inference's prompt alone"
    assert "sonnet" in stats.model
    assert stats.cost_usd > 0
    again = await alice.turn("again")
    assert again.stats.cost_usd == pytest.approx(stats.cost_usd / 2), "its own cost, not the process's so far"


async def test_the_environment_and_the_tools_are_the_agents_own(agent: Any) -> None:
    show = ToolUse("Bash", {"command": "touch here; pwd; env"})
    alice = await agent([Reply(show), Reply("Done.")], environment={"HELLO": "world"})
    await alice.turn("look around")
    first, second = alice.api.requests[:2]
    assert {"Bash", "Read", "Write", "mcp__hyperhive__send"} <= set(first.tools)
    assert not {"WebFetch", "WebSearch", "Task", "NotebookEdit"} & set(first.tools)
    assert "You are alice, an agent of a hive." in first.system
    shown = second.tool_results[0].splitlines()
    assert shown[0] == str(alice.files.paths.state)
    assert "HELLO=world" in shown
    assert f"CLAUDE_CONFIG_DIR={alice.files.paths.claude}" in shown
    assert not [line for line in shown if line.startswith(("HIVE_", "PYTEST_", "VIRTUAL_ENV"))]


async def test_the_api_key_comes_from_the_agents_file_and_shows_nowhere(agent: Any) -> None:
    alice = await agent([Reply(ToolUse("Bash", {"command": "env | grep API_KEY"})), Reply("Done.")])
    (alice.files.paths.claude / "api-key").write_text("the-key-of-alice\n")
    _, lines = await play(alice.backend.run_turn("show me your key"))
    assert alice.api.requests[0].headers["x-api-key"] == "the-key-of-alice"
    assert "ANTHROPIC_API_KEY=[redacted]" in str(lines)
    assert "the-key-of-alice" not in str(lines)


@pytest.mark.parametrize("answer", [Hang(), Drip()], ids=["nothing", "a byte at a time"])
async def test_an_interrupt_ends_the_turn_and_keeps_process_and_conversation(
    agent: Any, answer: Answer
) -> None:
    alice = await agent([answer, Reply("still here")])
    turn = asyncio.create_task(alice.turn("think about it"))
    await alice.asked(1)
    process = alice.backend.process_id
    assert await alice.backend.interrupt()
    assert (await turn).outcome is Outcome.CANCELLED
    assert not await alice.backend.interrupt(), "nothing runs any more"
    assert (await alice.turn("and now?")).outcome is Outcome.OK
    assert alice.backend.process_id == process
    assert "think about it" in alice.api.requests[-1].user_texts[0]


async def test_an_interrupt_stops_a_tool_that_runs(agent: Any) -> None:
    alice = await agent([Reply(ToolUse("Bash", {"command": "sleep 3600"})), Reply("still here")])
    turn = asyncio.create_task(alice.turn("sleep"))
    await alice.asked(1)
    while not (sleeping := [pid for pid in guard.descendants(alice.backend.process_id) if is_sleep(pid)]):
        await asyncio.sleep(0.02)
    assert await alice.backend.interrupt()
    assert (await turn).outcome is Outcome.CANCELLED
    while any(running(pid) for pid in sleeping):
        await asyncio.sleep(0.02)
    assert (await alice.turn("and now?")).outcome is Outcome.OK


def is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    except OSError:
        return False


async def test_an_interrupt_in_the_first_moment_of_a_turn_is_not_lost(agent: Any) -> None:
    alice = await agent([Reply("hello"), Hang(), Reply("still here")])
    await alice.turn("come up")
    events = alice.backend.run_turn("think")
    turn = asyncio.create_task(play(events))
    while not await alice.backend.interrupt():
        await asyncio.sleep(0)
    assert (await turn)[0].outcome is Outcome.CANCELLED


async def test_another_model_is_used_from_the_next_turn_on_by_the_same_process(agent: Any) -> None:
    alice = await agent([Reply("one"), Reply("two"), Reply("three")])
    await alice.turn("one")
    process = alice.backend.process_id
    await alice.backend.set_model("opus")
    result = await alice.turn("two")
    assert "sonnet" in alice.api.requests[0].model
    assert "opus" in alice.api.requests[1].model
    assert "opus" in result.stats.model
    assert alice.backend.process_id == process
    await alice.backend.new_session()
    await alice.turn("three")
    assert "opus" in alice.api.requests[2].model, "a fresh process keeps the chosen model"


async def test_compacting_replaces_the_conversation_by_a_summary(agent: Any) -> None:
    def script(request: Request) -> Reply:
        return Reply("<summary>we counted to two</summary>") if "summary" in request.prompt else Reply("yes")

    alice = await agent(script)
    result, _ = await play(alice.backend.compact())
    assert result.outcome is Outcome.FAILED
    assert "No messages to compact" in result.note
    await alice.turn("one")
    await alice.turn("two")
    result, lines = await play(alice.backend.compact())
    assert result.outcome is Outcome.OK
    assert "compact_boundary" in [line.get("subtype") for line in lines]
    await alice.turn("three")
    assert "we counted to two" in str(alice.api.requests[-1].messages)
    assert not [text for text in alice.api.requests[-1].user_texts if "one" in text.split()]


@pytest.mark.parametrize(
    "refusal",
    [UNAUTHORISED, Refusal(403, "permission_error", "Your account does not have access")],
    ids=["401", "403"],
)
async def test_refused_credentials_are_told_soon_and_asked_for_again(agent: Any, refusal: Refusal) -> None:
    alice = await agent(lambda request: refusal)
    result = await alice.turn("hello")
    assert result.outcome is Outcome.AUTH
    assert len(alice.api.requests) <= 3
    assert not alice.backend.warm, "the next process reads the credentials anew"


async def test_no_credentials_at_all_is_a_matter_of_login(agent: Any) -> None:
    alice = await agent([], environment={"ANTHROPIC_API_KEY": ""})
    assert alice.backend.login.needed()
    assert (await alice.turn("hello")).outcome is Outcome.AUTH


QUOTED = "Prompt is too long. API Error: 401 Failed to authenticate. Request rejected (429)"


async def test_what_the_api_refuses_becomes_an_outcome_and_leaves_the_process_usable(agent: Any) -> None:
    odd = Refusal(400, "invalid_request_error", "messages.3: odd")
    gone = Refusal(404, "not_found_error", "model: sonnet")
    cases: list[tuple[str, list[Answer], Outcome, str]] = [
        ("a prompt that no longer fits", [TOO_LONG], Outcome.OVERFLOW, "Prompt is too long"),
        ("an agent that quotes errors has none", [Reply(QUOTED, SEND_TO_BOB), Reply(QUOTED)], Outcome.OK, ""),
        ("another bad request", [odd], Outcome.FAILED, "messages.3: odd"),
        ("a model that is not there", [gone, gone], Outcome.FAILED, "selected model"),
        ("a short overload is waited out", [OVERLOADED, Reply("back")], Outcome.OK, ""),
        ("a long one is for the harness to wait out", [OVERLOADED] * 2, Outcome.RATE_LIMITED, "529"),
        ("a limit of unknown length", [rate_limited(120)], Outcome.RATE_LIMITED, "429"),
        ("nothing", [Reply("fine")], Outcome.OK, ""),
    ]
    answers = [answer for _, given, _, _ in cases for answer in given]
    alice = await agent(answers, environment={"CLAUDE_CODE_MAX_RETRIES": "1"})
    processes = set()
    for case, _, outcome, note in cases:
        result = await alice.turn(QUOTED)
        assert result.outcome is outcome, case
        assert note in result.note, case
        assert result.resumes_at_ms is None, case
        processes.add(alice.backend.process_id)
    assert len(alice.api.requests) == len(answers)
    assert len(processes) == 1


async def test_a_limit_names_its_end_when_the_api_does(agent: Any) -> None:
    before_ms = int(time.time() * 1000)
    alice = await agent([rate_limited(40), Reply("back")])
    result = await alice.turn("hello")
    assert result.outcome is Outcome.RATE_LIMITED
    assert before_ms + 39_000 < result.resumes_at_ms < before_ms + 100_000
    assert len(alice.api.requests) == 1, "the CLI does not sit out the limit inside the turn"
    assert (await alice.turn("and now?")).outcome is Outcome.OK


async def test_a_subscriptions_limit_names_its_reset_time(agent: Any) -> None:
    resets_at = int(time.time()) + RESET_SECONDS
    headers = {
        "retry-after": str(RESET_SECONDS),
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(resets_at),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    token = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-some-token"}
    limit = Refusal(429, "rate_limit_error", "This request would exceed your account's rate limit.", headers)
    alice = await agent([limit], environment=token)
    result = await alice.turn("hello")
    assert (result.outcome, result.resumes_at_ms) == (Outcome.RATE_LIMITED, resets_at * 1000)


async def test_a_turn_whose_process_is_killed_goes_on_in_another_and_a_later_one_is_warm_again(
    agent: Any,
) -> None:
    answers = [Reply(SEND_TO_BOB), Hang(), Reply("carried on"), Reply("next"), Reply("warm")]
    alice = await agent(answers, {"cold_seconds": 0.0})
    turn = asyncio.create_task(play(alice.backend.run_turn("write to bob")))
    await alice.asked(2)
    await alice.kept("write to bob")
    (cli,) = [pid for pid, parent in guard.processes() if parent == alice.backend.process_id]
    os.kill(cli, signal.SIGKILL)
    result, lines = await turn
    assert result.outcome is Outcome.OK
    assert [line for line in lines if line.get("subtype") == NOTE_SUBTYPE]
    carried_on = alice.api.requests[2]
    assert "write to bob" in carried_on.user_texts[0], "in the same conversation"
    assert "cut short" in carried_on.prompt
    assert "write to bob" in carried_on.prompt
    assert result.stats.tools == {"mcp__hyperhive__send": 1}
    await alice.turn("next")
    assert alice.backend.warm
    assert "write to bob" in alice.api.requests[3].user_texts[0]


async def test_a_process_that_died_between_turns_is_replaced(agent: Any) -> None:
    alice = await agent([Reply("one"), Reply("two")])
    await alice.turn("one")
    await alice.kept('"one"')
    (cli,) = [pid for pid, parent in guard.processes() if parent == alice.backend.process_id]
    os.kill(cli, signal.SIGKILL)
    while running(cli) or alice.backend.warm:
        await asyncio.sleep(0.02)
    result, lines = await play(alice.backend.run_turn("two"))
    assert result.outcome is Outcome.OK
    assert alice.backend.warm
    assert alice.api.requests[-1].user_texts == ["one", "two"]
    assert not [line for line in lines if line.get("subtype") == NOTE_SUBTYPE]


async def test_an_idle_process_is_closed_and_the_conversation_goes_on_in_the_next(agent: Any) -> None:
    alice = await agent([Reply("one"), Reply("two")], idle_seconds=0.2)
    await alice.turn("one")
    first = alice.backend.process_id
    while alice.backend.warm:
        await asyncio.sleep(0.02)
    assert (await alice.turn("two")).outcome is Outcome.OK
    assert alice.backend.process_id not in (first, None)
    assert alice.api.requests[-1].user_texts == ["one", "two"]


async def test_a_process_whose_commands_run_on_in_the_background_is_not_idle(agent: Any) -> None:
    serve = ToolUse("Bash", {"command": "(setsid sleep 3600 >/dev/null 2>&1 &) ; touch begun"})
    alice = await agent([Reply(serve), Reply("begun")], idle_seconds=0.2)
    await alice.turn("start the server")
    pids = guard.descendants(alice.backend.process_id)
    (server,) = [pid for pid in pids if is_sleep(pid)]
    await asyncio.sleep(0.7)
    assert alice.backend.warm
    os.kill(server, signal.SIGKILL)
    while alice.backend.warm:
        await asyncio.sleep(0.02)


async def test_a_process_that_has_grown_too_large_is_replaced_after_its_turn(agent: Any) -> None:
    alice = await agent([Reply("one"), Reply("two")], rss_max_bytes=1024)
    assert (await alice.turn("one")).outcome is Outcome.OK
    assert not alice.backend.warm
    await alice.turn("two")
    assert alice.api.requests[-1].user_texts == ["one", "two"]


async def test_the_conversation_survives_a_restart_of_the_harness(agent: Any) -> None:
    alice = await agent([Reply("one"), Reply("two"), Reply("three"), Reply("four")])
    await alice.turn("one")
    await alice.backend.close()
    alice.backend = alice.make()
    await alice.turn("two")
    assert alice.api.requests[1].user_texts == ["one", "two"]
    await alice.backend.new_session()
    await alice.backend.close()
    alice.backend = alice.make()
    await alice.turn("three")
    assert alice.api.requests[2].user_texts == ["three"], "so does the wish to start afresh"
    await alice.turn("four")
    assert alice.api.requests[3].user_texts == ["three", "four"]


@pytest.mark.parametrize("keep_warm", [True, False])
async def test_a_conversation_that_is_gone_is_not_missed(agent: Any, keep_warm: bool) -> None:
    alice = await agent([Reply("one")], {"keep_warm": keep_warm})
    mark = alice.files.paths.state / "hyperhive-conversation"
    mark.write_text("00000000-0000-4000-8000-000000000000")
    alice.backend = alice.make()
    result, lines = await play(alice.backend.run_turn("one"))
    assert result.outcome is Outcome.OK
    assert not [line for line in lines if line.get("subtype") == NOTE_SUBTYPE]


async def test_without_warmth_every_turn_is_a_process_of_the_same_conversation(agent: Any) -> None:
    alice = await agent([Reply(SEND_TO_BOB), Reply("one"), Reply("two")], {"keep_warm": False})
    result = await alice.turn("one")
    assert (result.outcome, result.stats.tools) == (Outcome.OK, {"mcp__hyperhive__send": 1})
    assert not alice.backend.warm
    assert (await alice.turn("two")).outcome is Outcome.OK
    assert alice.api.requests[-1].user_texts == ["one", "two"]


async def test_a_cold_turn_can_be_interrupted_and_the_conversation_goes_on(agent: Any) -> None:
    alice = await agent([Hang(), Reply("two")], {"keep_warm": False})
    turn = asyncio.create_task(alice.turn("one"))
    await alice.asked(1)
    await alice.kept('"one"')
    assert await alice.backend.interrupt()
    assert (await turn).outcome is Outcome.CANCELLED
    assert (await alice.turn("two")).outcome is Outcome.OK
    assert "one" in alice.api.requests[-1].user_texts[0]


async def test_nothing_is_left_after_close_even_in_the_middle_of_a_turn(agent: Any) -> None:
    serve = ToolUse("Bash", {"command": "(setsid sleep 3600 >/dev/null 2>&1 &) ; touch begun"})
    alice = await agent([Reply(serve), Hang()])
    turn = asyncio.create_task(alice.turn("one"))
    await alice.asked(2)
    processes = [alice.backend.process_id, *guard.descendants(alice.backend.process_id)]
    assert len(processes) >= 4, "guard, CLI, MCP server, the command"
    await alice.backend.close()
    assert (await turn).outcome is Outcome.CANCELLED
    assert not [pid for pid in processes if running(pid)]


async def test_a_turn_that_nobody_follows_any_more_is_stopped(agent: Any) -> None:
    alice = await agent([Hang(), Reply("two")])
    turn = asyncio.create_task(alice.turn("one"))
    await alice.asked(1)
    process = alice.backend.process_id
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert (await alice.turn("two")).outcome is Outcome.OK
    assert not running(process)
