"""A proposed repository that is a trap for whoever runs git in it (SECURITY 6).

Each trap is shown to work: a plain git command in that repository runs the attacker's program, or reads what
it should not. Core does everything it does with a configuration and springs none, because it neither runs
git there nor opens anything.
"""

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hive_core.config_repo import CommitRefused
from hive_core.containers.command import CommandFailed
from hive_core.git import quarantine
from hive_core.git.program import Git
from tests.support.git_objects import FILE, QUIET, Hive, Workshop, plain_git


@dataclass(frozen=True)
class Trap:
    """How an agent sets it, in its own repository, and what would spring it."""

    set: Callable[[Path, str], None]
    spring: tuple[str, ...]


def configure(*settings: tuple[str, str]) -> Callable[[Path, str], None]:
    def set_trap(proposed: Path, program: str) -> None:
        for key, value in settings:
            plain_git(proposed, "config", key, value.format(program=program))

    return set_trap


def attribute(line: str, *settings: tuple[str, str]) -> Callable[[Path, str], None]:
    def set_trap(proposed: Path, program: str) -> None:
        configure(*settings)(proposed, program)
        (proposed / ".git/info").mkdir(exist_ok=True)
        (proposed / ".git/info/attributes").write_text(line + "\n")
        (proposed / "agent.nix").write_text("{ changed = true; }\n")

    return set_trap


def include(proposed: Path, program: str) -> None:
    (proposed / "more").write_text(f"[core]\n\tfsmonitor = {program}\n")
    plain_git(proposed, "config", "include.path", str(proposed / "more"))


def include_if(proposed: Path, program: str) -> None:
    (proposed / "more").write_text(f"[core]\n\tfsmonitor = {program}\n")
    plain_git(proposed, "config", "includeIf.onbranch:main.path", str(proposed / "more"))


def hooks(proposed: Path, program: str) -> None:
    (proposed / ".git/hooks").mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-commit", "post-commit", "reference-transaction", "post-index-change"):
        shutil.copy(program, proposed / ".git/hooks" / name)


def hooks_elsewhere(proposed: Path, program: str) -> None:
    (proposed / "mine").mkdir()
    shutil.copy(program, proposed / "mine/reference-transaction")
    plain_git(proposed, "config", "core.hooksPath", str(proposed / "mine"))


def git_is_a_file(proposed: Path, program: str) -> None:
    """`.git` says that the repository is elsewhere."""
    configure(("core.fsmonitor", "{program}"))(proposed, program)
    (proposed / ".git").rename(proposed / "elsewhere")
    (proposed / ".git").write_text(f"gitdir: {proposed / 'elsewhere'}\n")


def git_is_a_link(proposed: Path, program: str) -> None:
    configure(("core.fsmonitor", "{program}"))(proposed, program)
    (proposed / ".git").rename(proposed / "elsewhere")
    (proposed / ".git").symlink_to(proposed / "elsewhere")


def work_tree_elsewhere(proposed: Path, program: str) -> None:
    configure(("core.fsmonitor", "{program}"), ("core.worktree", "/"))(proposed, program)


TRAPS = {
    "fsmonitor": Trap(configure(("core.fsmonitor", "{program}")), ("status",)),
    "include": Trap(include, ("status",)),
    "conditional include": Trap(include_if, ("status",)),
    "hooks": Trap(hooks, ("checkout", "-q", "-f", "main")),
    "hooksPath": Trap(hooks_elsewhere, ("update-ref", "refs/heads/x", "HEAD")),
    "sshCommand": Trap(
        configure(("core.sshCommand", "{program}"), ("remote.applied.url", "ssh://host/x")),
        ("fetch", "applied"),
    ),
    "gitProxy": Trap(
        configure(("core.gitProxy", "{program}"), ("remote.applied.url", "git://host/x")),
        ("fetch", "applied"),
    ),
    "uploadpack": Trap(
        configure(("remote.applied.uploadpack", "{program}"), ("remote.applied.url", ".")),
        ("fetch", "applied"),
    ),
    # Today's git takes this from nobody's repository; older ones did.
    "packObjectsHook": Trap(configure(("uploadpack.packObjectsHook", "{program}")), ()),
    "external transport": Trap(
        configure(("protocol.ext.allow", "always"), ("remote.applied.url", "ext::{program}")),
        ("fetch", "applied"),
    ),
    "credential helper": Trap(
        configure(("credential.helper", "!{program}")), ("credential", "fill")
    ),
    "clean filter": Trap(attribute("* filter=trap", ("filter.trap.clean", "{program}")), ("add", ".")),
    "smudge filter": Trap(
        attribute("* filter=trap", ("filter.trap.smudge", "{program}")), ("checkout", "-q", "-f", "main")
    ),
    "process filter": Trap(
        attribute("* filter=trap", ("filter.trap.process", "{program}")), ("archive", "main")
    ),
    "textconv": Trap(attribute("* diff=trap", ("diff.trap.textconv", "{program}")), ("diff",)),
    "diff driver": Trap(attribute("* diff=trap", ("diff.trap.command", "{program}")), ("diff",)),
    "diff.external": Trap(attribute("", ("diff.external", "{program}")), ("diff",)),
    "alias": Trap(configure(("alias.st", "!{program}")), ("st",)),
    "gpg": Trap(
        configure(("gpg.program", "{program}"), ("commit.gpgSign", "true")),
        ("commit", "--allow-empty", "-m", "x"),
    ),
    "editor": Trap(configure(("core.editor", "{program}")), ("commit", "--allow-empty")),
    ".git is a file": Trap(git_is_a_file, ("status",)),
    ".git is a link": Trap(git_is_a_link, ("status",)),
    "core.worktree": Trap(work_tree_elsewhere, ("status",)),
}  # fmt: skip


