"""Trees, names and words of a commit that are meant to reach out, to hide, or to deceive (SPEC section 6).

Most objects here are made by hand, because git would not make them. Guards are taken out for a moment, one
after the other, to see that each attack would succeed without.
"""

from pathlib import Path

import pytest

from hive_core.config_repo import CommitRefused
from hive_core.git import diff as comparison
from hive_core.git import program, quarantine, repository
from hive_core.git.program import Git
from tests.support.git_objects import (
    DIRECTORY,
    FILE,
    LINK,
    SUBMODULE,
    Hive,
    Workshop,
    plain_git,
    tree_entry,
)

Entry = tuple[str, bytes, str]


@pytest.fixture
async def hive(tmp_path: Path) -> Hive:
    return await Hive.at(tmp_path)


def without_rules(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repository, "check_tree", lambda entries: None)


def without_gits_checks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quarantine, "CHECKS", ())
    real = Git.run

    async def lenient(git: Git, *arguments: str, **options: object) -> bytes:
        kept = [argument for argument in arguments if argument != "--strict"]
        return await real(git, *kept, **options)  # type: ignore[arg-type]

    patch.setattr(Git, "run", lenient)


async def refused(hive: Hive, workshop: Workshop, sha: str) -> str:
    with pytest.raises(CommitRefused) as refusal:
        await hive.submit(workshop.pack(), sha)
    assert not await hive.repo.has("alice", sha)
    assert hive.leftovers() == []
    message = refusal.value.message.replace("…", "")
    assert message.isprintable()
    assert message.isascii()
    return message


# --- what is no regular file --------------------------------------------------------


