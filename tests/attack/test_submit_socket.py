"""SECURITY 1 and 10: an agent that asks for a change of a configuration by its own socket.

The very same bytes are accepted on the manager's socket: what refuses them is whose socket it is.
"""

import json
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_shared import wire
from tests.conftest import need
from tests.support.hive import Hive, eventually, running_hive
from tests.support.proposed import commit, git, make_repository

pytestmark = pytest.mark.slow

CLAIMS = {
    "sender": "hm1nd",
    "role": "manager",
    "surface": "manager",
    "agent_name": "hm1nd",
    "from": "operator",
}


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    need(shutil.which("git"), "git is not installed; install the package `git`")
    async with running_hive(tmp_path / "hive", HIVE_ISOLATION="none") as hive:
        await eventually(lambda: hive.is_idle("hm1nd"), "the manager is idle")
        await hive.spawn("alice")
        yield hive


def say(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one line on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        reply: dict[str, Any] = json.loads(connection.makefile("rb").readline())
        return reply


def requests(root: Path, places: list[Path], agent: str) -> list[dict[str, Any]]:
    """All that asks for a configuration, with a good pack in each of `places`."""
    repository = root / f"work-{secrets.token_hex(4)}"
    sha = commit(make_repository(repository), "mine", agent_nix="{ ... }: { }\n")
    pack = f"submit-{secrets.token_hex(16)}.pack"
    done = git(repository, "pack-objects", "--revs", "-q", str(root / "made"), given=f"{sha}\n".encode())
    for place in places:
        shutil.copy(root / f"made-{done}.pack", place / pack)
    submitted = {"commit": sha, "pack": pack, "commit_ref": "HEAD"}
    return [
        {"op": "prepare_spawn", "name": "carol"},
        {"op": "request_spawn", "name": "carol", **submitted},
        {"op": "request_spawn", "name": "dora"},
        {"op": "request_apply_commit", "agent": agent, **submitted},
    ]


async def test_an_agent_submits_nothing_by_its_own_socket(hive: Hive, tmp_path: Path) -> None:
    mine, managers = hive.paths.socket("alice"), hive.paths.socket("hm1nd")
    places = [mine.parent, managers.parent]
    for victim in ("alice", "hm1nd"):
        for request in requests(tmp_path, places, victim):
            for claim in ({}, CLAIMS):
                assert say(mine, {**claim, **request})["error"]["code"] == "forbidden", request
    assert (await hive.call(wire.Pending())).approvals == []
    assert not hive.paths.agent_dir("carol").exists()

    replies = [say(managers, request) for request in requests(tmp_path, places, "alice")]
    assert [reply["ok"] for reply in replies] == [True] * 4, replies
    asked_for = {approval.agent for approval in (await hive.call(wire.Pending())).approvals}
    assert asked_for == {"carol", "dora", "alice"}
