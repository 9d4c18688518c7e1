"""A diff against what git itself says, for contents that look like the marks of a diff."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_core.git import limits
from hive_core.git.diff import BINARY, DiffTooLarge, DiffUnreadable, changes, file_diffs, patch
from hive_core.git.program import EMPTY_TREE, Git
from hive_core.git.repository import lay_out
from hive_shared.wire import FileDiff
from tests.support.git_objects import DIRECTORY, FILE, PROGRAM, Workshop

Content = dict[bytes, bytes]


def git_at(tmp_path: Path) -> Git:
    place = tmp_path / "repository"
    return Git(place) if place.exists() else lay_out(place, bare=True)


async def compared(tmp_path: Path, before: Content | None, after: Content) -> list[FileDiff]:
    """The diff of two trees of files, at the top."""
    workshop = Workshop()

    def tree(content: Content) -> str:
        return workshop.tree(*((FILE, name, workshop.blob(data)) for name, data in sorted(content.items())))

    old, new = None if before is None else tree(before), tree(after)
    return await of_trees(tmp_path, workshop, old, new)


async def of_trees(tmp_path: Path, workshop: Workshop, old: str | None, new: str) -> list[FileDiff]:
    git = git_at(tmp_path)
    subprocess.run(
        ["git", "-C", str(git.directory), "index-pack", "--stdin"],
        input=workshop.pack(), check=True, capture_output=True,
    )  # fmt: skip
    return file_diffs(await changes(git, old, new), await patch(git, old, new))


async def test_added_deleted_and_modified_files_with_their_counts(tmp_path: Path) -> None:
    added, gone, same = await compared(
        tmp_path, {b"b": b"1\n2\n", b"c": b"x\ny\nz\n"}, {b"a": b"new\n", b"c": b"x\nY\nz\nw\n"}
    )
    assert added == FileDiff(path="a", change="added", added=1, text="@@ -0,0 +1 @@\n+new\n")
    assert gone == FileDiff(path="b", change="deleted", deleted=2, text="@@ -1,2 +0,0 @@\n-1\n-2\n")
    assert same == FileDiff(
        path="c", change="modified", added=2, deleted=1, text="@@ -1,3 +1,4 @@\n x\n-y\n+Y\n z\n+w\n"
    )


async def test_from_nothing_everything_is_added(tmp_path: Path) -> None:
    files = await compared(tmp_path, None, {b"a": b"1\n", b"empty": b""})
    assert [(file.path, file.change, file.added) for file in files] == [
        ("a", "added", 1),
        ("empty", "added", 0),
    ]


async def test_modes_are_shown(tmp_path: Path) -> None:
    workshop = Workshop()
    blob = workshop.blob()
    inner = workshop.tree((FILE, b"x", blob))
    old = workshop.tree((FILE, b"a", blob), (FILE, b"gone", blob))
    new = workshop.tree((PROGRAM, b"a", blob), (PROGRAM, b"b", blob), (DIRECTORY, b"d", inner))
    files = await of_trees(tmp_path, workshop, old, new)
    assert [(file.path, file.mode) for file in files] == [
        ("a", "100644 → 100755"),
        ("b", "100755"),
        ("d/x", ""),
        ("gone", ""),
    ]


async def test_lines_that_look_like_headers_are_lines(tmp_path: Path) -> None:
    liar = b"-- a/x\n++ b/x\ndiff --git a/y b/y\n@@ -1 +1 @@\n\\ No newline at end of file\n"
    one, two = await compared(tmp_path, {b"a": b"old\n", b"z": b"1\n"}, {b"a": liar, b"z": b"2\n"})
    assert (one.added, one.deleted, one.path) == (5, 1, "a")
    assert one.text == "@@ -1 +1,5 @@\n-old\n" + "".join(f"+{line}\n" for line in liar.decode().splitlines())
    assert (two.added, two.deleted, two.path) == (1, 1, "z")
    other, _ = await compared(tmp_path, {b"a": liar, b"z": b"1\n"}, {b"a": b"old\n", b"z": b"2\n"})
    assert (other.added, other.deleted) == (1, 5)


async def test_a_missing_last_line_end_is_told(tmp_path: Path) -> None:
    (only,) = await compared(tmp_path, {b"a": b"x"}, {b"a": b"y"})
    assert only.text == ("@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n\\ No newline at end of file\n")
    assert (only.added, only.deleted) == (1, 1)


async def test_bytes_that_are_no_text_do_not_hide_the_rest(tmp_path: Path) -> None:
    (only,) = await compared(
        tmp_path, {b"a": b"x\n"}, {b"a": b"\xff\xfe\nevil = 1;\r\nmore\x0c\xe2\x80\xa8\n"}
    )
    assert only.text == "@@ -1 +1,3 @@\n-x\n+\\xff\\xfe\n+evil = 1;\r\n+more\x0c\u2028\n"
    assert only.added == 3


async def test_what_has_a_nul_is_said_to_be_no_text(tmp_path: Path) -> None:
    (only,) = await compared(tmp_path, None, {b"a": b"\x7fELF\0\0\0\n" * 50})
    assert (only.text, only.added, only.truncated) == (BINARY, 0, False)


async def test_a_long_file_is_truncated_and_counted_whole(tmp_path: Path) -> None:
    (only,) = await compared(tmp_path, None, {b"a": b"line\n" * 300_000})
    assert only.truncated
    assert only.added == 300_000
    assert 200_000 < len(json.dumps(only.text)) <= limits.DIFF_FILE_MAX_BYTES + 100


@pytest.mark.parametrize("content", [b"x", b"\x01", "\U0001f600".encode()])
async def test_one_long_line_is_cut_so_that_it_fits_the_wire(tmp_path: Path, content: bytes) -> None:
    (only,) = await compared(tmp_path, None, {b"a": content * 600_000})
    assert only.truncated
    assert only.added == 1
    assert only.text.startswith("@@ -0,0 +1 @@\n+")
    assert len(json.dumps(only.text)) <= limits.DIFF_FILE_MAX_BYTES + 100


async def test_all_files_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DIFF_MAX_BYTES", 1000)
    files = await compared(tmp_path, None, {b"%d" % number: b"0123456789\n" * 20 for number in range(10)})
    assert [file.truncated for file in files] == [False] * 3 + [True] * 7
    assert {file.added for file in files} == {20}


async def test_two_whole_trees_of_empty_lines_are_within_what_is_read(tmp_path: Path) -> None:
    """The largest output two acceptable trees can give."""
    most = limits.TREE_MAX_BYTES
    (only,) = await compared(tmp_path, {b"a": b"\n" * most}, {b"a": b"x" * most})
    assert only.deleted == limits.TREE_MAX_BYTES


async def test_what_takes_too_long_to_compare_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DIFF_OUTPUT_MAX_BYTES", 100)
    with pytest.raises(DiffTooLarge, match="or deny it"):
        await compared(tmp_path, None, {b"a": b"line\n" * 100})
    monkeypatch.undo()
    monkeypatch.setattr(limits, "GIT_SECONDS", 0)
    with pytest.raises(DiffTooLarge):
        await patch(git_at(tmp_path), None, EMPTY_TREE)


def test_what_git_would_never_say_is_an_error_and_not_a_diff() -> None:
    raw = b":100644 100644 " + b"1" * 40 + b" " + b"2" * 40 + b" M\0a\0"
    for text in (
        b"",
        b"nonsense\n",
        b"diff --git a/a b/a\n@@ x @@\n",
        b"diff --git a/a b/a\n@@ -1 +1 @@\nx\n",
    ):
        with pytest.raises(DiffUnreadable):
            file_diffs(raw, text)
    with pytest.raises(DiffUnreadable):
        file_diffs(b"", b"diff --git a/a b/a\n")


LINES = st.lists(
    st.sampled_from(
        [b"", b"a", b"b", b"c", b"-- a", b"++ b", b"@@ -1 +1 @@", b"diff --git a/a b/a",
         b"\\ No newline at end of file"]
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=4), ends=st.booleans())
async def test_applying_the_diff_gives_the_new_file(
    tmp_path: Path, pairs: list[tuple[list[bytes], list[bytes]]], ends: bool
) -> None:
    end = b"\n" if ends else b""
    before = {b"%d" % n: b"\n".join(old) + end for n, (old, _) in enumerate(pairs)}
    after = {b"%d" % n: b"\n".join(new) + end for n, (_, new) in enumerate(pairs)}
    told = {file.path: file for file in await compared(tmp_path, before, after)}
    for name, old in before.items():
        new, file = after[name], told.get(name.decode())
        if file is None:
            assert old == new
            continue
        assert applied(old, file.text) == new
        marks = [line[:1] for line in file.text.split("\n")]
        assert (file.added, file.deleted) == (marks.count("+"), marks.count("-"))


def applied(old: bytes, text: str) -> bytes:
    """The old content with a unified diff applied, by counting lines as the diff does."""
    source, result, at, last = _lines(old.decode()), [], 0, ""
    for line in _lines(text):
        if line.startswith("@@"):
            start, _, count = line.split()[1][1:].partition(",")
            skip = int(start) - (count != "0")
            result += source[at:skip]
            at = skip
        elif line.startswith("\\"):
            if last in " +":
                result[-1] = result[-1].removesuffix("\n")
        else:
            last = line[0]
            at += last in " -"
            if last in " +":
                result.append(line[1:])
    return "".join(result + source[at:]).encode()


def _lines(text: str) -> list[str]:
    """With their ends; only a line feed is one."""
    parts = text.split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
