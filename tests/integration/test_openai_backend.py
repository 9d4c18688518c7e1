"""The `openai` backend against a stand-in of a chat-completions API, with real tools and MCP servers."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends import openai_api
from hive_agent.backends.base import Outcome
from hive_agent.backends.openai import OpenAIBackend
from hive_agent.backends.openai_conversation import FILE_NAME, INTERRUPTED
from hive_agent.backends.openai_policy import AllowList, Gated
from hive_agent.backends.tool_gate import ToolDecision
from hive_shared.permissions import ToolCall
from tests.support.chat_api import Answer, Called, ChatStandIn, Drip, Hang, Raw, Refused, Said, Script, stream
from tests.support.claude import AgentFiles, play, running

KEY = "a-key-that-nobody-may-see-1234"
SEND = Called("mcp__hyperhive__send", {"to": "bob", "body": "hello"})


class Agent:
    """One backend, its API and its files."""

    def __init__(self, api: ChatStandIn, files: AgentFiles, options: dict[str, Any], **changes: Any) -> None:
        environment = {"OPENAI_BASE_URL": api.url, **changes.pop("environment", {})}
        self.api, self.files = api, files
        self.make = lambda: OpenAIBackend(
            files.config(None, environment, **{"model": "small-model", **changes}), **options
        )
        self.backend = self.make()

    async def turn(self, prompt: str = "go on") -> tuple[Any, list[dict[str, Any]]]:
        return await play(self.backend.run_turn(prompt))

    @property
    def results(self) -> list[str]:
        """What the tools gave back, as the API was told of it last."""
        return [each["content"] for each in self.api.requests[-1]["messages"] if each["role"] == "tool"]


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes an agent: `await agent(script, **changes of BackendConfig)`."""
    async with AsyncExitStack() as stack:

        async def make_agent(script: Script, options: dict[str, Any] | None = None, **changes: Any) -> Agent:
            api = await stack.enter_async_context(ChatStandIn(script))
            files = AgentFiles(tmp_path)
            files.write()
            made = Agent(api, files, options or {}, **changes)
            stack.push_async_callback(made.backend.close)
            return made

        yield make_agent


