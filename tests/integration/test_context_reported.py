"""How large a conversation is, from a harness's socket to what the operator sees, also once it is gone."""

from pathlib import Path

from tests.support.whole_hive import whole_hive


async def test_what_a_harness_reports_of_its_context_is_shown_and_stays_while_it_is_away(
    tmp_path: Path,
) -> None:
    async with whole_hive(tmp_path) as hive:

        async def shown() -> tuple[int, int]:
            agents = (await hive.done("operator", "list"))["agents"]
            report = next(agent["report"] for agent in agents if agent["name"] == "alice")
            return report["context_tokens"], report["window_tokens"]

        size = {"context_tokens": 142_300, "window_tokens": 200_000}
        await hive.done("alice", "report", badge="idle", **size)
        assert await shown() == (142_300, 200_000)
        await hive.done("alice", "report", badge="compacting", context_tokens=0, window_tokens=200_000)
        assert await shown() == (0, 200_000)
        await hive.done("alice", "report", badge="idle", **size)
        await hive.done("operator", "kill", name="alice")
        assert await shown() == (142_300, 200_000), "its conversation is still as large"
