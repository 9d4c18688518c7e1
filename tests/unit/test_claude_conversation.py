"""Which conversation Claude Code takes up, across restarts, whatever an agent does to the file."""

import os
from pathlib import Path

import pytest

from hive_agent.backends.claude_conversation import Conversation

ID = "11111111-2222-4333-8444-555555555555"


def test_the_latest_until_one_is_known_and_none_after_forgetting(tmp_path: Path) -> None:
    assert Conversation(tmp_path).flags() == ["--continue"]
    Conversation(tmp_path).seen(ID)
    assert Conversation(tmp_path).flags() == ["--resume", ID]
    Conversation(tmp_path).forget()
    assert Conversation(tmp_path).flags() == []


def test_one_that_cannot_be_taken_up_gives_way_to_the_latest(tmp_path: Path) -> None:
    conversation = Conversation(tmp_path)
    conversation.seen(ID)
    assert conversation.doubt()
    assert conversation.flags() == ["--continue"]
    assert not conversation.doubt()


@pytest.mark.parametrize("content", ["", "--dangerously-skip-permissions", "../../x", "0" * 36, "\xff\xfe"])
def test_what_an_agent_writes_into_the_file_is_never_an_argument(tmp_path: Path, content: str) -> None:
    (tmp_path / "hyperhive-conversation").write_text(content)
    assert Conversation(tmp_path).flags() == ["--continue"]


def test_links_and_pipes_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "hyperhive-conversation"
    (tmp_path / "other").write_text(ID)
    file.symlink_to(tmp_path / "other")
    assert Conversation(tmp_path).flags() == ["--continue"]
    file.unlink()
    os.mkfifo(file)
    assert Conversation(tmp_path).flags() == ["--continue"]


def test_a_state_directory_that_takes_no_files_costs_the_memory_only(tmp_path: Path) -> None:
    conversation = Conversation(tmp_path / "missing")
    conversation.seen(ID)
    assert conversation.flags() == ["--resume", ID]