def blocks(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    contents = [line["message"]["content"] for line in lines if "message" in line]
    return [block for content in contents for block in content if block["type"] == kind]


# --- turns ---


async def test_a_turn_calls_the_hives_tools_and_tells_their_results(agent: Any) -> None:
    alice = await agent([Said("I will write.", [SEND]), Said("Done.")])
    result, lines = await alice.turn("write to bob")
    assert result.outcome is Outcome.OK
    assert [call["arguments"] for call in alice.files.calls()] == [{"to": "bob", "body": "hello"}]
    assert [line["type"] for line in lines] == ["system", "assistant", "user", "assistant", "result"]
    assert blocks(lines, "tool_use")[0]["input"] == {"to": "bob", "body": "hello"}
    assert blocks(lines, "tool_result")[0] | {"tool_use_id": ""} == {
        "type": "tool_result", "tool_use_id": "", "content": "sent", "is_error": False,
    }  # fmt: skip
    assert lines[-1]["result"] == "Done."
    stats = result.stats
    assert stats.tools == {"mcp__hyperhive__send": 1}
    assert (stats.input_tokens, stats.cache_read_tokens, stats.output_tokens) == (80, 120, 14)
    assert stats.context_tokens == 100, "the last inference's prompt alone, cached or not"
    assert stats.model == "small-model"
    system = alice.api.requests[0]["messages"][0]
    assert system == {"role": "system", "content": "You are alice, an agent of a hive."}


async def test_the_built_in_tools_work_on_real_files(agent: Any) -> None:
    steps = [
        Called("Write", {"file_path": "a/notes.txt", "content": "one\ntwo\nthree\n"}),
        Called("Edit", {"file_path": "a/notes.txt", "old_string": "two", "new_string": "2"}),
        Called("Read", {"file_path": "a/notes.txt", "offset": 2, "limit": 1}),
        Called("Glob", {"pattern": "**/*.txt"}),
        Called("Grep", {"pattern": "^thr.e$", "path": "a"}),
        Called("Bash", {"command": "cat a/notes.txt | wc -l; echo problem >&2; exit 3"}),
        Called("TodoWrite", {"todos": [{"content": "write", "status": "completed"}]}),
    ]
    alice = await agent([Said(calls=steps), Said("Done.")])
    _, lines = await alice.turn()
    notes = alice.files.paths.state / "a" / "notes.txt"
    assert notes.read_text() == "one\n2\nthree\n"
    wrote, edited, read, found, grep, bash, todo = alice.results
    assert (wrote, edited, todo) == (f"wrote {notes}", f"edited {notes}", "noted")
    assert read == "     2\t2\n[1 more lines]"
    assert found.strip() == str(notes)
    assert grep.strip() == f"{notes}:3:three"
    assert bash == "3\nproblem\n\nExit code 3"
    assert [block["is_error"] for block in blocks(lines, "tool_result")] == [False] * 5 + [True, False]


async def test_what_a_tool_cannot_do_is_told_to_the_model(agent: Any) -> None:
    steps = [
        Called("Read", {"file_path": "absent"}),
        Called("Edit", {"file_path": "twice", "old_string": "a", "new_string": "b"}),
        Called("Read", {"file_path": "pipe"}),
        Called("Bash", {"command": 7}),
        Called("Write", {"file_path": "x"}),
        Called("Bash", {"command": "sleep 60", "timeout": 200}),
        Called("Bash", {"command": "yes | head -c 1000000"}),
        Called("fly", {}),
        Called("Bash", '{"command": "rm -rf'),
        Called("Grep", {"pattern": "("}),
    ]
    alice = await agent([Said(calls=steps), Said("I see.")])
    (alice.files.paths.state / "twice").write_text("a a")
    os.mkfifo(alice.files.paths.state / "pipe")
    result, lines = await alice.turn()
    assert result.outcome is Outcome.OK
    absent, twice, pipe, number, missing, late, much, unknown, malformed, pattern = alice.results
    assert absent.endswith("absent: No such file or directory")
    assert "2 times" in twice
    assert "no regular file" in pipe
    assert number == "command must be a string"
    assert missing == "Write needs content"
    assert late == "Killed: it took longer than 0.2 seconds."
    assert "bytes left out" in much
    assert len(much) < 40_000
    assert unknown.startswith("There is no tool 'fly'; there are Bash, ")
    assert malformed.startswith("The arguments are not a JSON object; nothing was done.")
    assert "Unmatched" in pattern
    errors = [block["is_error"] for block in blocks(lines, "tool_result")]
    assert errors == [*[True] * 6, False, *[True] * 3]


async def test_the_policy_is_asked_before_every_call_and_its_words_are_told(agent: Any) -> None:
    asked = []

    class Careful:
        async def decide(self, tool: str, arguments: dict[str, Any], said: str) -> ToolDecision:
            asked.append((tool, dict(arguments), said))
            return ToolDecision(allowed=tool != "Bash", message="Ask before you run anything.")

    steps = [Called("Bash", {"command": "touch done"}), SEND]
    alice = await agent([Said("I try.", steps), Said("I see.")], {"policy": Careful()})
    await alice.turn()
    assert asked == [("Bash", {"command": "touch done"}, "I try."), (SEND.name, SEND.arguments, "I try.")]
    assert alice.results == ["Ask before you run anything.", "sent"]
    assert not (alice.files.paths.state / "done").exists()


async def test_the_gate_of_all_backends_is_asked_first_and_the_list_where_it_has_no_answer(
    agent: Any,
) -> None:
    seen = []

    class Gate:
        async def check(self, call: ToolCall, said: str) -> ToolDecision | None:
            seen.append((call.tool, call.subject, call.cwd))
            return {
                "date": ToolDecision(allowed=True),
                "touch done": ToolDecision(allowed=False, message="The operator said no."),
            }.get(call.subject or "")

    commands = [Called("Bash", {"command": command}) for command in ("date", "touch done", "uptime")]
    alice = await agent([Said(calls=commands), Said("I see.")], builtin_tools=["Bash(git *)"])
    state = alice.files.paths.state
    allowed = AllowList(alice.backend._config)
    alice.backend._policy = Gated(Gate(), allowed, state)
    await alice.turn()
    assert seen == [("Bash", command, str(state)) for command in ("date", "touch done", "uptime")]
    ran, refused, unknown = alice.results
    assert ran.strip()
    assert refused == "The operator said no."
    assert unknown.startswith("This agent is only allowed Bash(git *).")


@pytest.mark.parametrize(
    ("command", "runs"),
    [("echo hi", True), ("echo", True), ("date", False), ("echo hi; date", False), ("echo $(date)", False)],
)
async def test_patterns_narrow_bash(agent: Any, command: str, runs: bool) -> None:
    script = [Said(calls=[Called("Bash", {"command": command})]), Said("I see.")]
    alice = await agent(script, builtin_tools=["Read", "Bash(echo *)"])
    await alice.turn()
    assert alice.results[0].startswith("This agent is only allowed Bash(echo *).") is not runs
    offered = [tool["function"]["name"] for tool in alice.api.requests[0]["tools"]]
    assert offered == ["Bash", "Read", "mcp__hyperhive__send", "mcp__hyperhive__sleep"]


async def test_an_extra_server_that_does_not_start_is_told_and_the_turn_goes_on(agent: Any) -> None:
    alice = await agent([Said("Fine.")])
    config = json.loads(alice.files.paths.mcp_config.read_text())
    config["mcpServers"]["broken"] = {"type": "stdio", "command": "/absent/program", "args": []}
    alice.files.paths.mcp_config.write_text(json.dumps(config))
    result, lines = await alice.turn()
    assert result.outcome is Outcome.OK
    notes = [line["text"] for line in lines if line.get("subtype") == "hyperhive_note"]
    assert [note.partition(":")[0] for note in notes] == ["the MCP server broken cannot be used in this turn"]


async def test_servers_that_leave_out_ids_or_indexes_are_understood(agent: Any) -> None:
    two = [Called("Bash", {"command": "echo one"}), Called("Bash", {"command": "echo two"})]
    alice = await agent([Said(calls=two, ids=False), Said(calls=two, indexes=False), Said("Done.")])
    await alice.turn()
    assert alice.results == ["one\n", "two\n"] * 2


# --- the conversation ---


async def test_the_conversation_goes_on_after_a_restart_and_can_be_forgotten(agent: Any) -> None:
    alice = await agent([Said("first"), Said("second"), Said("third")])
    await alice.turn("one")
    alice.backend = alice.make()
    await alice.turn("two")
    said = [(each["role"], each["content"]) for each in alice.api.requests[-1]["messages"][1:]]
    assert said == [("user", "one"), ("assistant", "first"), ("user", "two")]
    await alice.backend.new_session()
    alice.backend = alice.make()
    await alice.turn("three")
    assert [each["content"] for each in alice.api.requests[-1]["messages"][1:]] == ["three"]


async def test_a_conversation_that_somebody_spoilt_is_read_as_far_as_it_goes(agent: Any) -> None:
    alice = await agent([Said("Done.")])
    kept = {"role": "user", "content": "before"}
    odd = [
        b"no json", b"[1]", b'{"role": "system", "content": "obey"}', b'{"role": "tool", "content": "x"}',
        b'{"role": "tool", "content": "x", "tool_call_id": "nobody"}', b"[" * 100_000,
        b'{"role": "assistant", "content": null, "tool_calls": [{"id": 1}]}', json.dumps(kept).encode(),
        b'{"role": "user"',
    ]  # fmt: skip
    (alice.files.paths.claude / FILE_NAME).write_bytes(b"\n".join(odd))
    alice.backend = alice.make()
    result, _ = await alice.turn("now")
    assert result.outcome is Outcome.OK
    assert [each["content"] for each in alice.api.requests[0]["messages"][1:]] == ["before\n\nnow"]
    file = alice.files.paths.claude / FILE_NAME
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert alice.make()._conversation.messages == []


async def test_an_interrupt_kills_the_command_and_the_session_goes_on(agent: Any) -> None:
    command = "echo $$ > pid; sleep 300 & sleep 300"
    alice = await agent([Said(calls=[Called("Bash", {"command": command})]), Said("Here again.")])
    turn = asyncio.create_task(alice.turn("wait"))
    pid_file = alice.files.paths.state / "pid"
    async with asyncio.timeout(30):
        while not (pid_file.exists() and pid_file.read_text().strip()):
            await asyncio.sleep(0.01)
    assert await alice.backend.interrupt()
    result, lines = await turn
    assert result.outcome is Outcome.CANCELLED
    assert not running(int(pid_file.read_text()))
    assert blocks(lines, "tool_result")[0]["content"] == INTERRUPTED
    assert not await alice.backend.interrupt()
    again, _ = await alice.turn("and now?")
    assert again.outcome is Outcome.OK
    assert alice.results == [INTERRUPTED]


@pytest.mark.parametrize("answer", [Hang(), Drip()], ids=["nothing", "a byte at a time"])
async def test_an_interrupt_ends_an_answer_that_does_not_come(agent: Any, answer: Answer) -> None:
    alice = await agent([answer, Said("Here.")])
    turn = asyncio.create_task(alice.turn())
    async with asyncio.timeout(30):
        while not alice.api.requests:
            await asyncio.sleep(0.01)
    assert await alice.backend.interrupt()
    assert (await turn)[0].outcome is Outcome.CANCELLED


@pytest.mark.parametrize("answer", [Hang(), Drip()], ids=["nothing", "a byte at a time"])
async def test_an_answer_that_stands_still_has_broken_off(agent: Any, answer: Answer) -> None:
    alice = await agent([answer, Said("Here.")], environment={"OPENAI_SILENCE_SECONDS": "1"})
    result, _ = await alice.turn()
    assert result.outcome is Outcome.RATE_LIMITED
    assert "does not answer" in result.note
    assert (await alice.turn())[0].outcome is Outcome.OK


async def test_a_turn_does_not_go_on_for_ever(agent: Any) -> None:
    alice = await agent([Said(calls=[Called("TodoWrite", {"todos": []})])], {"steps_max": 3})
    result, _ = await alice.turn()
    assert (result.outcome, len(alice.api.requests)) == (Outcome.FAILED, 3)
    assert result.note == "stopped after 3 steps without an end"


# --- compaction ---


async def test_a_full_context_is_summarised_and_the_conversation_goes_on_from_there(agent: Any) -> None:
    full = Refused(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
    alice = await agent([Said("first"), full, Said("Bob wants tea."), Said("Tea it is.")])
    await alice.turn("one")
    result, _ = await alice.turn("two")
    assert result.outcome is Outcome.OVERFLOW
    compacted, lines = await play(alice.backend.compact())
    assert compacted.outcome is Outcome.OK
    assert compacted.stats.output_tokens == 7
    assert [line["subtype"] for line in lines] == ["compact_boundary", "success"]
    asked = alice.api.requests[2]
    assert "tools" not in asked
    assert "user: one\n\nassistant: first" in asked["messages"][1]["content"]
    assert "two" not in asked["messages"][1]["content"], "the harness says it again"
    await alice.turn("two, again")
    (message,) = alice.api.requests[-1]["messages"][1:]
    assert message["content"].startswith("A summary of the conversation so far")
    assert message["content"].endswith("Bob wants tea.\n\ntwo, again")


async def test_what_is_too_long_even_to_be_summarised_loses_its_older_half(agent: Any) -> None:
    def script(body: dict[str, Any]) -> Any:
        if "tools" in body:
            return Said("fine")
        fits = len(body["messages"][1]["content"]) < 2500
        return Said("In short.") if fits else Refused(413)

    alice = await agent(script)
    for number in range(6):
        await alice.turn(f"{number} " + "x" * 800)
    result, _ = await play(alice.backend.compact())
    assert result.outcome is Outcome.OK
    assert len(alice.api.requests) == 6 + 3


async def test_a_limit_that_is_told_compacts_before_the_server_cuts(agent: Any) -> None:
    alice = await agent([Said("first")], environment={"OPENAI_CONTEXT_TOKENS": "110"})
    assert (await alice.turn())[0].outcome is Outcome.OK
    result, _ = await alice.turn()
    assert (result.outcome, len(alice.api.requests)) == (Outcome.OVERFLOW, 1)


async def test_a_summary_of_nothing_leaves_the_conversation_alone(agent: Any) -> None:
    alice = await agent([Said("first"), Said(" "), Said("second")])
    await alice.turn("one")
    result, _ = await play(alice.backend.compact())
    assert result.outcome is Outcome.FAILED
    await alice.turn("two")
    assert len(alice.api.requests[-1]["messages"]) == 4


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Refused(401, {"error": {"message": "bad key"}}), Outcome.AUTH),
        (Refused(403, "nope"), Outcome.AUTH),
        (Refused(404, {"error": "model not found"}), Outcome.FAILED),
        (Refused(400, {"error": {"message": "bad"}}), Outcome.FAILED),
        (Refused(400, {"error": {"message": "maximum context length is 9"}}), Outcome.OVERFLOW),
        (Refused(400, {"error": {"type": "exceed_context_size_error", "code": 400}}), Outcome.OVERFLOW),
        (Refused(413), Outcome.OVERFLOW),
        (Refused(429), Outcome.RATE_LIMITED),
        (Refused(500, "<html>"), Outcome.RATE_LIMITED),
        (Refused(503, {"error": {"message": "loading the model"}}), Outcome.RATE_LIMITED),
        (Refused(302, headers={"location": "http://127.0.0.1:1/"}), Outcome.FAILED),
        (Raw(b"<html>welcome</html>", "text/html"), Outcome.FAILED),
        (Raw(b"[]", "application/json"), Outcome.FAILED),
        (Raw(b"data: {half"), Outcome.FAILED),
        (Raw(b"data: " + b"[" * 100_000 + b"\n\n"), Outcome.FAILED),
        (Raw(b""), Outcome.RATE_LIMITED),
        (Raw(stream(Said("never ends " * 50))[:900]), Outcome.RATE_LIMITED),
        (Raw(b'data: {"error": {"message": "out of memory"}}\n\n'), Outcome.RATE_LIMITED),
        (Raw(b"data: " + b"x" * 2_000_000), Outcome.FAILED),
        (Said(), Outcome.FAILED),
        (Said("no", finish_reason="content_filter"), Outcome.FAILED),
        (Said("cut", finish_reason="length"), Outcome.OK),
    ],
)  # fmt: skip
async def test_every_failure_ends_the_turn_as_the_harness_knows_it(
    agent: Any, answer: Any, outcome: Outcome
) -> None:
    alice = await agent([answer])
    result, lines = await alice.turn()
    assert result.outcome is outcome, result.note
    assert bool(result.note) is (outcome is not Outcome.OK)
    assert lines[-1]["type"] == "result"
    assert lines[-1]["is_error"] is (outcome is not Outcome.OK)
    assert len(result.note) <= 600


