"""The look at a pack from outside: real packs pass whole, and nothing else does."""

import hashlib
import os
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_core.git import limits
from hive_core.git.pack import Patience, copy_pack, scan_pack
from hive_core.git.quarantine import CHECKS
from hive_core.git.refusal import CommitRefused
from hive_core.git.repository import lay_out
from tests.support.git_objects import (
    OFFSET_DELTA,
    QUIET,
    REFERENCE_DELTA,
    Workshop,
    entry,
    number,
    pack_of,
    plain_git,
    repeating_delta,
    sealed,
)


def scan(tmp_path: Path, pack: bytes) -> None:
    place = tmp_path / "pack"
    place.write_bytes(pack)
    scan_pack(place, Patience(60))


@pytest.fixture
def real_pack(tmp_path: Path) -> bytes:
    """What git packs: plain objects and deltas of both kinds of base."""
    repository = tmp_path / "real"
    repository.mkdir()
    plain_git(repository, "init", "-q", ".")
    lines = [f"  services.thing{number}.enable = true;\n" for number in range(400)]
    for turn in range(6):
        lines[turn * 50] = f"  # turn {turn}\n"
        (repository / "agent.nix").write_text("".join(lines))
        (repository / "empty").touch()
        plain_git(repository, "add", ".")
        plain_git(repository, "commit", "-q", "-m", f"turn {turn}")
    return plain_git(repository, "pack-objects", "--revs", "--stdout", "--delta-base-offset", given=b"HEAD\n")


def test_what_git_packs_passes(tmp_path: Path, real_pack: bytes) -> None:
    scan(tmp_path, real_pack)
    assert any(byte >> 4 & 7 == OFFSET_DELTA for byte in real_pack)


def test_a_pack_cut_off_anywhere_is_refused(tmp_path: Path, real_pack: bytes) -> None:
    for end in (*range(40), *range(40, len(real_pack), 7), len(real_pack) - 1):
        with pytest.raises(CommitRefused):
            scan(tmp_path, real_pack[:end])


def test_a_pack_that_is_cut_off_and_sealed_again_is_refused(tmp_path: Path, real_pack: bytes) -> None:
    for end in (*range(12, 40), *range(40, len(real_pack) - 20, 7), len(real_pack) - 21):
        with pytest.raises(CommitRefused):
            scan(tmp_path, sealed(real_pack[:end]))


def test_a_changed_byte_anywhere_is_noticed(tmp_path: Path, real_pack: bytes) -> None:
    for at in (*range(40), *range(40, len(real_pack), 5)):
        changed = bytearray(real_pack)
        changed[at] ^= 0x41
        with pytest.raises(CommitRefused):
            scan(tmp_path, bytes(changed))


def test_what_comes_after_the_end_is_refused(tmp_path: Path, real_pack: bytes) -> None:
    with pytest.raises(CommitRefused):
        scan(tmp_path, real_pack + b"x")
    with pytest.raises(CommitRefused, match="bytes behind its last object"):
        scan(tmp_path, sealed(real_pack[:-20] + b"more"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=400), count=st.integers(0, 2**32 - 1))
def test_garbage_is_refused_and_never_crashes(tmp_path: Path, garbage: bytes, count: int) -> None:
    for pack in (garbage, sealed(b"PACK\0\0\0\2" + count.to_bytes(4, "big") + garbage)):
        with pytest.raises(CommitRefused):
            scan(tmp_path, pack)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=200_000) | st.just(bytes(500_000)), min_size=1, max_size=4))
def test_objects_of_any_content_pass(tmp_path: Path, contents: list[bytes]) -> None:
    workshop = Workshop()
    for content in contents:
        workshop.blob(content)
    scan(tmp_path, workshop.pack())


def test_an_object_at_its_largest_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    scan(tmp_path, pack_of([entry(3, bytes(limits.OBJECT_MAX_BYTES))]))
    with pytest.raises(CommitRefused, match=r"object 0 of the pack is 2097153 bytes"):
        scan(tmp_path, pack_of([entry(3, bytes(limits.OBJECT_MAX_BYTES + 1))]))


@pytest.mark.parametrize("said", [0, 99, 101, 2**40])
def test_an_object_that_lies_about_its_size_is_refused(tmp_path: Path, said: int) -> None:
    with pytest.raises(CommitRefused):
        scan(tmp_path, pack_of([entry(3, bytes(100), said=said)]))


@pytest.mark.parametrize("kind", [0, 5])
def test_an_unknown_type_is_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(CommitRefused, match="unknown type"):
        scan(tmp_path, pack_of([entry(kind, b"x")]))


@pytest.mark.parametrize("count", [0, limits.OBJECTS_MAX + 1, 2**32 - 1])
def test_too_many_objects_are_refused_by_the_header_alone(tmp_path: Path, count: int) -> None:
    with pytest.raises(CommitRefused, match="objects; between 1 and 50000 are taken"):
        scan(tmp_path, pack_of([entry(3, b"x")], count=count))


