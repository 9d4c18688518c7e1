"""Run git in a repository of the host's own: no configuration but ours, limits, and a clean environment.

Never use it in a repository that an agent can write (SECURITY 6). What is given here holds against
whatever the machine's or a user's git is configured to do, and against attributes in a tree.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hive_core.containers.command import Captured, Limits, capture
from hive_core.git import limits
from hive_core.operations import OperationKind, operation
from hive_shared.errors import BadRequest

AUTHOR = "hyperhive"
EMAIL = "hive-c0re@localhost"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git knows it without being told
NO_COMMIT = "0" * 40  # as the expected value of a ref: it must not exist

_SHA = re.compile(r"[0-9a-f]{40}", re.ASCII)

_CONFIGURATION = {
    # Nothing is run that a configuration or a repository could name.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.alternateRefsCommand": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # Nothing is read that changes what is shown.
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.commitGraph": "false",
    # Checks.
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    # Bounded work, within the limits of `_LIMITS`; what was pinned is on the disk.
    "pack.threads": "1",
    "core.deltaBaseCacheLimit": "32m",
    "core.packedGitLimit": "256m",
    "core.fsync": "added,reference",
}

_LIMITS = Limits(
    memory_bytes=limits.GIT_MEMORY_BYTES,
    cpu_seconds=limits.GIT_CPU_SECONDS,
    file_bytes=limits.GIT_FILE_MAX_BYTES,
)


def require_sha(sha: str) -> str:
    """A full SHA-1 commit id, and nothing that git could take for an option or a path; or `BadRequest`."""
    if _SHA.fullmatch(sha):
        return sha
    if re.fullmatch(r"[0-9a-f]{64}", sha, re.ASCII):
        raise BadRequest("a SHA-256 commit id: this hive takes repositories with SHA-1 object names only")
    raise BadRequest("not a commit id: it must be all 40 hexadecimal digits, in lower case")


@dataclass(frozen=True)
class Git:
    """git with this repository, the directory that holds `objects` and `refs`."""

    directory: Path

    async def attempt(
        self,
        *arguments: str,
        given: bytes | Path = b"",
        output_max_bytes: int = limits.GIT_OUTPUT_MAX_BYTES,
        index: Path | None = None,
    ) -> Captured:
        """Run a git command; failing, or printing too much, is a result. Raises as `capture` does.

        It reads `given`: bytes, or a file of core's own. `index` is for commands that write one.
        """
        with _opened(given) as source, operation(OperationKind.GIT, arguments[0]):
            return await capture(
                ["git", *arguments],
                timeout_seconds=limits.GIT_SECONDS,
                output_max_bytes=output_max_bytes,
                limits=_LIMITS,
                given=source,
                environment=self._environment(index),
                directory=self.directory,
            )

    async def run(
        self,
        *arguments: str,
        given: bytes | Path = b"",
        output_max_bytes: int = limits.GIT_OUTPUT_MAX_BYTES,
        index: Path | None = None,
    ) -> bytes:
        """Run a git command and return what it printed; raises `CommandFailed`."""
        captured = await self.attempt(*arguments, given=given, output_max_bytes=output_max_bytes, index=index)
        if captured.exit_code != 0 or captured.cut:
            raise captured.failure()
        return captured.output

    async def line(self, *arguments: str, given: bytes | Path = b"") -> str:
        """As `run`, for a command that prints one word."""
        return (await self.run(*arguments, given=given)).decode("ascii").strip()

    def _environment(self, index: Path | None) -> dict[str, str]:
        return {
            # Named, so that git neither looks for a repository nor reads one's place out of a file.
            "GIT_DIR": str(self.directory),
            "GIT_WORK_TREE": str(self.directory),
            # Attributes also come out of the index and the work tree: there are none.
            "GIT_INDEX_FILE": str(index or self.directory / "no-index"),
            "GIT_ATTR_SOURCE": EMPTY_TREE,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_GRAFT_FILE": str(self.directory / "no-grafts"),
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ADVICE": "0",
            "GIT_AUTHOR_NAME": AUTHOR,
            "GIT_AUTHOR_EMAIL": EMAIL,
            "GIT_COMMITTER_NAME": AUTHOR,
            "GIT_COMMITTER_EMAIL": EMAIL,
            "HOME": "/nonexistent",
            **_configuration(),
        }


@contextmanager
def _opened(given: bytes | Path) -> Iterator[bytes | int]:
    """Bytes as they are; a file of ours as an open descriptor."""
    if isinstance(given, bytes):
        yield given
        return
    with open(given, "rb") as file:
        yield file.fileno()


def _configuration() -> dict[str, str]:
    """As `-c` would give it, but not in every command line that an error shows."""
    numbered = list(enumerate(_CONFIGURATION.items()))
    return {
        "GIT_CONFIG_COUNT": str(len(numbered)),
        **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in numbered},
    }
