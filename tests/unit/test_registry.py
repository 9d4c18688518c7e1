"""The registry of agents."""

from pathlib import Path

import pytest

from hive_shared.errors import Conflict, InvalidName, Unavailable, UnknownAgent
from hive_shared.names import MANAGER
from tests.support.core_parts import fill_the_disk, free_the_disk, running


async def test_agents_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    async with running(path, agents=("alice", "bob", MANAGER)) as parts:
        await parts.registry.set_wanted("alice", "stopped")
        await parts.registry.set_kept("bob", True)
        before = {name: parts.registry.get(name) for name in ("alice", "bob", MANAGER)}
    async with running(path, agents=()) as parts:
        assert {name: parts.registry.get(name) for name in ("alice", "bob", MANAGER)} == before
        alice = parts.registry.require("alice")
        assert (alice.wanted, alice.kept, alice.host, alice.role) == ("stopped", False, "local", "agent")


async def test_live_agents_are_listed_manager_first_and_tombstones_apart(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite", agents=("zoe", "bob", MANAGER, "alice")) as parts:
        await parts.registry.set_kept("bob", True)
        assert [agent.name for agent in parts.registry.live()] == [MANAGER, "alice", "zoe"]
        assert [agent.name for agent in parts.registry.tombstones()] == ["bob"]
        await parts.registry.set_kept("bob", False)
        assert parts.registry.tombstones() == []


async def test_an_unknown_agent_is_an_error_that_names_who_exists(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        with pytest.raises(UnknownAgent, match="there are: alice, bob"):
            parts.registry.require("carol")
        with pytest.raises(UnknownAgent):
            await parts.registry.set_wanted("carol", "stopped")
        assert parts.registry.get("carol") is None


async def test_the_list_of_who_exists_stays_short(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(30)]
    async with running(tmp_path / "b.sqlite", agents=names) as parts:
        assert parts.registry.who_exists().endswith("and 10 more")


async def test_a_name_is_taken_once_also_by_a_tombstone(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await parts.registry.set_kept("bob", True)
        for name in ("alice", "bob"):
            with pytest.raises(Conflict, match=name):
                await parts.registry.add(name, "agent", 8100)
        with pytest.raises(InvalidName):
            await parts.registry.add("operator", "agent", 8100)
        await parts.registry.forget("bob")
        assert (await parts.registry.add("bob", "agent", 8101)).port == 8101


async def test_what_cannot_be_stored_is_not_remembered_either(tmp_path: Path) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        await fill_the_disk(parts.store)
        refused: list[str] = []
        for number in range(200):  # until the pages there are have no room left
            name = f"a{number}"
            try:
                await parts.registry.add(name, "agent", 8100)
            except Unavailable:
                refused.append(name)
        assert refused
        assert not any(parts.registry.get(name) for name in refused)
        await free_the_disk(parts.store)
        await parts.registry.add(refused[0], "agent", 8100)
