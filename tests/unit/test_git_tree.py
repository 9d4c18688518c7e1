"""What a configuration may be made of (SPEC section 6): each rule, and that nothing slips between them."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hive_core.git import limits
from hive_core.git.refusal import CommitRefused, shown
from hive_core.git.tree import Entry, check_top_file, check_tree, parse_listing

OID = "1" * 40
AGENT = Entry("100644", OID, 20, b"agent.nix")


def file(path: str | bytes, size: int = 1, mode: str = "100644") -> Entry:
    return Entry(mode, OID, size, path.encode() if isinstance(path, str) else path)


def directory(path: str) -> Entry:
    return file(path, 0, "040000")


def refusal(*entries: Entry) -> str:
    with pytest.raises(CommitRefused) as refused:
        check_tree([AGENT, *entries])
    return refused.value.message


def test_an_ordinary_configuration_passes() -> None:
    check_tree(
        [
            AGENT, directory("lib"), file("lib/tools.nix"), file("lib/run.sh", mode="100755"),
            file("README.md"), file(".gitignore"), file("Grüße an 世界.txt"), file("a+b=c, d(e)~1.nix"),
            file("lib/.github"), file("agent.nix.orig"), file("-rf"),
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (file("link", mode="120000"), "link: a symbolic link"),
        (file("agent", mode="160000"), "agent: a submodule"),
        (file("odd", mode="100664"), "odd: mode 100664"),
        (file("lib/flake.nix"), "lib/flake.nix: core writes that file itself"),
        (file("Flake.Lock"), "Flake.Lock: core writes that file itself"),
        (file("flake.nix."), "core writes that file itself"),
        (file(".gitattributes"), ".gitattributes: a name that git reads for itself"),
        (file("lib/.gitmodules"), "a name that git reads for itself"),
        (file(".GIT/config"), "a name that git reads for itself"),
        (file(".git./config"), "a name that git reads for itself"),
        (file("git~1"), "a name that git reads for itself"),
        (file("GITMOD~4"), "a name that git reads for itself"),
        (file("gi7eba~1"), "a name that git reads for itself"),
        (file(".git::$INDEX_ALLOCATION/config"), "a name that git reads for itself"),
        (file("．ｇｉｔ"), "a name that git reads for itself"),
        (file(".g\u200cit"), "invisible"),
        (file(".git /config"), "begins or ends with a space"),
        (file("/etc/passwd"), "an absolute path"),
        (file("../up"), "an absolute path, or one with `.`"),
        (file("a/../b"), "an absolute path, or one with `.`"),
        (file("a/./b"), "an absolute path, or one with `.`"),
        (file("a//b"), "an absolute path, or one with `.`"),
        (file("a/"), "an absolute path, or one with `.`"),
        (file(""), "an absolute path, or one with `.`"),
        (file("a\\b"), "a backslash"),
        (file(b"\xff\xfe"), "\\xff\\xfe: the name is not valid UTF-8"),
        (file("a\nb"), "a\\nb: the name has a control"),
        (file("a\x1b[2Jb"), "a\\x1b[2Jb: the name has a control"),
        (file("a\x7f"), "U+007F"),
        (file("a\x85b"), "U+0085"),
        (file("xin.\u202egpj"), "direction-changing character (U+202E)"),
        (file("a\u2066b"), "U+2066"),
        (file("a\u2028b"), "U+2028"),
        (file("a\u3164"), "U+3164"),
        (file("a\ufe0f"), "U+FE0F"),
        (file("a\u00a0b"), "U+00A0"),
        (file("a\U000e0041"), "U+E0041"),
        (file("\ufeffagent.nix"), "U+FEFF"),
        (file(" a"), "begins or ends with a space"),
        (file("n" * 129), "a name of more than 128 bytes"),
        (file("ä" * 65), "a name of more than 128 bytes"),
        (file("/".join("a" * 11)), "nested deeper than 10 names"),
        (file("/".join(["n" * 120] * 5)), "a path of more than 512 bytes"),
        (file("Agent.nix"), "Agent.nix: the same name as agent.nix"),
        (directory("AGENT.nix"), "the same name as agent.nix"),
        (file("agent.nix", mode="100755"), "the same name as agent.nix"),
        (file("big", 2 * limits.MIB), "big: with it, there is more than 2 MiB"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_with_path_and_rule(entry: Entry, rule: str) -> None:
    assert rule in refusal(entry)


@pytest.mark.parametrize("pair", [("straße", "STRASSE"), ("é", "e\u0301"), ("Å", "\u212b"), ("fi", "\ufb01")])
def test_names_that_look_or_fold_alike_are_refused(pair: tuple[str, str]) -> None:
    assert "the same name as" in refusal(file(pair[0]), file(pair[1]))


def test_directories_that_differ_by_case_are_refused() -> None:
    assert "the same name as lib" in refusal(directory("lib"), file("lib/a"), directory("Lib"), file("Lib/b"))


def test_files_and_directories_are_counted() -> None:
    check_tree([AGENT, *(file(f"f{number}") for number in range(199))])
    assert "more than 200 files; f199" in refusal(*(file(f"f{number}") for number in range(200)))
    assert "more than 200 directories" in refusal(*(directory(f"d{number}") for number in range(201)))


def test_all_files_together_are_bounded() -> None:
    half = limits.TREE_MAX_BYTES // 2
    check_tree([AGENT, file("a", half), file("b", half - 20)])
    assert "b: with it" in refusal(file("a", half), file("b", half - 19))


def test_agent_nix_must_be_there_at_the_top_as_a_text_file() -> None:
    for entries in ([], [file("lib/agent.nix")], [directory("agent.nix"), file("agent.nix/a")]):
        with pytest.raises(CommitRefused, match=r"agent\.nix"):
            check_tree(entries)
    check_top_file("{ } # ünïcode".encode())
    for content in (b"{ } \xff", b"{ }\0"):
        with pytest.raises(CommitRefused, match=r"agent\.nix: .* at byte"):
            check_top_file(content)


def test_a_refusal_shows_nothing_that_could_deceive() -> None:
    assert shown(b"a\x1b[31m\n\xe2\x80\xae\xff") == "a\\x1b[31m\\n\\u202e\\xff"
    assert len(shown("x" * 5000)) < 200


def test_a_listing_is_read_as_git_prints_it() -> None:
    listing = (
        b"100644 blob " + OID.encode() + b"      13\tagent.nix\0"
        b"040000 tree " + OID.encode() + b"       -\todd\tname\n\0"
        b"160000 commit " + OID.encode() + b"       -\tsub\0"
    )
    assert list(parse_listing(listing)) == [
        Entry("100644", OID, 13, b"agent.nix"),
        Entry("040000", OID, 0, b"odd\tname\n"),
        Entry("160000", OID, 0, b"sub"),
    ]


NASTY = st.sampled_from(
    ["/", "..", ".", ".git", "\\", "\n", "\0", "\u202e", "agent.nix", "GIT~1",
     " ", "a", "B", "ä", "flake.nix", "\ud800"]
)  # fmt: skip


@given(parts=st.lists(NASTY | st.text(max_size=6), max_size=8), raw=st.binary(max_size=12))
def test_whatever_passes_stays_below_and_is_what_it_seems(parts: list[str], raw: bytes) -> None:
    for path in ("".join(parts).encode("utf-8", "surrogatepass"), raw):
        entry = file(path)
        try:
            check_tree([AGENT, entry])
        except CommitRefused as refused:
            assert refused.message.isprintable()
            assert refused.message.replace("…", "").isascii()
            continue
        name = entry.name
        assert name.isprintable()
        assert ".." not in PurePosixPath(name).parts
        assert not name.startswith("/")
        assert "\\" not in name
        assert os.path.normpath(name) == name
        assert not any(part.lower().startswith(".git") and len(part) == 4 for part in Path(name).parts)


@given(names=st.lists(st.text("aAbBäÄßſK\u212a", min_size=1, max_size=3), max_size=6, unique=True))
def test_no_two_names_that_pass_are_one_where_case_does_not_count(names: list[str]) -> None:
    assume(names)
    try:
        check_tree([AGENT, *(file(name) for name in names)])
    except CommitRefused:
        return
    assert len({name.casefold() for name in names}) == len(names)