@pytest.fixture
async def hive(tmp_path: Path) -> Hive:
    return await Hive.at(tmp_path / "hive")


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    """There once the attacker's program has run."""
    return tmp_path / "sprung"


@pytest.fixture
def program(tmp_path: Path, sprung: Path) -> str:
    place = tmp_path / "program"
    place.write_text(f"#!/bin/sh\necho ran >> {shlex.quote(str(sprung))}\nexit 1\n")
    place.chmod(0o755)
    return str(place)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every git that core runs leaves a line here: where it ran, with which repository, and its words."""
    place = tmp_path / "calls"
    place.touch()
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\necho "$PWD $GIT_DIR $GIT_WORK_TREE $GIT_INDEX_FILE $*" >> {shlex.quote(str(place))}\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    return place


async def everything(hive: Hive, workshop: Workshop, sha: str) -> None:
    """All that core ever does with a configuration."""
    repo, first = hive.repo, await hive.repo.running("alice")
    assert first is not None
    await hive.submit(workshop.pack(), sha)
    await repo.commit("alice", sha)
    await repo.tree("alice", sha)
    for base in (None, first):
        await repo.diff("alice", base, sha)
    await repo.tag("alice", "proposal/1", sha)
    await repo.tag("alice", "approved/1", sha, "a note")
    await repo.tags("alice")
    await repo.descends("alice", sha, first)
    await repo.export("alice", sha, hive.paths.builds / "1" / "tree")
    await repo.advance("alice", sha, expected=first)
    await repo.place("alice", sha)
    assert not await repo.create("alice")
    assert not await repo.create_proposed("alice", None)


def a_change() -> tuple[Workshop, str]:
    workshop = Workshop()
    return workshop, workshop.commit_of((FILE, b"tools.nix", workshop.blob(b"{ }\n")))


@pytest.mark.parametrize("name", TRAPS)
async def test_no_trap_in_the_proposed_repository_is_sprung(
    hive: Hive, name: str, program: str, sprung: Path, calls: Path
) -> None:
    proposed = hive.paths.config("alice")
    TRAPS[name].set(proposed, program)
    assert not sprung.exists()
    calls.write_text("")
    await everything(hive, *a_change())
    assert not sprung.exists()
    assert calls.read_text().count("\n") > 20
    assert str(proposed) not in calls.read_text()
    if TRAPS[name].spring:
        spring(proposed, TRAPS[name])
        assert sprung.exists()  # what anyone who runs git there would have done


def spring(proposed: Path, trap: Trap) -> None:
    """Run git there as somebody would who does not know; whether it fails is no matter."""
    subprocess.run(
        ["git", *trap.spring], cwd=proposed, env=QUIET, input=b"protocol=https\nhost=x\n\n",
        capture_output=True, timeout=60,
    )  # fmt: skip


async def test_core_needs_nothing_of_the_proposed_repository(hive: Hive) -> None:
    """The surest proof that it is not read: everything works where it is gone, or can only be hung on."""
    proposed = hive.paths.config("alice")
    shutil.rmtree(proposed)
    proposed.mkdir()
    os.mkfifo(proposed / ".git")
    os.mkfifo(proposed / "agent.nix")
    await everything(hive, *a_change())
    assert stat.S_ISFIFO((proposed / ".git").lstat().st_mode)


async def test_links_in_the_proposed_work_tree_are_not_followed(hive: Hive, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host\n")
    proposed = hive.paths.config("alice")
    (proposed / "agent.nix").unlink()
    (proposed / "agent.nix").symlink_to(secret)
    workshop, sha = a_change()
    await everything(hive, workshop, sha)
    for place in (hive.paths.applied("alice"), hive.paths.builds / "1" / "tree"):
        assert not (place / "agent.nix").is_symlink()
        assert "of the host" not in (place / "agent.nix").read_text()
    assert secret.read_text() == "of the host\n"


async def test_a_proposed_repository_is_never_made_over_something(hive: Hive, tmp_path: Path) -> None:
    """Whatever an agent puts in the place of its repository, core leaves it alone."""
    proposed, elsewhere = hive.paths.config("alice"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(proposed)
    proposed.mkdir()
    (proposed / ".git").symlink_to(elsewhere)
    assert not await hive.repo.create_proposed("alice", None)
    assert list(elsewhere.iterdir()) == []
    assert (proposed / ".git").readlink() == elsewhere


async def test_alternates_lend_nothing(tmp_path: Path, program: str) -> None:
    """alice's manager knows the name of an object of bob's, and asks for it in a commit of alice's."""
    hive = await Hive.at(tmp_path / "hive", agents=("alice", "bob"))
    secret = Workshop()
    key = secret.blob(b"bob's key\n")
    theirs = secret.commit_of((FILE, b"key", key))
    await hive.submit(secret.pack(), theirs, agent="bob")
    proposed = hive.paths.config("alice")
    (proposed / ".git/objects/info/alternates").write_text(f"{hive.paths.applied('bob')}/.git/objects\n")
    assert plain_git(proposed, "cat-file", "blob", key) == b"bob's key\n"  # the trap works, for a git there
    workshop = Workshop()
    agent = workshop.blob()
    sha = workshop.commit(workshop.tree((FILE, b"agent.nix", agent), (FILE, b"key", key)))
    with pytest.raises(CommitRefused, match="not whole"):
        await hive.submit(workshop.pack(), sha)
    assert not await hive.repo.has("alice", sha)


