"""A real harness process, killed while a long conversation is made shorter: it comes back to it, once."""

import json
import os
from pathlib import Path
from typing import Any

from hive_agent.context import CONTEXT_FILE, TRY_AGAIN_SECONDS
from tests.integration.test_harness_process import serving
from tests.support.chat_api import Answer, ChatStandIn, Hang, Said
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths

PATIENCE_SECONDS = 60.0
LARGE = {"prompt_tokens": 30_000, "completion_tokens": 7}


def step(body: dict[str, Any]) -> str:
    """What a request to the model was about: the last thing that was said to it."""
    said: str = next(
        message["content"] for message in reversed(body["messages"]) if message["role"] == "user"
    )
    if said.startswith("<conversation>"):
        return "summary"
    last = said.rpartition("[hyperhive] ")[2]
    return "notes" if last.startswith("This turn is from the harness") else last.splitlines()[2]


async def test_a_harness_killed_in_the_turn_for_notes_goes_on_and_comes_back_to_it(tmp_path: Path) -> None:
    stuck = [True]

    def script(body: dict[str, Any]) -> Answer:
        if step(body) == "notes" and stuck[0]:
            return Hang()
        return Said("done", usage=LARGE if step(body) != "summary" else None)

    paths = container_paths(tmp_path)
    kept = paths.state / CONTEXT_FILE
    async with ChatStandIn(script) as api, FakeCore(paths.socket) as core:
        settings = {"OPENAI_BASE_URL": api.url, "OPENAI_CONTEXT_TOKENS": "40000", "HIVE_BACKEND": "openai"}

        def asked() -> list[str]:
            return [step(body) for body in api.requests]

        async with serving(tmp_path, **settings) as process:
            await core.put("long job")
            await core.until(lambda: asked() == ["long job", "notes"], seconds=PATIENCE_SECONDS)
            assert core.acked == [1], "the message was done with before"
            process.kill()
            await process.wait()
        assert json.loads(kept.read_text())["trying"] is True

        async with serving(tmp_path, **settings) as process:
            await core.put("next job")
            await core.until(lambda: core.acked == [1, 2], seconds=PATIENCE_SECONDS)
            assert asked() == ["long job", "notes", "next job"], "not at once again"
            process.kill()
            await process.wait()
        state = json.loads(kept.read_text())
        assert (state["failures"], state["trying"]) == (1, False)

        stuck[0] = False
        state["not_before_ms"] -= TRY_AGAIN_SECONDS[0] * 1000  # a minute later
        kept.write_text(json.dumps(state))
        os.truncate(paths.state / "hyperhive-events.sqlite", 0)  # what pages show is not what this rests on
        async with serving(tmp_path, **settings):
            await core.until(lambda: asked()[3:] == ["notes", "summary"], seconds=PATIENCE_SECONDS)
            await core.put("last job")
            await core.until(lambda: core.acked == [1, 2, 3], seconds=PATIENCE_SECONDS)
        assert asked()[3:] == ["notes", "summary", "last job"]
        assert json.loads(kept.read_text())["failures"] == 0
