"""SECURITY 9: notes are read out of a directory that an agent owns, and nothing else ever is.

Each guard was taken away once to see its attack succeed: O_NOFOLLOW of directories and files, the look at
what a name stands for before it is opened, the count of hard links, the check of mounts, every bound.
"""

import ctypes
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hive_core.notes import (
    DEPTH_MAX,
    ENTRIES_MAX,
    FILES_MAX,
    TEXT_MAX_BYTES,
    list_notes,
    read_note,
)
from hive_shared.errors import BadRequest, HiveError, NotFound
from hive_shared.jsonlines import encode
from hive_shared.wire import LINE_MAX_BYTES
from tests.conftest import need

SECRET = "root:$6$the-hosts-own-secret"
SWAP_SECONDS = 1.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    (state / "notes").mkdir(parents=True)
    (state / "notes.md").write_text("I build the bridge.")
    return state


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's, as /etc/shadow is, in a directory of its own."""
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "plan.md").write_text(SECRET)
    return directory / "plan.md"


def paths_of(state: Path) -> list[str]:
    return [note.path for note in list_notes(state).notes]


def refused(state: Path, path: str) -> str:
    with pytest.raises(HiveError) as refusal:
        read_note(state, path)
    assert SECRET not in refusal.value.message
    return refusal.value.message


# --- what is read, for comparison ----------------------------------------------


def test_notes_are_listed_with_the_main_ones_first_and_read(state: Path) -> None:
    (state / "CLAUDE.md").write_text("rules")
    (state / "an-essay.txt").write_text("essay")
    (state / "notes" / "deep").mkdir()
    (state / "notes" / "deep" / "plan").write_text("a plan")
    (state / "main.py").write_text("no note")
    (state / "repository").mkdir()
    (state / "repository" / "README.md").write_text("no note either")
    assert paths_of(state) == ["notes.md", "CLAUDE.md", "an-essay.txt", "notes/deep/plan"]
    assert read_note(state, "notes/deep/plan").text == "a plan"
    assert list_notes(state).left_out == 0


def test_a_state_that_is_not_there_has_no_notes(tmp_path: Path) -> None:
    assert list_notes(tmp_path / "nobody").notes == []
    with pytest.raises(NotFound):
        read_note(tmp_path / "nobody", "notes.md")


def test_what_is_no_text_and_what_looks_like_a_secret_is_replaced(state: Path) -> None:
    key = b"sk-ant-api03-" + b"A" * 40
    (state / "notes.md").write_bytes(b"caf\xe9 \xff\x00 " + key)
    note = read_note(state, "notes.md")
    assert note.text.startswith("caf\ufffd \ufffd\x00 ")
    assert key.decode() not in note.text


# --- links ----------------------------------------------------------------------


def test_a_link_to_a_file_is_neither_listed_nor_read(state: Path, secret: Path) -> None:
    (state / "notes.md").unlink()
    (state / "notes.md").symlink_to(secret)
    (state / "notes" / "shadow").symlink_to("/etc/shadow")
    assert paths_of(state) == []
    assert list_notes(state).left_out == 2
    assert "link" in refused(state, "notes.md")
    refused(state, "notes/shadow")


def test_a_link_to_a_directory_is_not_entered(state: Path, secret: Path) -> None:
    (state / "notes" / "in").symlink_to(secret.parent)
    assert "notes/in/plan.md" not in paths_of(state)
    refused(state, "notes/in/plan.md")
    (state / "notes" / "in").unlink()
    (state / "notes").rmdir()
    (state / "notes").symlink_to(secret.parent)
    assert "notes/plan.md" not in paths_of(state)
    refused(state, "notes/plan.md")


def test_a_state_that_is_itself_a_link_is_not_followed(state: Path, secret: Path) -> None:
    elsewhere = state.with_name("linked")
    elsewhere.symlink_to(secret.parent)
    assert list_notes(elsewhere).notes == []
    refused(elsewhere, "plan.md")


@pytest.mark.parametrize(
    "path",
    [
        *("../etc/plan.md", "notes/../../etc/plan.md", "/etc/passwd", "notes//plan.md", "notes/./plan.md"),
        *("notes/", "", ".", "..", "hyperhive-events.sqlite", "repository/README.md", "notes.md/x"),
        *("n\0.md", "notes\n.md", "notes/" + "x" * 600, "notes/\udcff", "notes/\u202eevil"),
        "notes/" + "a/" * DEPTH_MAX + "b",
    ],
)
def test_a_path_that_no_list_shows_is_refused_before_anything_is_opened(state: Path, path: str) -> None:
    with pytest.raises((BadRequest, NotFound)):
        read_note(state, path)


def test_a_hard_link_to_a_file_of_elsewhere_is_not_read(state: Path, secret: Path) -> None:
    os.link(secret, state / "notes" / "plan.md")
    assert "notes/plan.md" not in paths_of(state)
    assert "hard link" in refused(state, "notes/plan.md")


