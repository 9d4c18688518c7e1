"""What a manager does in an agent's proposed repository, done by hand: edit, commit, pack."""

import os
import secrets
import subprocess
from pathlib import Path

from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths

QUIET = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Manager",
    "GIT_AUTHOR_EMAIL": "hm1nd@localhost",
    "GIT_COMMITTER_NAME": "Manager",
    "GIT_COMMITTER_EMAIL": "hm1nd@localhost",
}


def git(directory: Path, *arguments: str, given: bytes = b"") -> bytes:
    """git as the manager runs it there; fails loudly. The directory may be another user's."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=directory, env=QUIET, input=given, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout


def commit(paths: HostPaths, agent: str, text: str, message: str = "A change") -> str:
    """Commit `text` as the agent's `agent.nix`; the sha."""
    repository = paths.config(agent)
    (repository / "agent.nix").write_text(text)
    git(repository, "commit", "--quiet", "--all", "--allow-empty", f"--message={message}")
    return git(repository, "rev-parse", "HEAD").decode().strip()


def pack(paths: HostPaths, agent: str, sha: str, *, by: str = MANAGER) -> str:
    """Put a pack of the commit and its history into the socket directory of `by`; the file's name."""
    content = git(
        paths.config(agent), "pack-objects", "--revs", "--stdout", "--quiet", given=f"{sha}\n".encode()
    )
    place = paths.run_dir(by) / f"submit-{secrets.token_hex(16)}.pack"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place.name


def main_of(paths: HostPaths, agent: str) -> str:
    """What the agent runs, as its applied repository says."""
    return git(paths.applied(agent), "rev-parse", "refs/heads/main").decode().strip()


def tags_of(paths: HostPaths, agent: str) -> dict[str, str]:
    """Tag → commit."""
    shown = "--format=%(refname:short) %(objectname) %(*objectname)"
    listed = git(paths.applied(agent), "for-each-ref", shown, "refs/tags")
    rows = [line.split() for line in listed.decode().splitlines()]
    return {row[0]: row[-1] for row in rows}
