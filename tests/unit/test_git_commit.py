"""A commit as the operator sees it: bounded, on as many lines as it should have, nothing in it unseen."""

from hive_core.git.commit import parse_commit

SHA = "a" * 40
HEAD = b"tree " + b"b" * 40 + b"\n"


def test_an_ordinary_commit() -> None:
    commit = parse_commit(
        SHA, HEAD + b"author Jo <jo@x> 1700000000 +0130\ncommitter A <b> 1 +0000\n\nsubject\n\nbody\n"
    )
    assert commit.message == "subject\n\nbody"
    assert commit.author == "Jo <jo@x>"
    assert commit.authored_at_ms == 1_700_000_000_000


def test_a_signature_in_the_header_is_not_the_message() -> None:
    header = HEAD + b"author Jo <jo@x> 1 +0000\ngpgsig -----BEGIN\n \n author Eve <e> 2 +0000\n -----END\n"
    commit = parse_commit(SHA, header + b"\nsubject\n")
    assert (commit.message, commit.author) == ("subject", "Jo <jo@x>")


def test_what_would_deceive_is_marked() -> None:
    commit = parse_commit(
        SHA,
        HEAD + b"author A\x1b[2J\xe2\x80\xaeB <b> 1 +0000\n\nx\r\ny\x00z\xff\xe2\x80\xa9w\x9b\xe2\x81\xa6\n",
    )
    assert commit.author == "A\ufffd[2J\ufffdB <b>"
    assert commit.message == "x\ny\ufffdz\ufffd\nw\ufffd\ufffd"


def test_it_is_bounded() -> None:
    commit = parse_commit(SHA, HEAD + b"author " + b"n" * 9000 + b" <x> 1 +0000\n\n" + b"m" * 100_000)
    assert len(commit.message) == 4096
    assert len(commit.author) == 200


def test_what_cannot_be_understood_is_left_empty() -> None:
    for content in (b"", b"\n\n", HEAD, b"\xff" * 50, HEAD + b"author\n\nm", HEAD + b"author x\n\nm"):
        assert parse_commit(SHA, content).authored_at_ms is None
    assert parse_commit(SHA, HEAD + b"author A <b> 999999999999 +0000\n\nm").authored_at_ms is None
    assert parse_commit(SHA, HEAD + b"author A <b> 99999999999999999999 +0000\n\nm").authored_at_ms is None