def _swapping(swap: Callable[[], None], stop: threading.Event) -> threading.Thread:
    def run() -> None:
        while not stop.is_set():
            swap()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_link_that_is_swapped_in_while_it_is_read_is_never_followed(
    state: Path, secret: Path, what: str
) -> None:
    name = state / "notes" / ("plan.md" if what == "file" else "in")
    honest = state / "honest"
    if what == "file":
        honest.write_text("mine")
    else:
        honest.mkdir()
        (honest / "plan.md").write_text("mine")
    target = secret if what == "file" else secret.parent
    link = state / "link"
    link.symlink_to(target)
    path = "notes/plan.md" if what == "file" else "notes/in/plan.md"
    honest.rename(name)

    def swap() -> None:
        name.rename(honest)
        link.rename(name)
        name.rename(link)
        honest.rename(name)

    stop = threading.Event()
    swapping = _swapping(swap, stop)
    read = 0
    try:
        until = time.monotonic() + SWAP_SECONDS
        while time.monotonic() < until:
            list_notes(state)
            try:
                assert read_note(state, path).text == "mine"
                read += 1
            except HiveError:
                continue
    finally:
        stop.set()
        swapping.join()
    assert read > 0, "nothing was ever read, so nothing was shown"


# --- what is no file --------------------------------------------------------------


def test_a_pipe_holds_nobody_up(state: Path) -> None:
    os.mkfifo(state / "notes" / "pipe.md")
    (state / "notes.md").unlink()
    os.mkfifo(state / "notes.md")
    assert paths_of(state) == []
    assert "regular" in refused(state, "notes.md")


def test_a_socket_and_a_directory_are_no_notes(state: Path) -> None:
    (state / "plan.md").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(state / "notes" / "s.md"))
        assert paths_of(state) == ["notes.md"]
        refused(state, "notes/s.md")
    refused(state, "plan.md")


def test_a_device_is_never_opened(state: Path) -> None:
    try:
        os.mknod(state / "notes" / "tty.md", stat.S_IFCHR | 0o666, os.makedev(1, 9))
    except PermissionError:
        need(False, "this machine does not let its user make device nodes")
    assert paths_of(state) == ["notes.md"]
    assert "regular" in refused(state, "notes/tty.md")


def test_another_file_system_is_not_entered(state: Path, secret: Path) -> None:
    need(os.geteuid() == 0, "mounting needs root")
    place = state / "notes" / "in"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    bound = libc.mount(os.fsencode(secret.parent), os.fsencode(place), None, 4096, None)
    need(bound == 0, "this machine does not let root mount")
    try:
        assert paths_of(state) == ["notes.md"]
        assert "another file system" in refused(state, "notes/in/plan.md")
    finally:
        libc.umount2(os.fsencode(place), 2)


# --- too much ---------------------------------------------------------------------


def test_of_a_file_of_a_gigabyte_the_beginning_is_read(state: Path) -> None:
    with (state / "notes.md").open("wb") as file:
        file.write(b"begin")
        file.truncate(2**30)
    note = read_note(state, "notes.md")
    assert (note.size_bytes, note.truncated) == (2**30, True)
    assert len(note.text) == TEXT_MAX_BYTES


def test_the_worst_text_fits_one_line_of_the_wire(state: Path) -> None:
    (state / "notes.md").write_bytes(b"\x01" * (TEXT_MAX_BYTES + 1))
    note = read_note(state, "notes.md")
    assert len(encode({"ok": True, "result": note.model_dump(mode="json")})) < LINE_MAX_BYTES
    (state / "notes.md").write_bytes(b"\xff" * (TEXT_MAX_BYTES + 1))
    assert (
        len(encode({"ok": True, "result": read_note(state, "notes.md").model_dump(mode="json")}))
        < LINE_MAX_BYTES
    )


def test_a_hundred_thousand_files_cost_no_more_than_the_bound(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One directory entry stands for many: what is looked at is counted."""
    for number in range(ENTRIES_MAX + 500):
        (state / "notes" / f"{number}.md").touch()
    looked: list[str] = []
    whole = os.stat

    def counted(name: str, **how: object) -> os.stat_result:
        looked.append(name)
        return whole(name, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("hive_core.notes.os.stat", counted)
    listed = list_notes(state)
    assert len(listed.notes) == FILES_MAX
    assert listed.left_out > 0
    assert len(looked) <= ENTRIES_MAX


def test_directories_without_end_are_left_at_some_depth(state: Path) -> None:
    deep = state / "notes"
    for _ in range(DEPTH_MAX + 20):
        deep = deep / "d"
        deep.mkdir()
        (deep / "plan.md").write_text("deep")
    found = paths_of(state)
    assert max(path.count("/") for path in found) <= DEPTH_MAX
    for path in found:
        assert read_note(state, path).text


# --- names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"two\nlines.md",
        b"\x1b[2Jcleared.md",
        b"caf\xe9.md",
        "gp\u202edm.exe.md".encode(),
        b"bell\x07.txt",
        b"\xc2\x9bcsi.md",
    ],
)
def test_a_name_that_is_not_what_it_looks_like_is_counted_and_not_shown(state: Path, name: bytes) -> None:
    for directory in (state, state / "notes"):
        with open(os.fsencode(directory) + b"/" + name, "w") as file:
            file.write("x")
    os.mkdir(os.fsencode(state / "notes") + b"/d" + name)
    listed = list_notes(state)
    assert [note.path for note in listed.notes] == ["notes.md"]
    assert listed.left_out == 3
    assert json.loads(encode(listed.model_dump(mode="json")))


def test_a_name_in_any_script_is_a_name(state: Path) -> None:
    (state / "notes" / "Pläne für 日本 🚀.md").write_text("x")
    assert "notes/Pläne für 日本 🚀.md" in paths_of(state)
