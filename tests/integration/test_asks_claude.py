"""Questions between agents, with the real Claude Code CLI: asked, answered, gone on with; and taken back."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_shared import wire
from tests.integration.test_story import claude_environment
from tests.integration.test_story_configuration import last_tool
from tests.support.hive import Hive, eventually, running_hive
from tests.support.scripted_api import Reply, Request, ScriptedApi, ToolUse

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(300)]

SEND, ASK, ANSWER, CANCEL = (
    f"mcp__hyperhive__{tool}" for tool in ("send", "ask", "answer", "cancel_loose_end")
)
# As the prompts tell the model: what stands in the line above the marks is true.
ASKED = re.compile(r"^\[hyperhive\] message \d+ from the agent alice .*answer tool, id (\d+)", re.MULTILINE)
ANSWERED = re.compile(r"answers question (\d+) of yours\)\n--- bob writes .*\n(.*)\n")
GIVEN = re.compile(r"Question (\d+) went to bob")  # what the tool says of it


def play(request: Request) -> Reply:
    """Alice asks bob about the colour, and about the weather in vain; each does what its last prompt says."""
    if ASK not in request.tools or last_tool(request) in (SEND, ANSWER, CANCEL):
        return Reply("Done.")
    if last_tool(request) == ASK:
        return Reply("The answer will wake me.")
    if answered := ANSWERED.search(request.prompt):
        return Reply(ToolUse(SEND, {"to": "operator", "body": f"painted it {answered[2]}"}))
    if (asked := ASKED.search(request.prompt)) and "Which colour?" in request.prompt:
        return Reply("It has to be green.", ToolUse(ANSWER, {"id": int(asked[1]), "answer": "green"}))
    if "begin to paint" in request.prompt:
        return Reply(ToolUse(ASK, {"to": "bob", "question": "Which colour?", "options": ["red", "green"]}))
    if "look at the weather" in request.prompt:
        return Reply(ToolUse(ASK, {"to": "bob", "question": "Does it rain?"}))
    if "never mind" in request.prompt:
        number = GIVEN.findall(str(request.messages))[-1]
        return Reply(ToolUse(CANCEL, {"kind": "question", "id": int(number)}))
    return Reply("Noted.")


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi(play) as api:
        yield api


async def test_an_agent_goes_on_with_the_answer_of_another_and_takes_back_what_it_need_not_know(
    tmp_path: Path, claude_cli: Path, api: ScriptedApi
) -> None:
    environment = claude_environment(api, claude_cli, tmp_path)
    async with running_hive(tmp_path / "hive", **environment) as hive:
        await hive.spawn("alice", "bob")
        await hive.send("alice", "begin to paint")
        (painted,) = await eventually(lambda: said(hive, "painted it"), "alice goes on with bob's answer")
        assert (painted.sender, painted.body) == ("alice", "painted it green")
        going_on = next(request for request in api.requests if ANSWERED.search(request.prompt))
        assert any("begin to paint" in text for text in going_on.user_texts), "in the same conversation"
        ask, answer = await messages_about(hive, 1)
        assert (ask.sender, ask.to, ask.body) == (
            "alice",
            "bob",
            "Which colour?\n\nOne of these:\n- red\n- green",
        )
        assert (answer.sender, answer.to, answer.body) == ("bob", "alice", "green")
        assert answer.in_reply_to == ask.id

        await hive.send("alice", "look at the weather")
        await eventually(lambda: shown(api, "Does it rain?"), "bob is asked, and leaves it for later")
        await hive.send("alice", "never mind")
        prompt = await eventually(
            lambda: shown(api, "question 2 of alice no longer waits for your answer"),
            "bob hears that nobody waits any more",
        )
        assert "from the hive itself: a fact (in reply to message" in prompt
        questions = (await hive.call(wire.Questions(all=True))).questions
        assert questions == []
        assert [message.sender for message in await messages_about(hive, 2)] == ["alice"]


async def said(hive: Hive, text: str) -> list[wire.Message]:
    """Messages to the operator that hold the text."""
    return [message for message in await hive.messages() if text in message.body]


async def messages_about(hive: Hive, question: int) -> list[wire.Message]:
    """What carries a question, and what answers it."""
    everything = (await hive.call(wire.Messages(limit=1000))).messages
    return [message for message in everything if question in (message.asks, message.answers)]


def shown(api: ScriptedApi, text: str) -> str | None:
    """The prompt in which a model was shown it."""
    return next((request.prompt for request in api.requests if text in request.prompt), None)
