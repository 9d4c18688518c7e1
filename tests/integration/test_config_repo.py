"""The repositories of a configuration with real git: made, imported, named, compared, put in place."""

import asyncio
import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from hive_core.config_repo import CommitRefused, ConfigRepo, File, open_pack
from hive_core.git import files as placing
from hive_core.git import limits, quarantine
from hive_core.git.program import Git
from hive_shared.errors import BadRequest, Conflict, HiveError, NotFound, Unavailable
from tests.conftest import need
from tests.support.git_objects import DIRECTORY, FILE, PROGRAM, QUIET, Hive, Workshop, plain_git

TWO_STEPS = b"{ ... }: { imports = [ ./lib/tools.nix ]; }\n"


@pytest.fixture
async def hive(tmp_path: Path) -> Hive:
    return await Hive.at(tmp_path)


def propose(hive: Hive, message: str = "change", agent: str = "alice", **contents: str) -> str:
    """Edit and commit in the proposed repository as the manager does; `lib__x_nix` is lib/x.nix."""
    proposed = hive.paths.config(agent)
    for name, content in contents.items():
        path = proposed / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    plain_git(proposed, "add", "--all")
    plain_git(proposed, "commit", "-q", "--allow-empty", "-m", message)
    return plain_git(proposed, "rev-parse", "HEAD").decode().strip()


def packed(hive: Hive, sha: str, agent: str = "alice") -> bytes:
    """As the harness packs it: the whole history, nothing left out."""
    return plain_git(
        hive.paths.config(agent), "pack-objects", "--revs", "--stdout", "-q", given=f"{sha}\n".encode()
    )


async def submit(hive: Hive, message: str = "change", agent: str = "alice", **contents: str) -> str:
    sha = propose(hive, message, agent, **contents)
    await hive.submit(packed(hive, sha, agent), sha, agent)
    return sha


async def running(hive: Hive) -> str:
    sha = await hive.repo.running("alice")
    assert sha is not None
    return sha


# --- making ------------------------------------------------------------------


async def test_both_repositories_begin_with_the_same_commit(hive: Hive) -> None:
    sha = await running(hive)
    proposed = hive.paths.config("alice")
    assert plain_git(proposed, "rev-parse", "main", "applied/main").decode().split() == [sha, sha]
    assert plain_git(proposed, "status", "--porcelain") == b""
    assert plain_git(proposed, "remote", "get-url", "applied").decode().strip() == "/applied/alice"
    assert hive.applied_git("status", "--porcelain") == b""
    assert hive.applied_git("fsck", "--strict", "--full") == b""
    assert "agent alice" in (hive.paths.applied("alice") / "agent.nix").read_text()
    assert (await hive.repo.commit("alice", sha)).author == "hyperhive <hive-c0re@localhost>"
    assert hive.leftovers() == []


async def test_making_them_again_changes_nothing(hive: Hive) -> None:
    before = await running(hive)
    (hive.paths.config("alice") / "notes.txt").write_text("mine")
    assert not await hive.repo.create("alice")
    assert not await hive.repo.create_proposed("alice", None)
    assert await running(hive) == before
    assert (hive.paths.config("alice") / "notes.txt").read_text() == "mine"


async def test_what_a_crash_left_in_the_middle_of_making_is_made_anew(tmp_path: Path) -> None:
    hive = await Hive.at(tmp_path, agents=())
    for half in ("bob-applied", "bob-config"):
        (hive.paths.state_root / "staging" / half / ".git" / "objects").mkdir(parents=True)
        (hive.paths.state_root / "staging" / half / ".git" / "HEAD").write_text("half a line")
    hive.paths.config("bob").mkdir(parents=True)  # the directory is there first, empty
    hive.paths.applied("bob").mkdir(parents=True)
    assert await hive.repo.create("bob")
    assert await hive.repo.create_proposed("bob", None)
    assert plain_git(hive.paths.config("bob"), "fsck", "--strict") == b""
    assert hive.leftovers() == []


async def test_a_proposed_repository_that_was_lost_comes_back_with_what_runs(hive: Hive) -> None:
    first = await running(hive)
    sha = await submit(hive, lib__tools_nix="{ }", agent_nix=TWO_STEPS.decode())
    await hive.repo.advance("alice", sha, expected=first)
    shutil.rmtree(hive.paths.config("alice"))
    assert await hive.repo.create_proposed("alice", None)
    assert (hive.paths.config("alice") / "agent.nix").read_bytes() == TWO_STEPS
    assert plain_git(hive.paths.config("alice"), "log", "--format=%H").decode().split() == [sha, first]


