"""Git objects and packs made by hand, as no git would make them; and a hive to submit them to."""

import hashlib
import os
import secrets
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hive_core.config_repo import Commit, ConfigRepo, open_pack
from hive_shared.paths import HostPaths

KINDS = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}
OFFSET_DELTA = 6
REFERENCE_DELTA = 7
FILE, PROGRAM, DIRECTORY, LINK, SUBMODULE = "100644", "100755", "40000", "120000", "160000"
PERSON = b"Mallory <mallory@example.org> 1700000000 +0000"
MODULE = b"{ ... }: { }\n"

# What git does here does not depend on who runs the tests.
QUIET = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Mallory",
    "GIT_AUTHOR_EMAIL": "mallory@example.org",
    "GIT_COMMITTER_NAME": "Mallory",
    "GIT_COMMITTER_EMAIL": "mallory@example.org",
}


def plain_git(directory: Path, *arguments: str, given: bytes = b"") -> bytes:
    """git as anyone would run it there, with that repository's configuration in effect; fails loudly."""
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=QUIET, input=given, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout


@dataclass
class Workshop:
    """Makes objects and remembers them, in order; `pack` packs all of them."""

    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, kind: str, data: bytes) -> str:
        sha = hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()
        self.objects[sha] = (kind, data)
        return sha

    def blob(self, data: bytes = MODULE) -> str:
        return self.add("blob", data)

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree with these entries in this order: mode, name, object."""
        return self.add("tree", b"".join(tree_entry(*entry) for entry in entries))

    def commit(
        self, tree: str, *, message: bytes = b"a change\n", parents: Sequence[str] = (), who: bytes = PERSON
    ) -> str:
        heads = b"".join(b"parent %s\n" % parent.encode() for parent in parents)
        return self.add(
            "commit",
            b"tree %s\n%sauthor %s\ncommitter %s\n\n%s" % (tree.encode(), heads, who, PERSON, message),
        )

    def commit_of(self, *more: tuple[str, bytes, str], message: bytes = b"a change\n") -> str:
        """A commit with `agent.nix` and these entries at its top, in git's order."""
        entries = sorted([(FILE, b"agent.nix", self.blob()), *more], key=_as_git_sorts)
        return self.commit(self.tree(*entries), message=message)

    def entries(self) -> list[bytes]:
        return [entry(KINDS[kind], data) for kind, data in self.objects.values()]

    def pack(self) -> bytes:
        return pack_of(self.entries())


def tree_entry(mode: str, name: bytes, sha: str) -> bytes:
    return b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(sha))


def _as_git_sorts(item: tuple[str, bytes, str]) -> bytes:
    return item[1] + (b"/" if item[0] == DIRECTORY else b"")


def entry(kind: int, data: bytes, *, before: bytes = b"", said: int | None = None) -> bytes:
    """One object of a pack; `before` is what a delta has in front of its data, `said` its claimed size."""
    size = len(data) if said is None else said
    header = bytearray()
    byte = (kind << 4) | (size & 15)
    size >>= 4
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    header.append(byte)
    return bytes(header) + before + zlib.compress(data)


def number(value: int) -> bytes:
    """As in the header of a delta."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def repeating_delta(base: bytes, times: int) -> bytes:
    """A delta that makes `base`, of at most 64 KiB, `times` times over."""
    size = len(base)
    copy = bytes([0x80 | 0x10 | 0x20, size & 0xFF, size >> 8 & 0xFF]) if size < 0x10000 else b"\x80"
    return number(size) + number(size * times) + copy * times


def pack_of(entries: Sequence[bytes], *, count: int | None = None, version: int = 2) -> bytes:
    counted = len(entries) if count is None else count
    body = b"PACK" + version.to_bytes(4, "big") + counted.to_bytes(4, "big") + b"".join(entries)
    return sealed(body)


def sealed(body: bytes) -> bytes:
    """With the checksum at its end."""
    return body + hashlib.sha1(body).digest()


@dataclass
class Hive:
    """The repositories of a hive, and the directory that the manager's harness writes packs to."""

    paths: HostPaths
    repo: ConfigRepo

    @classmethod
    async def at(cls, root: Path, agents: Iterable[str] = ("alice",)) -> "Hive":
        hive = cls(HostPaths.under(root), ConfigRepo(HostPaths.under(root)))
        hive.run_dir.mkdir(parents=True)
        for agent in agents:
            await hive.repo.create(agent)
            await hive.repo.create_proposed(agent, None)
        return hive

    @property
    def run_dir(self) -> Path:
        return self.paths.run_dir("hm1nd")

    def put(self, pack: bytes) -> str:
        name = f"submit-{secrets.token_hex(16)}.pack"
        (self.run_dir / name).write_bytes(pack)
        return name

    async def submit(self, pack: bytes, sha: str, agent: str = "alice") -> Commit:
        """As core does it: open what the harness wrote, and take it."""
        name = self.put(pack)
        descriptor = open_pack(self.run_dir, name)
        try:
            return await self.repo.receive(agent, descriptor, sha)
        finally:
            os.close(descriptor)

    def leftovers(self) -> list[Path]:
        """What is left of quarantines and of what was being made."""
        return list((self.paths.state_root / "staging").iterdir())

    def applied_git(self, *arguments: str, agent: str = "alice") -> bytes:
        return plain_git(self.paths.applied(agent), *arguments)