def test_fewer_and_more_objects_than_the_header_says_are_refused(tmp_path: Path) -> None:
    for count in (1, 3):
        with pytest.raises(CommitRefused):
            scan(tmp_path, pack_of([entry(3, b"x"), entry(3, b"y")], count=count))


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommitRefused, match="version 3"):
        scan(tmp_path, pack_of([entry(3, b"x")], version=3))


def test_what_a_delta_makes_counts(tmp_path: Path) -> None:
    base = bytes(60_000)
    first = entry(3, base)
    small = entry(OFFSET_DELTA, repeating_delta(base, 30), before=number(len(first)))
    scan(tmp_path, pack_of([first, small]))
    large = entry(REFERENCE_DELTA, repeating_delta(base, 40), before=bytes(20))
    with pytest.raises(CommitRefused, match="2400000 bytes"):
        scan(tmp_path, pack_of([first, large]))


@pytest.mark.parametrize("delta", [b"", b"\x80", b"\x05", b"\x05" + b"\xff" * 19, b"\xff" * 30])
def test_a_delta_without_sizes_is_refused(tmp_path: Path, delta: bytes) -> None:
    with pytest.raises(CommitRefused, match="a delta has no sizes"):
        scan(tmp_path, pack_of([entry(REFERENCE_DELTA, delta, before=bytes(20))]))


def test_endless_numbers_are_refused(tmp_path: Path) -> None:
    for body in (b"\xb0" + b"\xff" * 200, b"\x60" + b"\xff" * 200):
        with pytest.raises(CommitRefused, match="too many digits"):
            scan(tmp_path, sealed(b"PACK\0\0\0\2\0\0\0\1" + body))


def test_all_objects_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INFLATED_MAX_BYTES", 4 * limits.MIB)
    scan(tmp_path, pack_of([entry(3, bytes(limits.MIB))] * 4))
    with pytest.raises(CommitRefused, match="more than 4 MiB unpacked"):
        scan(tmp_path, pack_of([entry(3, bytes(limits.MIB))] * 4 + [entry(3, b"x")]))


def test_what_deltas_make_counts_among_all_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INFLATED_MAX_BYTES", 4 * limits.MIB)
    base = bytes(limits.KIB)
    mebibyte = entry(REFERENCE_DELTA, repeating_delta(base, 1000), before=bytes(20))
    scan(tmp_path, pack_of([entry(3, base), *[mebibyte] * 4]))
    with pytest.raises(CommitRefused, match="more than 4 MiB unpacked"):
        scan(tmp_path, pack_of([entry(3, base), *[mebibyte] * 5]))


async def test_the_largest_pack_that_is_taken_is_one_that_git_can_work_through(tmp_path: Path) -> None:
    """In the memory and time that it gets."""
    count = limits.INFLATED_MAX_BYTES // limits.OBJECT_MAX_BYTES
    scan(tmp_path, pack_of([entry(3, bytes([n]) * limits.OBJECT_MAX_BYTES) for n in range(count)]))
    git = lay_out(tmp_path / "repository", bare=True)
    assert (await git.attempt("index-pack", "--stdin", *CHECKS, given=tmp_path / "pack")).exit_code == 0


def test_work_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    place = tmp_path / "pack"
    place.write_bytes(pack_of([entry(3, b"x")]))
    patience = Patience(60)
    patience.given_up = True
    with pytest.raises(CommitRefused):
        scan_pack(place, patience)
    with pytest.raises(CommitRefused, match="took longer than 0 seconds"):
        scan_pack(place, Patience(0))


def test_a_file_that_grows_while_it_is_copied_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX_BYTES", 1000)
    source = tmp_path / "source"
    source.write_bytes(bytes(1001))  # `open_pack` saw less
    descriptor = os.open(source, os.O_RDONLY)
    with pytest.raises(CommitRefused, match="the pack is larger than"):
        copy_pack(descriptor, tmp_path / "copy", Patience(60))
    os.close(descriptor)


def test_packs_made_by_hand_are_packs_to_git(tmp_path: Path) -> None:
    """What the attacks are made with is what git reads."""
    workshop = Workshop()
    workshop.commit_of()
    base = b"0123456789" * 100
    first = entry(3, base)
    grown = repeating_delta(base, 3)
    pack = pack_of([first, entry(REFERENCE_DELTA, grown, before=_sha("blob", base)), *workshop.entries()])
    (tmp_path / "hand.pack").write_bytes(pack)
    scan(tmp_path, pack)
    done = subprocess.run(
        ["git", "index-pack", "--strict", str(tmp_path / "hand.pack")],
        env=QUIET, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert zlib.decompress(first[2:]) == base


def _sha(kind: str, data: bytes) -> bytes:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).digest()