async def test_alternates_planted_for_the_quarantine_would_be_the_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard of the test before is that a quarantine has no alternates: with some, the commit passes."""
    hive = await Hive.at(tmp_path / "hive", agents=("alice", "bob"))
    key = Workshop().blob(b"bob's key\n")
    plain_git(hive.paths.applied("bob"), "hash-object", "-w", "--stdin", given=b"bob's key\n")
    workshop = Workshop()
    sha = workshop.commit(workshop.tree((FILE, b"agent.nix", workshop.blob()), (FILE, b"key", key)))
    real = quarantine.lay_out

    def leaky(directory: Path, *, bare: bool) -> Git:
        git = real(directory, bare=bare)
        alternates = directory / "objects/info/alternates"
        alternates.write_text(f"{hive.paths.applied('bob')}/.git/objects\n")
        return git

    monkeypatch.setattr(quarantine, "lay_out", leaky)
    await hive.submit(workshop.pack(), sha)
    assert (await hive.repo.tree("alice", sha))["key"].data == b"bob's key\n"


async def test_the_machines_own_git_configuration_has_no_part(
    hive: Hive, tmp_path: Path, program: str, sprung: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the operator's, nor what the daemon happens to have in its environment."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n\tfsmonitor = {program}\n\thooksPath = {home}\n[diff]\n\texternal = {program}\n"
        "[init]\n\tdefaultObjectFormat = sha256\n[commit]\n\tgpgSign = true\n"
    )
    shutil.copy(program, home / "reference-transaction")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(hive.paths.config("alice") / ".git"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", program)
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={program}'")
    monkeypatch.setenv("GIT_ALTERNATE_OBJECT_DIRECTORIES", str(hive.paths.config("alice") / ".git/objects"))
    await everything(hive, *a_change())
    assert await hive.repo.create("carol")
    assert not sprung.exists()
    real = Git._environment

    def trusting(git: Git, index: Path | None) -> dict[str, str]:
        return {**real(git, index), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "GIT_CONFIG_COUNT": "0"}

    monkeypatch.setattr(Git, "_environment", trusting)
    with pytest.raises(CommandFailed, match="aborted by hook"):
        await hive.repo.create("dave")
    assert sprung.exists()
