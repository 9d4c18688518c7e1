"""The repositories an agent begins with: a proposed one and an applied one, each with `agent.nix`.

Both are made in a directory that no agent can see and are then moved into place whole. After that no
git ever runs in the proposed one: from then on it is hostile input (SECURITY 6).
"""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hive_core.containers.command import run
from hive_core.untrusted import give_tree

GIT_SECONDS = 30.0
BRANCH = "main"
_AUTHOR = "hyperhive"
_EMAIL = "hive-c0re@localhost"

# No configuration of the system or of a user, no template, no hook, no editor, no question.
GIT_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TEMPLATE_DIR": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": _AUTHOR,
    "GIT_AUTHOR_EMAIL": _EMAIL,
    "GIT_COMMITTER_NAME": _AUTHOR,
    "GIT_COMMITTER_EMAIL": _EMAIL,
    "HOME": "/nonexistent",
}

_AGENT_NIX = """\
# The system of agent {name}: a NixOS module. Commit a change here, then ask for it to be
# applied; it takes effect once the operator has approved that very commit.
{{ pkgs, ... }}:
{{
  # Programs for the shell of this agent.
  environment.systemPackages = with pkgs; [ ];
}}
"""


@dataclass(frozen=True)
class Repository:
    """Where a repository goes, how open it is, and whose it will be (None: core's own)."""

    place: Path
    mode: int
    owner: int | None


async def make_repository(repository: Repository, agent: str, staging: Path) -> bool:
    """Put a repository with one commit in its place, unless something is there; whether it was made.

    The place is missing or an empty directory. It becomes the whole repository in one rename.
    Raises `CommandFailed`, or `OSError`.
    """
    if _is_filled(repository.place):
        return False
    await asyncio.to_thread(_fresh_directory, staging)
    (staging / "agent.nix").write_text(_AGENT_NIX.format(name=agent))
    for arguments in (
        ["init", "--quiet", f"--initial-branch={BRANCH}"],
        ["add", "--", "agent.nix"],
        ["-c", "core.hooksPath=/dev/null", "commit", "--quiet", f"--message=Agent {agent} begins"],
    ):
        await run(
            ["git", *arguments], timeout_seconds=GIT_SECONDS, environment=GIT_ENVIRONMENT, directory=staging
        )
    if repository.owner is not None:
        give_tree(staging, repository.owner)
    os.chmod(staging, repository.mode)
    os.rename(staging, repository.place)
    return True


def _is_filled(place: Path) -> bool:
    try:
        return any(place.iterdir())
    except FileNotFoundError:
        return False


def _fresh_directory(path: Path) -> None:
    """Empty, also after a crash in the middle; no agent was ever here."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