async def test_a_symbolic_link_is_refused_with_its_path(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop()
    lib = workshop.tree((LINK, b"keys.nix", workshop.blob(b"/etc/shadow")))
    sha = workshop.commit_of((DIRECTORY, b"lib", lib))
    assert "lib/keys.nix: a symbolic link" in await refused(hive, workshop, sha)
    without_rules(monkeypatch)
    await hive.submit(workshop.pack(), sha)
    hive.applied_git("checkout", "-q", sha)  # what a checkout makes of it
    assert (hive.paths.applied("alice") / "lib/keys.nix").readlink() == Path("/etc/shadow")


async def test_agent_nix_as_a_link_is_refused_and_never_written_as_one(
    hive: Hive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop()
    sha = workshop.commit(workshop.tree((LINK, b"agent.nix", workshop.blob(b"/etc/shadow"))))
    assert "agent.nix: a symbolic link" in await refused(hive, workshop, sha)
    without_rules(monkeypatch)
    await hive.submit(workshop.pack(), sha)
    await hive.repo.export("alice", sha, tmp_path / "out")  # the second guard: core writes plain files only
    assert not (tmp_path / "out" / "agent.nix").is_symlink()


async def test_a_submodule_is_refused(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop()
    sha = workshop.commit_of((SUBMODULE, b"other", "1" * 40))
    assert "other: a submodule" in await refused(hive, workshop, sha)
    without_rules(monkeypatch)
    assert (await hive.submit(workshop.pack(), sha)).sha == sha


async def test_agent_nix_must_be_a_file(hive: Hive) -> None:
    workshop = Workshop()
    inner = workshop.tree((FILE, b"agent.nix", workshop.blob()))
    for tree, words in (
        (workshop.tree((DIRECTORY, b"agent.nix", inner)), "agent.nix: a directory"),
        (workshop.tree((DIRECTORY, b"lib", inner)), "agent.nix: missing"),
        (workshop.tree(), "agent.nix: missing"),
        (workshop.tree((FILE, b"agent.nix", workshop.blob(b"{ } # \xff"))), "agent.nix: not valid UTF-8"),
    ):
        sha = workshop.commit(tree)
        assert words in await refused(hive, workshop, sha)


# --- names that lead out --------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(b"..", [b"escaped"])], "..: an absolute path"),
        ([(b"../escaped", None)], "../escaped: an absolute path"),
        ([(b"/escaped", None)], "/escaped: an absolute path"),
        ([(b".", [b"escaped"])], ".: an absolute path"),
        ([(b"", None)], "cannot be parsed as a tree"),
        ([(b".git", [b"config"])], ".git: a name that git reads for itself"),
        ([(b".GiT", [b"config"])], ".GiT: a name that git reads for itself"),
        ([(b"git~1", [b"config"])], "git~1: a name that git reads for itself"),
        ([(b".g\xe2\x80\x8cit", [b"config"])], "invisible"),
        ([(b".gitmodules", None)], ".gitmodules: a name that git reads for itself"),
        ([(b".gitattributes", None)], ".gitattributes: a name that git reads for itself"),
        ([(b"a\\..\\b", None)], "a backslash"),
        ([(b"flake.nix", None)], "flake.nix: core writes that file itself"),
        ([(b"flake.lock", None)], "flake.lock: core writes that file itself"),
        ([(b"sub", [b"flake.nix"])], "sub/flake.nix: core writes that file itself"),
        ([(b"a\nb", None)], "control"),
        ([(b"a\x1b]0;x\x07", None)], "control"),
        ([(b"gp\xe2\x80\xaexin.nix", None)], "U+202E"),
        ([(b"\xff", None)], "not valid UTF-8"),
        ([(b"AGENT.nix", None)], "the same name as"),
        ([(b"x" * 4096, None)], "bytes"),
    ],
)  # fmt: skip
async def test_names_that_mean_something_are_refused_with_path_and_rule(
    hive: Hive, entries: list[tuple[bytes, list[bytes] | None]], words: str
) -> None:
    workshop = Workshop()
    made: list[Entry] = []
    for name, below in entries:
        if below is None:
            made.append((FILE, name, workshop.blob(b"x")))
        else:
            tree = workshop.tree(*((FILE, inner, workshop.blob(b"x")) for inner in below))
            made.append((DIRECTORY, name, tree))
    sha = workshop.commit_of(*made)
    assert words in await refused(hive, workshop, sha)


@pytest.mark.parametrize("name", [b"..", b"../escaped"])
async def test_without_both_guards_a_tree_writes_outside_its_directory(
    hive: Hive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    workshop = Workshop()
    blob = workshop.blob(b"was here")
    made = (FILE, name, blob) if b"/" in name else (DIRECTORY, name, workshop.tree((FILE, b"escaped", blob)))
    sha = workshop.commit_of(made)
    with monkeypatch.context() as patch:
        without_rules(patch)
        assert "a directory has an entry" in (said := await refused(hive, workshop, sha)) or "slash" in said
    with monkeypatch.context() as patch:
        without_gits_checks(patch)
        assert ": an absolute path" in await refused(hive, workshop, sha)
    without_rules(monkeypatch)
    without_gits_checks(monkeypatch)
    await hive.submit(workshop.pack(), sha)
    await hive.repo.export("alice", sha, tmp_path / "build" / "tree")
    assert (tmp_path / "build" / "escaped").read_bytes() == b"was here"


async def test_a_git_directory_in_a_tree_would_replace_the_hosts_own(
    hive: Hive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop()
    inner = workshop.tree((FILE, b"config", workshop.blob(b"[core]\n\tfsmonitor = /evil\n")))
    sha = workshop.commit_of((DIRECTORY, b".git", inner))
    assert ".git: a name that git reads for itself" in await refused(hive, workshop, sha)
    without_rules(monkeypatch)
    without_gits_checks(monkeypatch)
    await hive.submit(workshop.pack(), sha)
    await hive.repo.export("alice", sha, tmp_path / "out")
    assert (tmp_path / "out" / ".git" / "config").exists()


async def test_two_files_of_one_name_are_refused(hive: Hive) -> None:
    """Which of the two is built is not what the diff says."""
    workshop = Workshop()
    one, two = workshop.blob(b"{ }"), workshop.blob(b"{ evil = 1; }")
    sha = workshop.commit(workshop.tree((FILE, b"agent.nix", one), (FILE, b"agent.nix", two)))
    assert "agent.nix: the same name as agent.nix" in await refused(hive, workshop, sha)


async def test_malformed_objects_are_refused(hive: Hive) -> None:
    workshop = Workshop()
    blob = workshop.blob()
    for raw in (
        b"100644 agent.nix\0" + bytes.fromhex(blob)[:10],
        b"agent.nix",
        tree_entry("0100644", b"agent.nix", blob),
        tree_entry("777", b"agent.nix", blob),
        tree_entry(FILE, b"b", blob) + tree_entry(FILE, b"agent.nix", blob),
        tree_entry(FILE, b"agent.nix", "0" * 40),
    ):
        sha = workshop.commit(workshop.add("tree", raw))
        assert await refused(hive, workshop, sha)
    tree = workshop.tree((FILE, b"agent.nix", blob))
    for raw in (
        b"",
        b"tree %s\n" % tree.encode(),
        b"tree %s\nauthor A <a> 1 +0000\n\nno committer" % tree.encode(),
        b"tree %s\nauthor A a> 1 +0000\ncommitter A <a> 1 +0000\n\nx" % tree.encode(),
        b"tree %s\nparent %s\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nx"
        % (tree.encode(), blob.encode()),
        b"tree %s\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nx" % blob.encode(),
    ):
        only = Workshop(dict(workshop.objects))
        assert await refused(hive, only, only.add("commit", raw))


async def test_something_wrong_in_the_history_alone_is_refused_too(hive: Hive) -> None:
    workshop = Workshop()
    bad = workshop.commit_of((DIRECTORY, b"..", workshop.tree((FILE, b"x", workshop.blob(b"x")))))
    good = workshop.commit(workshop.tree((FILE, b"agent.nix", workshop.blob())), parents=[bad])
    assert "in the history: a directory has an entry `..`" in await refused(hive, workshop, good)


# --- words ----------------------------------------------------------------------------------


async def test_a_message_with_a_nul_is_refused_and_other_tricks_are_made_visible(hive: Hive) -> None:
    workshop = Workshop()
    sha = workshop.commit_of(message=b"harmless\0evil\n")
    assert "NUL" in await refused(hive, workshop, sha)
    workshop = Workshop()
    tree = workshop.tree((FILE, b"agent.nix", workshop.blob()))
    who = "Ope\u202erator\x1b[8m <root@localhost> 1700000000 +0000".encode()
    message = "ok\x1b[2J\r\nApproved-by: operator\u2028\u2066x\u2069".encode() + b"\xff" + b"z" * 100_000
    sha = workshop.commit(tree, who=who, message=message)
    commit = await hive.submit(workshop.pack(), sha)
    assert commit.author == "Ope\ufffdrator\ufffd[8m <root@localhost>"
    assert commit.message.startswith("ok\ufffd[2J\nApproved-by: operator\n\ufffdx\ufffd\ufffdzzz")
    assert len(commit.message) == 4096


async def test_a_date_that_cannot_be_is_left_out(hive: Hive) -> None:
    workshop = Workshop()
    tree = workshop.tree((FILE, b"agent.nix", workshop.blob()))
    sha = workshop.commit(tree, who=b"A <a@b> 999999999999 +0000")
    assert (await hive.submit(workshop.pack(), sha)).authored_at_ms is None


# --- a diff that hides something --------------------------------------------------------------


async def test_attributes_in_a_tree_do_not_hide_its_diff(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in the tree; and were they there, the diff would not care, where a plain git does."""
    workshop = Workshop()
    attributes = workshop.blob(b"* -diff -text binary\nagent.nix diff=hidden\n")
    sha = workshop.commit_of((FILE, b".gitattributes", attributes))
    assert ".gitattributes" in await refused(hive, workshop, sha)
    without_rules(monkeypatch)
    await hive.submit(workshop.pack(), sha)
    first = await hive.repo.running("alice")
    assert first is not None
    shown = {file.path: file for file in await hive.repo.diff("alice", first, sha)}
    assert shown["agent.nix"].added == 1
    assert "+{ ... }: { }" in shown["agent.nix"].text
    hive.applied_git("checkout", "-q", sha)
    assert b"Binary files" in hive.applied_git("diff", first, sha)  # the attack, where nobody guards


async def test_what_lies_beside_the_repository_has_no_part_in_the_diff(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop()
    sha = workshop.commit_of()
    await hive.submit(workshop.pack(), sha)
    applied = hive.paths.applied("alice")
    for place in (applied, applied / ".git", applied / ".git" / "info"):
        place.mkdir(exist_ok=True)
        (place / ("attributes" if place.name == "info" else ".gitattributes")).write_text("* -diff\n")
    hive.applied_git("config", "diff.external", "false")
    hive.applied_git("config", "core.attributesFile", str(applied / ".gitattributes"))
    first = await hive.repo.running("alice")
    (changed,) = await hive.repo.diff("alice", first, sha)
    assert (changed.added, changed.deleted) == (1, 7)
    monkeypatch.setattr(
        comparison, "_PATCH", tuple(option for option in comparison._PATCH if option != "--text")
    )
    (changed,) = await hive.repo.diff("alice", first, sha)
    assert changed.added == 0  # `--text` is what the host's own attributes fail against


async def test_replaced_objects_and_grafts_are_not_believed(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ref that puts an innocent blob in another's place comes with no pack; were it there, nobody asks."""
    workshop = Workshop()
    evil, good = workshop.blob(b"{ evil = 1; }\n"), workshop.blob(b"{ good = 1; }\n")
    keep = workshop.tree((FILE, b"agent.nix", evil), (FILE, b"innocent", good))
    sha = workshop.commit(keep)
    await hive.submit(workshop.pack(), sha)
    first = await hive.repo.running("alice")
    assert first is not None
    hive.applied_git("replace", evil, good)
    (hive.paths.applied("alice") / ".git/info").mkdir(exist_ok=True)
    (hive.paths.applied("alice") / ".git/info/grafts").write_text(
        f"{sha} {await hive.repo.running('alice')}\n"
    )
    assert (await hive.repo.tree("alice", sha))["agent.nix"].data == b"{ evil = 1; }\n"
    files = await hive.repo.diff("alice", None, sha)
    assert "evil" in files[0].text
    assert not await hive.repo.descends("alice", sha, first)
    real = Git._environment

    def trusting(git: Git, index: Path | None) -> dict[str, str]:
        given = real(git, index)
        del given["GIT_NO_REPLACE_OBJECTS"], given["GIT_GRAFT_FILE"]
        return given

    monkeypatch.setattr(Git, "_environment", trusting)
    assert (await hive.repo.tree("alice", sha))["agent.nix"].data == b"{ good = 1; }\n"
    assert await hive.repo.descends("alice", sha, first)


async def test_a_name_for_two_commits_cannot_be_made(hive: Hive) -> None:
    """Refs never come from outside: branches of one name, or named like a commit, say nothing here."""
    workshop = Workshop()
    one = workshop.commit_of(message=b"one\n")
    two = workshop.commit_of(message=b"two\n")
    proposed = hive.paths.config("alice")
    plain_git(proposed, "index-pack", "--stdin", given=workshop.pack())
    for ref in (f"refs/heads/{one}", f"refs/tags/{one}", one[:7], "refs/heads/proposal/1"):
        (proposed / ".git" / ref).parent.mkdir(parents=True, exist_ok=True)
        (proposed / ".git" / ref).write_text(f"{two}\n")
    assert (await hive.submit(workshop.pack(), one)).message == "one"
    await hive.repo.tag("alice", "proposal/1", one)
    # Even such a name in the applied repository itself is no match for the full id.
    hive.applied_git("update-ref", f"refs/heads/{one}", await hive.repo.running("alice") or "")
    assert (await hive.repo.commit("alice", one)).message == "one"
    assert (await hive.repo.tags("alice"))["proposal/1"] == one


def test_the_environment_has_nothing_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Git(tmp_path)._environment(None)
    assert given["GIT_CONFIG_NOSYSTEM"] == given["GIT_NO_REPLACE_OBJECTS"] == "1"
    assert given["GIT_CONFIG_GLOBAL"] == "/dev/null"
    assert given["GIT_ATTR_SOURCE"] == program.EMPTY_TREE
    assert not Path(given["HOME"]).exists()
    assert not Path(given["GIT_INDEX_FILE"]).exists()
