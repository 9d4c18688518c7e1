"""Packs as an attacker makes them, and what lies where a pack should be (SECURITY 6, SPEC section 6).

Where it is cheap, the guard is taken out for a moment, to see that the attack would succeed.
"""

import hashlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from hive_core.config_repo import CommitRefused, open_pack
from hive_core.containers.command import Limits
from hive_core.git import limits, program, quarantine, repository
from hive_core.git.program import Git
from tests.support.git_objects import (
    DIRECTORY,
    FILE,
    MODULE,
    OFFSET_DELTA,
    REFERENCE_DELTA,
    Hive,
    Workshop,
    entry,
    number,
    pack_of,
    plain_git,
    repeating_delta,
    sealed,
)

NAME = f"submit-{'0' * 32}.pack"


@pytest.fixture
async def hive(tmp_path: Path) -> Hive:
    return await Hive.at(tmp_path)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A directory of an agent's, in which its harness puts packs."""
    place = tmp_path / "run"
    place.mkdir()
    return place


def applied(hive: Hive) -> Git:
    return Git(hive.paths.applied("alice") / ".git")


async def has_object(hive: Hive, sha: str) -> bool:
    return await repository.type_of(applied(hive), sha) is not None


async def refused(hive: Hive, pack: bytes, sha: str) -> str:
    """The refusal of a submit that left nothing behind."""
    before = hive.applied_git("count-objects", "-v"), hive.applied_git("for-each-ref")
    with pytest.raises(CommitRefused) as refusal:
        await hive.submit(pack, sha)
    assert (hive.applied_git("count-objects", "-v"), hive.applied_git("for-each-ref")) == before
    assert hive.leftovers() == []
    assert refusal.value.message.replace("…", "").isprintable()
    return refusal.value.message


def without_scan(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quarantine, "scan_pack", lambda place, pause: None)


def without_rules(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repository, "check_tree", lambda entries: None)


# --- what lies where the pack should be ------------------------------------------


def test_a_link_is_not_followed(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    (run_dir / NAME).symlink_to(secret)
    with pytest.raises(CommitRefused, match="cannot be opened"):
        open_pack(run_dir, NAME)
    monkeypatch.setattr(quarantine, "_open_beneath", lambda where, name: os.open(where / name, os.O_RDONLY))
    descriptor = open_pack(run_dir, NAME)
    assert os.read(descriptor, 100) == b"of the host"  # without the guard, core reads what it should not
    os.close(descriptor)


def test_a_link_in_the_place_of_the_directory_is_not_followed(run_dir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / NAME).write_bytes(b"x")
    run_dir.rmdir()
    run_dir.symlink_to(elsewhere)
    with pytest.raises(CommitRefused, match="cannot be opened"):
        open_pack(run_dir, NAME)


def test_pipes_sockets_directories_and_devices_are_neither_waited_for_nor_read(run_dir: Path) -> None:
    """Opening a pipe that nobody writes to would hang core: the test would not come back."""
    place = run_dir / NAME
    listener = socket.socket(socket.AF_UNIX)
    makers = [lambda: os.mkfifo(place), place.mkdir]
    if len(str(place)) < 100:
        makers.append(lambda: listener.bind(str(place)))
    if os.geteuid() == 0:
        makers.append(lambda: os.mknod(place, 0o20600, os.makedev(1, 5)))  # /dev/zero
    for make in makers:
        make()
        with pytest.raises(CommitRefused, match=r"not a regular file|cannot be opened"):
            open_pack(run_dir, NAME)
        place.rmdir() if place.is_dir() else place.unlink()
    listener.close()


def test_a_huge_sparse_file_costs_nothing(run_dir: Path) -> None:
    with open(run_dir / NAME, "wb") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(CommitRefused, match=r"10737418240 bytes; at most 32 MiB"):
        open_pack(run_dir, NAME)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "submit-0.pack", NAME + "\n", "mcp.sock", NAME.upper(), "", f"./{NAME}", "..\0"],
)  # fmt: skip
def test_only_names_that_the_harness_makes_are_opened(run_dir: Path, name: str) -> None:
    with pytest.raises(CommitRefused, match="not the name of a submitted pack"):
        open_pack(run_dir, name)


