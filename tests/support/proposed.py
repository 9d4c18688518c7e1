"""Proposed repositories for tests, made by the real git as a manager would."""

import os
import subprocess
from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "hm1nd",
    "GIT_AUTHOR_EMAIL": "hm1nd@hive",
    "GIT_COMMITTER_NAME": "hm1nd",
    "GIT_COMMITTER_EMAIL": "hm1nd@hive",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(directory: Path, *arguments: str, given: bytes | None = None) -> str:
    """What git prints in `directory`, with its configuration in effect; fails if git does."""
    finished = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **IDENTITY},
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0, f"git {arguments}: {finished.stderr.decode(errors='replace')}"
    return finished.stdout.decode().strip()


def make_repository(path: Path, *options: str) -> Path:
    """An empty repository with the branch main."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main", *options)
    return path


def commit(path: Path, message: str = "change", **files: str) -> str:
    """Write `files` (`agent_nix` is agent.nix), commit everything; the new commit's sha."""
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    git(path, "add", "-A")
    git(path, "commit", "-q", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")


def unpacked(pack: bytes, place: Path) -> Path:
    """An empty repository into which the pack alone was put; fails if the pack needs anything else."""
    repository = make_repository(place)
    git(repository, "index-pack", "--strict", "--stdin", given=pack)
    return repository
