"""The whole harness with the real Claude Code CLI, against a scripted Messages API: no network, no model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from hive_agent.harness import Harness
from hive_shared.context_options import ContextOptions
from hive_shared.wire import Badge
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths, events, harness_config, running
from tests.support.scripted_api import (
    TOO_LONG,
    UNAUTHORISED,
    Answer,
    Hang,
    Reply,
    Request,
    Script,
    ScriptedApi,
    ToolUse,
    Usage,
    rate_limited,
)

pytestmark = [pytest.mark.claude, pytest.mark.slow]

SEND = "mcp__hyperhive__send"
PATIENCE_SECONDS = 60.0

Parts = tuple[FakeCore, Harness, ScriptedApi]


@asynccontextmanager
async def claude_agent(
    root: Path, cli: Path, script: Script | list[Answer], **changes: Any
) -> AsyncIterator[Parts]:
    """An agent whose turns are run by the CLI."""
    async with ScriptedApi(script) as api, FakeCore(container_paths(root).socket) as core:
        given = {"backend": "claude", "claude": cli, "environment": dict(api.environment), **changes}
        config = harness_config(root, **given)
        async with running(config) as harness:
            yield core, harness, api


async def test_a_turn_uses_the_tools_through_the_relay(tmp_path: Path, claude_cli: Path) -> None:
    script: list[Answer] = [
        Reply("I tell bob.", ToolUse(SEND, {"to": "bob", "body": "hello"})),
        Reply("Done."),
    ]
    async with claude_agent(tmp_path, claude_cli, script) as (core, harness, api):
        await core.put("say hello to bob")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)

        assert [(sent.to, sent.body) for sent in core.sent] == [("bob", "hello")]
        assert {"Bash", "Read", SEND, "mcp__hyperhive__recv"} <= set(api.requests[0].tools)
        assert "**alice**" in api.requests[0].system
        assert "--- operator writes ·" in api.requests[0].prompt
        assert any("Sent to bob as message 1" in text for text in api.requests[1].tool_results)
        assert events(harness, "turn_end")[0]["ok"] is True
        stats = harness.status.last_turn
        assert stats is not None
        assert stats.tools == {SEND: 1}
        assert stats.context_tokens > 0


async def test_messages_taken_by_the_model_in_its_turn_are_acked_with_it(
    tmp_path: Path, claude_cli: Path
) -> None:
    script: list[Answer] = [Reply(ToolUse("mcp__hyperhive__recv", {"max": 5})), Reply("Both done.")]
    async with claude_agent(tmp_path, claude_cli, script) as (core, harness, api):
        await core.put("first")
        await core.put("second", sender="bob")
        await core.until(lambda: core.acked == [1, 2], seconds=PATIENCE_SECONDS)

        assert "from the agent bob" in api.requests[1].tool_results[0]
        assert len(events(harness, "turn_start")) == 1


async def test_an_overflow_is_compacted_by_the_cli_and_retried(tmp_path: Path, claude_cli: Path) -> None:
    asked: list[str] = []

    def script(request: Request) -> Answer:
        asked.append(request.prompt)
        first_of_big_job = "big job" in request.prompt and not any("big job" in text for text in asked[:-1])
        return TOO_LONG if first_of_big_job else Reply("<summary>We did a small job.</summary>")

    async with claude_agent(tmp_path, claude_cli, script) as (core, harness, _):
        await core.put("small job")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)
        await core.put("big job")
        await core.until(lambda: core.acked == [1, 2], seconds=PATIENCE_SECONDS)

        assert [end["outcome"] for end in events(harness, "turn_end")] == ["ok", "ok"]
        notes = [note["text"] for note in events(harness, "note")]
        assert any("the context is full" in note for note in notes)
        assert "compacted" in notes
        assert any("has been compacted" in prompt for prompt in asked)


async def test_a_rate_limit_parks_the_turn_until_it_lifts(tmp_path: Path, claude_cli: Path) -> None:
    limited = [True]

    def script(_: Request) -> Answer:
        return rate_limited(3600) if limited[0] else Reply("Done.")

    async with claude_agent(tmp_path, claude_cli, script) as (core, harness, _api):
        await core.put("job")
        await core.until(lambda: harness.status.badge is Badge.RATE_LIMITED, seconds=PATIENCE_SECONDS)
        assert core.acked == []
        assert list(core.leased) == [1]

        limited[0] = False
        await harness.choose_model("haiku")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)
        assert [end["outcome"] for end in events(harness, "turn_end")] == ["ok"]


async def test_refused_credentials_show_needs_login_and_keep_the_message(
    tmp_path: Path, claude_cli: Path
) -> None:
    async with claude_agent(tmp_path, claude_cli, lambda _: UNAUTHORISED) as (core, harness, _):
        await core.put("job")
        await core.until(lambda: harness.status.badge is Badge.NEEDS_LOGIN, seconds=PATIENCE_SECONDS)

        assert core.acked == []
        await harness.cancel()
        await core.until(lambda: core.acked == [1])


async def test_cancel_interrupts_the_cli_and_the_next_turn_works(tmp_path: Path, claude_cli: Path) -> None:
    def script(request: Request) -> Answer:
        return Hang() if "go on" not in request.prompt else Reply("Done.")

    async with claude_agent(tmp_path, claude_cli, script) as (core, harness, api):
        await core.put("hang")
        await core.until(lambda: api.requests, seconds=PATIENCE_SECONDS)
        await harness.cancel()
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)
        await core.put("go on")
        await core.until(lambda: core.acked == [1, 2], seconds=PATIENCE_SECONDS)
        assert [end["outcome"] for end in events(harness, "turn_end")] == ["cancelled", "ok"]


async def test_without_credentials_nothing_is_started_and_nothing_is_taken(
    tmp_path: Path, claude_cli: Path
) -> None:
    async with FakeCore(container_paths(tmp_path).socket) as core:
        config = harness_config(tmp_path, backend="claude", claude=claude_cli)
        async with running(config) as harness:
            await core.put("job")
            await core.until(lambda: core.reports and core.reports[-1].badge is Badge.NEEDS_LOGIN)
            assert harness.state()["login"]["needed"] is True
            assert core.leased == {}


async def test_a_long_conversation_saves_notes_and_is_compacted_before_the_next_message(
    tmp_path: Path, claude_cli: Path
) -> None:
    notes = tmp_path / "state" / "notes.md"
    large = Usage(input_tokens=10, cache_read_input_tokens=159_000, cache_creation_input_tokens=990)
    asked: list[str] = []

    def script(request: Request) -> Answer:
        asked.append(request.prompt)
        if "long job" in request.prompt:
            return Reply("Done.", usage=large)
        if "This turn is from the harness" in request.prompt:
            written = any("notes.md" in text for text in request.tool_results)
            content = {"file_path": str(notes), "content": "We build the bridge."}
            return Reply("Saved.", usage=large) if written else Reply(ToolUse("Write", content), usage=large)
        if "next job" in request.prompt:
            return Reply("Done too.", usage=Usage(input_tokens=18_000))
        return Reply("<summary>We did a long job.</summary>")

    async with claude_agent(tmp_path, claude_cli, script) as (core, harness, api):
        await core.put("long job")
        await core.put("next job")
        await core.until(lambda: core.acked == [1, 2], seconds=PATIENCE_SECONDS)

        assert harness.context.window_tokens == 200_000
        assert harness.context.tokens == 18_130
        assert notes.read_text() == "We build the bridge."
        told = [note["text"] for note in events(harness, "note")]
        assert told[0] == "the context has 160000 tokens of 200000; saving notes before compacting"
        assert told[-1] == "compacted"
        steps = [step for step, _ in groupby(map(_step, asked))]
        assert steps == ["long job", "notes", "summary", "next job"]
        assert "We did a long job." in str(api.requests[-1].messages), "the summary goes on"
        assert [end["outcome"] for end in events(harness, "turn_end")] == ["ok", "ok"]
        compacting = [report for report in core.reports if report.badge is Badge.COMPACTING]
        assert compacting[0].context_tokens == 160_000


async def test_a_large_and_cold_conversation_is_begun_anew_from_its_notes(
    tmp_path: Path, claude_cli: Path
) -> None:
    def script(request: Request) -> Answer:
        return Reply(
            "Done.", usage=Usage(input_tokens=90_000 if _step(request.prompt) == "long job" else 100)
        )

    options = ContextOptions(reset_at=0.4)
    async with claude_agent(tmp_path, claude_cli, script, context=options) as (core, harness, api):
        (tmp_path / "state" / "notes.md").write_text("We build the bridge.")
        await core.put("long job")
        await core.until(lambda: core.acked == [1], seconds=PATIENCE_SECONDS)
        harness.context.kept.inferred_at_ms -= 10 * 60_000  # so long ago
        await core.put("next job")
        await core.until(lambda: core.acked == [1, 2], seconds=PATIENCE_SECONDS)

        assert [step for step, _ in groupby(_step(request.prompt) for request in api.requests)] == [
            "long job",
            "notes",
            "next job",
        ]
        last = api.requests[-1]
        assert "long job" not in str(last.messages), "nothing of the old conversation is sent"
        assert f"What you wrote down is in {tmp_path}/state/notes.md" in last.prompt
        assert harness.context.tokens < 1000


def _step(prompt: str) -> str:
    words = {"long job": "long job", "next job": "next job", "This turn is from the harness": "notes"}
    return next((word for begins, word in words.items() if begins in prompt), "summary")