async def test_repositories_as_they_were_made_before_keep_working(tmp_path: Path) -> None:
    hive = await Hive.at(tmp_path, agents=())
    place = hive.paths.applied("old")
    place.mkdir(parents=True)
    (place / "agent.nix").write_text("{ pkgs, ... }: { }\n")
    plain_git(place, "init", "--quiet", "--initial-branch=main")
    plain_git(place, "add", "--", "agent.nix")
    plain_git(place, "commit", "--quiet", "--message=Agent old begins")
    assert not await hive.repo.create("old")
    assert await hive.repo.create_proposed("old", None)
    first = await hive.repo.running("old")
    sha = await submit(hive, agent="old", agent_nix="{ }\n")
    await hive.repo.advance("old", sha, expected=first)
    await hive.repo.place("old", sha)
    assert (place / "agent.nix").read_text() == "{ }\n"
    assert plain_git(place, "status", "--porcelain") == b""


async def test_what_is_applied_can_be_read_by_another_user_and_the_proposed_is_the_agents(
    tmp_path: Path,
) -> None:
    """Whatever the daemon's umask. The manager fetches what runs from its own container's user."""
    need(os.geteuid() == 0 and shutil.which("setpriv"), "this needs root and setpriv to be another user")
    before = os.umask(0o077)
    try:
        hive = await Hive.at(tmp_path / "hive", agents=())
        await hive.repo.create("alice")
        await hive.repo.create_proposed("alice", 61000)
        proposed = hive.paths.config("alice")
        assert {path.lstat().st_uid for path in (proposed, *proposed.rglob("*"))} == {61000}
        assert stat.S_IMODE(proposed.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    for directory in (*proposed.parents, hive.paths.applied_root):
        if not directory.stat().st_mode & stat.S_IXOTH:  # the test's own, and the runner's above it
            os.chmod(directory, 0o755)
    url = f"url.{hive.paths.applied('alice')}.insteadOf=/applied/alice"  # as it is called inside
    fetched = subprocess.run(
        ["setpriv", "--reuid=61000", "--regid=61000", "--clear-groups", "git", "-c", url, "fetch", "applied"],
        cwd=proposed, env=QUIET, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr


# --- import ------------------------------------------------------------------


async def test_a_submitted_commit_is_there_and_stays_whatever_becomes_of_the_proposed_one(hive: Hive) -> None:
    first = await running(hive)
    sha = propose(hive, "Tools for alice\n\nShe asked.", agent_nix=TWO_STEPS.decode(), lib__tools_nix="{ }\n")
    commit = await hive.submit(packed(hive, sha), sha)
    assert (commit.sha, commit.message) == (sha, "Tools for alice\n\nShe asked.")
    assert commit.author == "Mallory <mallory@example.org>"
    shutil.rmtree(hive.paths.config("alice"))
    assert await hive.repo.has("alice", sha)
    assert await hive.repo.commit("alice", sha) == commit
    assert await hive.repo.tree("alice", sha) == {
        "agent.nix": File(TWO_STEPS, executable=False),
        "lib/tools.nix": File(b"{ }\n", executable=False),
    }
    assert await running(hive) == first
    assert hive.applied_git("fsck", "--strict", "--full", "--unreachable") == b""
    assert hive.leftovers() == []


async def test_the_same_commit_can_be_submitted_again(hive: Hive) -> None:
    sha = propose(hive, agent_nix="{ }")
    pack = packed(hive, sha)
    first, again = await asyncio.gather(hive.submit(pack, sha), hive.submit(pack, sha))
    assert first == again == await hive.submit(pack, sha)


async def test_only_what_is_new_is_imported_and_packs_are_joined(hive: Hive) -> None:
    size = 0
    for number in range(limits.PACKS_MAX + 3):
        await submit(hive, agent_nix=f"{{ x = {number}; }}\n")
        packs = list((hive.paths.applied("alice") / ".git/objects/pack").glob("*.pack"))
        size = sum(pack.stat().st_size for pack in packs)
        assert len(packs) <= limits.PACKS_MAX + 1
    assert size < 40_000  # and not each history again
    counted = hive.applied_git("count-objects", "-v").decode()
    assert "prune-packable: 0" in counted
    assert hive.applied_git("fsck", "--strict", "--full", "--unreachable") == b""


async def test_objects_that_do_not_belong_to_the_commit_stay_out(hive: Hive) -> None:
    workshop = Workshop()
    stowaway = workshop.blob(b"not part of any commit")
    sha = workshop.commit_of()
    await hive.submit(workshop.pack(), sha)
    assert await Git(hive.paths.applied("alice") / ".git").run("cat-file", "-t", sha) == b"commit\n"
    with pytest.raises(HiveError):
        await Git(hive.paths.applied("alice") / ".git").run("cat-file", "-t", stowaway)


async def test_an_import_that_was_interrupted_is_done_by_the_next(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = propose(hive, agent_nix="{ }")
    pack = packed(hive, sha)
    real = Git.run

    async def cut_short(git: Git, *arguments: str, **options: object) -> bytes:
        if arguments[0] == "update-ref":
            raise asyncio.CancelledError
        return await real(git, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Git, "run", cut_short)
        with pytest.raises(asyncio.CancelledError):
            await hive.submit(pack, sha)
    assert hive.leftovers() == []
    await hive.submit(pack, sha)
    assert hive.applied_git("for-each-ref", "--format=%(objectname)", f"refs/hive/imported/{sha}")


async def test_a_quarantine_that_a_killed_daemon_left_is_removed_by_the_next(hive: Hive) -> None:
    left = hive.paths.state_root / "staging" / f"{quarantine.PREFIX}dead"
    (left / "repository" / "objects").mkdir(parents=True)
    (left / "submitted").write_bytes(b"half")
    await submit(hive)  # by the same daemon: nobody else's is touched
    anew = Hive(hive.paths, ConfigRepo(hive.paths))
    await submit(anew, agent_nix="{ }")
    assert anew.leftovers() == []


async def test_cancelling_a_submit_leaves_nothing(hive: Hive) -> None:
    sha = propose(hive, agent_nix="{ }")
    pack = packed(hive, sha)
    for turns in (1, 5, 20, 60):
        task = asyncio.create_task(hive.submit(pack, sha))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert hive.leftovers() == []
    await hive.submit(pack, sha)


async def test_a_full_disk_is_said_and_leaves_nothing(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = propose(hive, agent_nix="{ }")
    pack = packed(hive, sha)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(quarantine, "copy_pack", full)
        with pytest.raises(Unavailable, match="No space left on device"):
            await hive.submit(pack, sha)
    assert hive.leftovers() == []
    await hive.submit(pack, sha)


async def test_other_kinds_of_commit_ids_are_refused_in_words(hive: Hive) -> None:
    pack = packed(hive, propose(hive))
    for sha, words in (
        ("a" * 64, "SHA-256"),
        ("HEAD", "40 hexadecimal"),
        ("--all", "40 hexadecimal"),
        ("A" * 40, "40"),
    ):
        with pytest.raises(CommitRefused, match=words):
            await hive.submit(pack, sha)
        with pytest.raises(BadRequest):
            await hive.repo.has("alice", sha)


async def test_without_an_applied_repository_nothing_is_taken(hive: Hive) -> None:
    sha = propose(hive)
    with pytest.raises(NotFound, match="rebuild"):
        await hive.submit(packed(hive, sha), sha, agent="nobody")
    assert await hive.repo.running("nobody") is None


async def test_agents_do_not_see_each_others_commits(tmp_path: Path) -> None:
    hive = await Hive.at(tmp_path, agents=("alice", "bob"))
    sha = await submit(hive)
    assert not await hive.repo.has("bob", sha)
    for call in (hive.repo.commit, hive.repo.tree, hive.repo.place):
        with pytest.raises(NotFound):
            await call("bob", sha)


async def test_a_pack_is_read_from_its_start_wherever_its_descriptor_stands(hive: Hive) -> None:
    sha = propose(hive)
    name = hive.put(packed(hive, sha))
    descriptor = open_pack(hive.run_dir, name)
    os.lseek(descriptor, 100, os.SEEK_SET)
    assert (await hive.repo.receive("alice", descriptor, sha)).sha == sha
    os.close(descriptor)  # still the caller's


# --- names -------------------------------------------------------------------


async def test_tags_name_commits_once_and_can_be_set_twice(hive: Hive) -> None:
    first, sha = await running(hive), await submit(hive)
    await hive.repo.tag("alice", "proposal/1", sha)
    await hive.repo.tag("alice", "denied/1", sha, "Not this.\n\x1b[2J\0 \u202eReally.\ud800")
    for _ in range(2):
        await hive.repo.tag("alice", "proposal/1", sha)
        await hive.repo.tag("alice", "denied/1", sha, "another note comes too late")
    assert await hive.repo.tags("alice") == {"proposal/1": sha, "denied/1": sha}
    with pytest.raises(Conflict, match="proposal/1 names commit"):
        await hive.repo.tag("alice", "proposal/1", first)
    note = hive.applied_git("for-each-ref", "--format=%(contents)", "refs/tags/denied/1").decode()
    assert note.startswith("Not this.\n")
    assert "\x1b" not in note
    assert hive.applied_git("fsck", "--strict") == b""


@pytest.mark.parametrize("name", ["proposal", "../x/1", "proposal/1/2", "-d/1", "proposal/x", "proposal/1 "])
async def test_other_names_for_tags_are_a_mistake(hive: Hive, name: str) -> None:
    with pytest.raises(ValueError, match="not a tag name"):
        await hive.repo.tag("alice", name, await running(hive))


async def test_the_branch_moves_only_from_where_it_was_expected(hive: Hive) -> None:
    first = await running(hive)
    one, two = await submit(hive, "one"), await submit(hive, "two")
    await hive.repo.advance("alice", one, expected=first)
    await hive.repo.advance("alice", one, expected=first)  # again, after a crash
    with pytest.raises(Conflict, match="look again"):
        await hive.repo.advance("alice", two, expected=first)
    assert await running(hive) == one
    await hive.repo.advance("alice", first, expected=one)  # back
    both = (one, two)
    outcomes = await asyncio.gather(
        *(hive.repo.advance("alice", sha, expected=first) for sha in both), return_exceptions=True
    )
    [(winner, _)] = [pair for pair in zip(both, outcomes, strict=True) if pair[1] is None]  # either may
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict]
    assert await running(hive) == winner
    with pytest.raises(NotFound):
        await hive.repo.advance("alice", "0" * 39 + "1", expected=winner)


async def test_ancestry(hive: Hive) -> None:
    first, sha = await running(hive), await submit(hive)
    assert await hive.repo.descends("alice", sha, first)
    assert await hive.repo.descends("alice", sha, sha)
    assert not await hive.repo.descends("alice", first, sha)


# --- diff and files ----------------------------------------------------------


async def test_the_diff_against_what_runs_and_against_nothing(hive: Hive) -> None:
    first = await running(hive)
    sha = await submit(hive, agent_nix="{ }\n", lib__x_nix="1\n")
    changed, added = await hive.repo.diff("alice", first, sha)
    assert (changed.path, changed.change, changed.added, changed.deleted) == ("agent.nix", "modified", 1, 7)
    assert (added.path, added.change, added.text) == ("lib/x.nix", "added", "@@ -0,0 +1 @@\n+1\n")
    assert [file.change for file in await hive.repo.diff("alice", None, sha)] == ["added", "added"]
    assert await hive.repo.diff("alice", sha, sha) == []
    with pytest.raises(NotFound):
        await hive.repo.diff("alice", "1" * 40, sha)


async def test_export_writes_a_fresh_directory(hive: Hive, tmp_path: Path) -> None:
    workshop = Workshop()
    program = workshop.blob(b"#!/bin/sh\n")
    deep = workshop.tree((FILE, b"c.nix", workshop.blob(b"{ }")))
    lib = workshop.tree((DIRECTORY, b"b", deep), (PROGRAM, b"run", program))
    sha = workshop.commit_of((DIRECTORY, b"lib", lib))
    await hive.submit(workshop.pack(), sha)
    target = tmp_path / "builds" / "1" / "tree"
    (target / "old").mkdir(parents=True)
    for _ in range(2):
        await hive.repo.export("alice", sha, target)
        found = {
            str(path.relative_to(target)): stat.S_IMODE(path.lstat().st_mode) for path in target.rglob("*")
        }
        assert found == {
            "agent.nix": 0o644, "lib": 0o755, "lib/b": 0o755, "lib/b/c.nix": 0o644, "lib/run": 0o755
        }  # fmt: skip


async def test_what_runs_is_put_in_place_also_after_an_interruption(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await running(hive)
    applied = hive.paths.applied("alice")
    sha = await submit(hive, agent_nix=TWO_STEPS.decode(), lib__tools_nix="{ }", lib__deep_nix="{ }")
    await hive.repo.advance("alice", sha, expected=first)
    (applied / "flake.nix").write_text("generated")
    real, moves = os.rename, []

    def interrupted(source: Path, target: Path) -> None:
        if moves:
            raise KeyboardInterrupt
        moves.append(target)
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(placing.os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            await hive.repo.place("alice", sha)
    for _ in range(2):
        await hive.repo.place("alice", sha)
        assert (applied / "agent.nix").read_bytes() == TWO_STEPS
        assert sorted(path.name for path in (applied / "lib").iterdir()) == ["deep.nix", "tools.nix"]
        assert (applied / "flake.nix").read_text() == "generated"
        assert hive.applied_git("status", "--porcelain") == b"?? flake.nix\n"
    await hive.repo.place("alice", first)
    assert sorted(path.name for path in applied.iterdir()) == [".git", "agent.nix", "flake.nix"]
    assert hive.leftovers() == []