def test_a_refusal_leaves_no_descriptor_open(run_dir: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.mkfifo(run_dir / NAME)
    for _ in range(10):
        with pytest.raises(CommitRefused):
            open_pack(run_dir, NAME)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_what_is_checked_is_a_copy_that_the_agent_cannot_change_afterwards(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = Workshop(), Workshop()
    sha = good.commit_of()
    bad.blob(bytes(20 * limits.MIB))
    name = hive.put(good.pack())
    real = quarantine.scan_pack

    def changed_meanwhile(place: Path, pause: object) -> None:
        real(place, pause)  # type: ignore[arg-type]
        (hive.run_dir / name).write_bytes(bad.pack())

    monkeypatch.setattr(quarantine, "scan_pack", changed_meanwhile)
    descriptor = open_pack(hive.run_dir, name)
    assert (await hive.repo.receive("alice", descriptor, sha)).sha == sha
    os.close(descriptor)


# --- bombs -----------------------------------------------------------------------


def history_with(workshop: Workshop, blob: str) -> str:
    """A commit that is fine, whose parent holds `blob`."""
    parent = workshop.commit_of((FILE, b"bomb", blob))
    return workshop.commit(workshop.tree((FILE, b"agent.nix", workshop.blob())), parents=[parent])


async def test_a_small_pack_with_a_huge_object_is_not_unpacked(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop()
    bomb = workshop.blob(bytes(48 * limits.MIB))
    sha = history_with(workshop, bomb)
    assert len(workshop.pack()) < 64 * limits.KIB
    assert "50331648 bytes; at most 2097152 are taken" in await refused(hive, workshop.pack(), sha)
    with monkeypatch.context() as patch:
        without_scan(patch)
        await hive.submit(workshop.pack(), sha)
        assert await has_object(hive, bomb)  # 48 MiB for some kilobytes; 10 GB go the same way


async def test_a_huge_object_that_lies_about_its_size_is_not_unpacked(hive: Hive) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    liar = entry(3, bytes(48 * limits.MIB), said=100)
    assert "larger than it says" in await refused(hive, pack_of([liar, *workshop.entries()]), sha)


async def test_a_delta_that_multiplies_is_not_resolved(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop()
    base = os.urandom(1000) * 60
    small = workshop.blob(base)
    big = hashlib.sha1(b"blob %d\0" % (len(base) * 800) + base * 800).hexdigest()
    parent = workshop.commit_of((FILE, b"base", small), (FILE, b"big", big))
    sha = workshop.commit(workshop.tree((FILE, b"agent.nix", workshop.blob())), parents=[parent])
    delta = entry(REFERENCE_DELTA, repeating_delta(base, 800), before=bytes.fromhex(small))
    pack = pack_of([*workshop.entries(), delta])
    assert "48000000 bytes; at most 2097152 are taken" in await refused(hive, pack, sha)
    with monkeypatch.context() as patch:
        without_scan(patch)
        await hive.submit(pack, sha)
        assert await has_object(hive, big)


async def test_many_objects_within_the_limit_each_are_bounded_together(hive: Hive) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    count = limits.INFLATED_MAX_BYTES // limits.OBJECT_MAX_BYTES + 1
    full = entry(3, bytes(limits.OBJECT_MAX_BYTES))
    assert "more than 256 MiB unpacked" in await refused(
        hive, pack_of([full] * count + workshop.entries()), sha
    )


async def test_a_million_objects_are_refused_by_number(hive: Hive) -> None:
    empty = entry(3, b"")
    message = await refused(hive, pack_of([empty] * 1_000_000), "1" * 40)
    assert "the pack has 1000000 objects; between 1 and 50000" in message


async def test_the_most_objects_that_are_taken_can_be_worked_through(hive: Hive) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    many = [entry(3, b"%d" % n) for n in range(limits.OBJECTS_MAX - 3)]
    assert (await hive.submit(pack_of([*many, *workshop.entries()]), sha)).sha == sha


def repeating_tree(workshop: Workshop, leaf: str, mode: str, levels: int = 10) -> str:
    """A tree of 10 entries, each the same tree of 10 entries …: 10 objects, ten to the tenth paths."""
    tree = workshop.tree(*((mode, b"%d" % n, leaf) for n in range(10)))
    for _ in range(levels - 1):
        tree = workshop.tree(*((DIRECTORY, b"%d" % n, tree) for n in range(10)))
    return tree


@pytest.mark.parametrize("leaf", ["file", "empty directory"])
async def test_a_tree_that_repeats_itself_is_not_walked_to_its_end(hive: Hive, leaf: str) -> None:
    workshop = Workshop()
    ends = workshop.blob() if leaf == "file" else workshop.tree()
    top = repeating_tree(workshop, ends, FILE if leaf == "file" else DIRECTORY)
    sha = workshop.commit_of((DIRECTORY, b"d", top))
    message = await refused(hive, workshop.pack(), sha)
    assert "more than 200 " in message or "nested deeper than 10" in message
    # What git itself would do: with a limit on its output it is ended, without one it writes for days.
    (hive.paths.state_root / "hand").write_bytes(workshop.pack())
    plain_git(hive.paths.applied("alice"), "index-pack", "--stdin", given=workshop.pack())
    listed = await applied(hive).attempt("ls-tree", "-r", "-t", sha, output_max_bytes=5 * limits.MIB)
    assert listed.cut


async def test_trees_nested_thousands_deep_are_refused(hive: Hive) -> None:
    workshop = Workshop()
    tree = workshop.tree((FILE, b"x", workshop.blob()))
    for _ in range(40_000):
        tree = workshop.tree((DIRECTORY, b"d", tree))
    sha = workshop.commit_of((DIRECTORY, b"d", tree))
    assert await refused(hive, workshop.pack(), sha)


async def test_a_chain_of_ten_thousand_deltas_is_worked_through_or_refused(hive: Hive) -> None:
    """Each builds on the one before; git must not need a level of its stack for each."""
    workshop = Workshop()
    sha = workshop.commit_of()
    content = b"x" * 40
    entries = [entry(3, content)]
    for n in range(10_000):
        said = number(len(content)) + number(len(content)) + bytes([40]) + b"%040d" % n
        entries.append(entry(OFFSET_DELTA, said, before=_distance(len(entries[-1]))))
    assert (await hive.submit(pack_of([*entries, *workshop.entries()]), sha)).sha == sha


def _distance(value: int) -> bytes:
    """How far back the base of an offset delta is, as git writes it."""
    parts = [value & 0x7F]
    while value := value >> 7:
        value -= 1
        parts.append(0x80 | value & 0x7F)
    return bytes(reversed(parts))


async def test_a_long_history_is_taken(hive: Hive) -> None:
    workshop = Workshop()
    tree = workshop.tree((FILE, b"agent.nix", workshop.blob()))
    sha = workshop.commit(tree)
    for n in range(20_000):
        sha = workshop.commit(tree, parents=[sha], message=b"%d\n" % n)
    assert (await hive.submit(workshop.pack(), sha)).message == "19999"


# --- broken and dishonest packs ------------------------------------------------------


async def test_a_thin_pack_borrows_nothing(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delta on an object of the host's: whoever resolves it learns whether the host has it."""
    base = (hive.paths.applied("alice") / "agent.nix").read_bytes()
    known = hashlib.sha1(b"blob %d\0" % len(base) + base).hexdigest()
    workshop = Workshop()
    grown = hashlib.sha1(b"blob %d\0" % (2 * len(base)) + base * 2).hexdigest()
    sha = workshop.commit(workshop.tree((FILE, b"agent.nix", grown)))
    delta = entry(REFERENCE_DELTA, repeating_delta(base, 2), before=bytes.fromhex(known))
    pack = pack_of([*workshop.entries(), delta])
    assert "not whole" in await refused(hive, pack, sha)
    # Taken straight into the applied repository with --fix-thin, it would have worked.
    plain_git(hive.paths.applied("alice"), "index-pack", "--stdin", "--fix-thin", "--strict", given=pack)
    assert await has_object(hive, sha)


@pytest.mark.parametrize("missing", ["blob", "tree", "parent"])
async def test_a_commit_with_something_missing_is_refused_also_if_the_host_has_it(
    hive: Hive, missing: str
) -> None:
    whole = Workshop()
    parent = whole.commit_of(message=b"parent\n")
    blob = whole.blob(b"the host has this\n")
    tree = whole.tree((FILE, b"agent.nix", whole.blob()), (FILE, b"b", blob))
    sha = whole.commit(tree, parents=[parent])
    gone = {"blob": blob, "tree": tree, "parent": parent}[missing]
    part = Workshop({name: value for name, value in whole.objects.items() if name != gone})
    assert await refused(hive, part.pack(), sha)
    plain_git(hive.paths.applied("alice"), "index-pack", "--stdin", given=whole.pack())
    with pytest.raises(CommitRefused):
        await hive.submit(part.pack(), sha)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pack: pack[:-1],
        lambda pack: pack[: len(pack) // 2],
        lambda pack: pack + b"x",
        lambda pack: sealed(pack[:-20] + b"trailing"),
        lambda pack: sealed(pack[: len(pack) // 2]),
        lambda pack: pack[:30] + bytes([pack[30] ^ 1]) + pack[31:],
        lambda pack: pack[:-20] + bytes(20),
        lambda pack: b"",
        lambda pack: b"PACK",
        lambda pack: b"# v2 git bundle\n" + pack,
        lambda pack: pack[:4] + b"\0\0\0\3" + pack[8:],
    ],
)  # fmt: skip
async def test_a_spoilt_pack_is_refused(hive: Hive, spoil: object) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    assert callable(spoil)
    assert await refused(hive, spoil(workshop.pack()), sha)


async def test_deltas_that_rest_on_each_other_are_refused(hive: Hive) -> None:
    one = entry(REFERENCE_DELTA, number(10) + number(10) + b"\x8a\x0a"[:1] + b"\x0a", before=b"\x02" * 20)
    two = entry(REFERENCE_DELTA, number(10) + number(10) + b"\x8a\x0a"[:1] + b"\x0a", before=b"\x01" * 20)
    workshop = Workshop()
    sha = workshop.commit_of()
    assert await refused(hive, pack_of([one, two, *workshop.entries()]), sha)


async def test_the_named_object_must_be_a_commit_in_the_pack(hive: Hive) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    tag = workshop.add("tag", b"object %s\ntype commit\ntag v1\ntagger A <a> 1 +0000\n\nx\n" % sha.encode())
    blob = workshop.blob()
    tree = next(name for name, (kind, _) in workshop.objects.items() if kind == "tree")
    for other, kind in ((tag, "tag"), (blob, "blob"), (tree, "tree")):
        assert f"a {kind}, not a commit" in await refused(hive, workshop.pack(), other)
    assert "not in the pack" in await refused(hive, workshop.pack(), "1" * 40)
    first = await hive.repo.running("alice")
    assert first is not None
    assert (await hive.submit(workshop.pack(), first)).sha == first  # it has been checked and is there


async def test_the_same_object_many_times_over_is_harmless(hive: Hive) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    try:
        assert (await hive.submit(pack_of(workshop.entries() * 50), sha)).sha == sha
    except CommitRefused:
        assert hive.leftovers() == []
    assert hive.applied_git("fsck", "--strict", "--full") == b""


async def test_git_runs_within_limits(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the scan to miss something, the kernel ends git: here by the size of its files."""
    workshop = Workshop()
    sha = workshop.commit_of((FILE, b"noise", workshop.blob(os.urandom(100 * limits.KIB))))
    little = Limits(memory_bytes=limits.GIT_MEMORY_BYTES, cpu_seconds=5, file_bytes=50 * limits.KIB)
    with monkeypatch.context() as patch:
        patch.setattr(program, "_LIMITS", little)
        assert await refused(hive, workshop.pack(), sha)
    assert (await hive.submit(workshop.pack(), sha)).sha == sha


def test_the_objects_of_these_attacks_are_what_git_takes_them_for(tmp_path: Path) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    plain_git(tmp_path, "init", "-q", ".")
    plain_git(tmp_path, "index-pack", "--stdin", "--strict", given=workshop.pack())
    assert plain_git(tmp_path, "show", f"{sha}:agent.nix") == MODULE
    assert subprocess.run(["git", "--version"], capture_output=True).returncode == 0