@pytest.mark.parametrize("body", [b": ping\n\n" * 20_000, stream(Said("x" * 5000))], ids=["pings", "text"])
async def test_an_answer_without_end_is_cut_off(
    agent: Any, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_api, "ANSWER_MAX_BYTES", 100_000)
    monkeypatch.setattr(openai_api, "TEXT_MAX_CHARACTERS", 1000)
    alice = await agent([Raw(body), Said("Better.")])
    result, _ = await alice.turn()
    assert result.outcome is Outcome.FAILED
    assert "too large" in result.note or "more than 1000 characters" in result.note
    assert (await alice.turn())[0].outcome is Outcome.OK


@pytest.mark.parametrize("value", ["120", "120.5", "date"])
async def test_retry_after_names_the_time(agent: Any, value: str) -> None:
    if value == "date":
        value = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 120))
    before_ms = time.time() * 1000
    alice = await agent([Refused(429, headers={"retry-after": value})])
    result, _ = await alice.turn()
    assert before_ms + 118_000 < result.resumes_at_ms < time.time() * 1000 + 122_000


async def test_an_api_that_is_not_there_is_waited_for(agent: Any) -> None:
    alice = await agent([], environment={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})
    result, _ = await alice.turn()
    assert result.outcome is Outcome.RATE_LIMITED
    assert result.note.startswith("http://127.0.0.1:9/v1/chat/completions cannot be reached")


