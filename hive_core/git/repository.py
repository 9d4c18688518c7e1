"""A repository of the host's own, in plumbing: what it holds, its refs, and new objects.

Every argument that came from outside is a full sha by now; every tree that is read passes the rules again.
"""

from dataclasses import dataclass
from pathlib import Path

from hive_core.git import limits
from hive_core.git.commit import Commit, parse_commit
from hive_core.git.program import Git
from hive_core.git.tree import Entry, check_tree, parse_listing

MAIN = "refs/heads/main"
IMPORTED = "refs/hive/imported"  # one for each commit that passed; keeps it from ever being pruned
TAGS = "refs/tags"

_LISTING_MAX_BYTES = limits.MIB  # more than 400 entries of at most 512 bytes need
_BLOB_HEADER_BYTES = 64
_CONFIGURATION = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tlogallrefupdates = true
\tbare = {bare}
"""


@dataclass(frozen=True)
class File:
    """One file of a configuration."""

    data: bytes
    executable: bool


def lay_out(directory: Path, *, bare: bool, more: str = "") -> Git:
    """An empty repository, the same whatever git would make by default: SHA-1, refs as files.

    `more` goes into its configuration.
    """
    for part in ("objects/pack", "objects/info", "refs/heads", "refs/tags"):
        (directory / part).mkdir(parents=True)
    (directory / "HEAD").write_text(f"ref: {MAIN}\n")
    (directory / "config").write_text(_CONFIGURATION.format(bare=str(bare).lower()) + more)
    return Git(directory)


async def type_of(git: Git, sha: str) -> str | None:
    """What object that is, or None if it is not there."""
    captured = await git.attempt("cat-file", "-t", sha)
    return captured.output.decode("ascii").strip() if captured.exit_code == 0 else None


async def commits_among(git: Git, shas: list[str]) -> list[str]:
    """Those that are there and are commits."""
    output = await git.run(
        "cat-file",
        "--batch-check=%(objectname) %(objecttype)",
        given="".join(f"{s}\n" for s in shas).encode(),
    )
    pairs = (line.split() for line in output.decode("ascii").splitlines())
    return [sha for sha, kind in pairs if kind == "commit"]


async def read_commit(git: Git, sha: str) -> Commit:
    """Raises `CommandFailed` if there is no such commit."""
    content = await git.run("cat-file", "commit", sha, output_max_bytes=limits.OBJECT_MAX_BYTES)
    return parse_commit(sha, content)


async def list_tree(git: Git, sha: str) -> list[Entry]:
    """The entries of a commit's tree, which has passed the rules; raises `CommitRefused`.

    A tree that repeats itself would list for ever, so directories are listed too, and the list is cut.
    """
    captured = await git.attempt(
        "ls-tree", "-r", "-t", "-z", "-l", "--full-tree", sha, output_max_bytes=_LISTING_MAX_BYTES
    )
    if captured.cut:
        whole, _, _ = captured.output.rpartition(b"\0")
        check_tree(parse_listing(whole))  # refuses it by a rule that has a name, if there is one
    if captured.cut or captured.exit_code != 0:
        raise captured.failure()
    entries = list(parse_listing(captured.output))
    check_tree(entries)
    return [entry for entry in entries if not entry.is_directory]


async def read_files(git: Git, entries: list[Entry]) -> dict[str, File]:
    """The contents of those entries, as they are stored: no filter, no attribute."""
    room = sum(entry.size for entry in entries) + _BLOB_HEADER_BYTES * len(entries)
    output = await git.run(
        "cat-file",
        "--batch",
        given="".join(f"{entry.oid}\n" for entry in entries).encode(),
        output_max_bytes=room,
    )
    files = {}
    at = 0
    for entry in entries:
        start = output.index(b"\n", at) + 1
        at = start + entry.size + 1
        files[entry.name] = File(output[start : start + entry.size], entry.is_executable)
    return files


async def ref(git: Git, name: str) -> str | None:
    """What a ref, by its full name, points to."""
    captured = await git.attempt("show-ref", "--verify", "--hash", name)
    return captured.output.decode("ascii").strip() if captured.exit_code == 0 else None


async def peeled_tags(git: Git) -> dict[str, str]:
    """Tag name → the commit that it, or its annotation, names."""
    output = await git.run(
        "for-each-ref", "--format=%(refname:strip=2) %(objectname) %(*objectname)", TAGS,
        output_max_bytes=8 * limits.MIB,
    )  # fmt: skip
    lines = (line.split() for line in output.decode("utf-8").splitlines())
    return {name: shas[-1] for name, *shas in lines}


async def pinned(git: Git) -> list[str]:
    """The commits that are here whole: every one that was ever imported."""
    output = await git.run(
        "for-each-ref", "--format=%(objectname)", f"{IMPORTED}/", output_max_bytes=8 * limits.MIB
    )
    return output.decode("ascii").split()


async def first_commit(git: Git, name: str, content: bytes, message: str) -> str:
    """A root commit with one file, and `main` at it."""
    blob = await git.line("hash-object", "-w", "--stdin", given=content)
    tree = await git.line("mktree", given=f"100644 blob {blob}\t{name}\n".encode())
    sha = await git.line("commit-tree", tree, given=f"{message}\n".encode())
    await git.run("update-ref", MAIN, sha)
    return sha


async def copy_history(source: Git, sha: str, known: list[str], target: Git, work: Path) -> None:
    """Bring a commit and all it is made of from one repository into another that has `known` whole.

    The target gets just those objects and nothing else that the source may hold.
    """
    wanted = "".join(f"{line}\n" for line in (sha, *(f"^{other}" for other in known)))
    name = await source.line(
        "pack-objects", "--revs", "--quiet", "--non-empty", str(work / "copied"), given=wanted.encode()
    )
    if name:
        await target.run("index-pack", "--stdin", "--strict", given=work / f"copied-{name}.pack")
