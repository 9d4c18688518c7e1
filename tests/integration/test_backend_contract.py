"""What every backend does alike in the real harness: the same tools, events, cancelling and figures.

The models are scripts on loopback; the CLIs, the harness, its tools and its page are real.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends.base import LoginStage
from hive_agent.harness import Harness
from hive_shared.backends import BACKENDS
from hive_shared.errors import BadRequest
from tests.support import scripted_api
from tests.support.chat_api import Called, ChatStandIn, Said
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths, events, harness_config, page, running
from tests.support.responses_api import ResponsesStandIn
from tests.support.scripted_api import ScriptedApi

pytestmark = pytest.mark.slow

SEND = "mcp__hyperhive__send"
ARGUMENTS = {"to": "bob", "body": "hello"}
PATIENCE_SECONDS = 60.0


@dataclass
class Bench:
    """An agent with one of the backends, whose model tells bob hello in each turn."""

    name: str
    core: FakeCore
    harness: Harness

    @property
    def said(self) -> str:
        """What its messages say; a rehearsal follows the sentence itself."""
        return "send bob hello"


Start = Callable[[str], Awaitable[Bench]]


@pytest.fixture
async def start(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(name: str) -> Bench:
            settings = await stack.enter_async_context(_model(name, request))
            core = await stack.enter_async_context(FakeCore(container_paths(tmp_path).socket))
            config = harness_config(tmp_path, backend=name, **settings)
            return Bench(name, core, await stack.enter_async_context(running(config)))

        yield begin


@asynccontextmanager
async def _model(name: str, request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Any]]:
    """The scripted model of a backend, and what its harness is told."""
    chat = [Said("I tell bob.", [Called(SEND, ARGUMENTS)]), Said("Done.")] * 3
    match name:
        case "claude":
            cli = request.getfixturevalue("claude_cli")
            use = scripted_api.ToolUse(SEND, ARGUMENTS)
            script = [scripted_api.Reply("I tell bob.", use), scripted_api.Reply("Done.")] * 3
            async with ScriptedApi(script) as api:
                yield {"claude": cli, "environment": dict(api.environment)}
        case "openai":
            async with ChatStandIn(chat) as stand_in:
                yield {"environment": {"OPENAI_BASE_URL": stand_in.url}}
        case "codex":
            cli = request.getfixturevalue("codex_cli")
            path = f"{cli.parent}{os.pathsep}{os.environ['PATH']}"
            async with ResponsesStandIn(chat) as responses:
                yield {"environment": {"OPENAI_BASE_URL": responses.url, "PATH": path}}
        case _:
            yield {}


@pytest.mark.parametrize("name", BACKENDS)
async def test_every_backend_uses_the_hives_tools_and_tells_its_turn_alike(start: Start, name: str) -> None:
    bench = await start(name)
    core, harness = bench.core, bench.harness
    for number in (1, 2):
        await core.put(bench.said)
        await core.until(lambda: len(core.acked) == number, seconds=PATIENCE_SECONDS)  # noqa: B023 - awaited here
    assert [(sent.to, sent.body) for sent in core.sent] == [("bob", "hello")] * 2

    assert [end["outcome"] for end in events(harness, "turn_end")] == ["ok", "ok"]
    lines = events(harness, "stream")
    blocks = [
        block
        for line in lines
        if line["type"] in ("assistant", "user")
        for block in line["message"]["content"]
        if isinstance(block, dict)
    ]
    used = [block for block in blocks if block["type"] == "tool_use"]
    answered = [block for block in blocks if block["type"] == "tool_result"]
    assert [(use["name"], use["input"]) for use in used] == [(SEND, ARGUMENTS)] * 2
    assert [result["tool_use_id"] for result in answered] == [use["id"] for use in used]
    assert sum(line["type"] == "result" for line in lines) == 2

    stats = harness.status.last_turn
    assert stats is not None
    assert stats.tools == {SEND: 1}
    assert (stats.output_tokens > 0) is harness.backend.is_model

    async with page(harness) as client:
        state = (await client.get("/api/state")).json()
    assert state["backend"] == name
    assert set(state["capabilities"]) == {"login", "compact", "models", "cost"}
    assert state["capabilities"]["cost"] or stats.cost_usd == 0
    assert state["login"]["stage"] == LoginStage.NONE.value
    assert state["login"]["needed"] is False


@pytest.mark.parametrize("name", BACKENDS)
async def test_every_backend_is_asked_outside_of_a_turn_without_harm(start: Start, name: str) -> None:
    backend = (await start(name)).harness.backend
    assert await backend.interrupt() is False
    await backend.new_session()
    await backend.login.cancel()
    if backend.is_model:
        await backend.set_model("another-model")
        assert backend.model == "another-model"
        with pytest.raises(BadRequest):
            await backend.set_model("--not a model")
        assert backend.model == "another-model"
    await backend.close()
    await backend.close()