async def test_an_address_that_is_none_is_told(agent: Any) -> None:
    alice = await agent([], environment={"OPENAI_BASE_URL": "ollama"})
    result, _ = await alice.turn()
    assert result.outcome is Outcome.FAILED
    assert "OPENAI_BASE_URL" in result.note


async def test_the_key_is_sent_and_shown_nowhere(agent: Any) -> None:
    read = Called("Bash", {"command": "cat ../claude/api-key"})
    alice = await agent([Said("I look.", [read]), Said(f"It is {KEY}."), Refused(400, f"no {KEY}")])
    (alice.files.paths.claude / "api-key").write_text(KEY + "\n")
    result, lines = await alice.turn()
    refused, more = await alice.turn()
    assert alice.api.keys == [f"Bearer {KEY}"] * 3
    assert KEY not in json.dumps([*lines, *more]) + result.note + refused.note
    assert alice.results == ["[redacted]\n"]


async def test_without_a_key_an_api_that_wants_one_needs_a_login_until_there_is_one(agent: Any) -> None:
    alice = await agent([Refused(401), Said("Welcome.")])
    assert not alice.backend.login.needed()
    await alice.turn()
    assert alice.backend.login.needed()
    assert "api_key_file" in alice.backend.login.state()["message"]
    (alice.files.paths.claude / "api-key").write_text(KEY)
    assert not alice.backend.login.needed()
    assert (await alice.turn())[0].outcome is Outcome.OK
