"""The repositories an agent begins with: a proposed one and an applied one, each with `agent.nix`.

Both are made in a directory that no agent can see and are then moved into place whole. After that no
git ever runs in the proposed one: from then on it is hostile input (SECURITY 6).
"""

import asyncio
import os
import shutil
from pathlib import Path

from hive_core.containers.command import run

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


async def make_repository(place: Path, agent: str, staging: Path) -> bool:
    """Put a repository with one commit at `place`, unless something is there; whether it was made.

    `place` is missing or an empty directory. It becomes the whole repository in one rename.
    Raises `CommandFailed`, or `OSError`.
    """
    if _is_filled(place):
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
    os.chmod(staging, 0o700)
    os.rename(staging, place)
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
