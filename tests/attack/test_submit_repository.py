"""SECURITY 6, on the harness's side: a repository that names programs, and a harness that packs its commit.

Whoever wrote /agents/alice/config wrote its configuration, hooks and attributes too. Each attack is shown to
be a real one twice: plain git in that repository runs the program; and where the harness uses the very
command that is attacked, so does the harness when its guard (the view of the repository) is taken away.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hive_agent import submit
from hive_agent.submit import Proposed, RepositoryView, Submissions
from hive_shared.errors import Conflict, HiveError
from hive_shared.paths import ContainerPaths
from tests.conftest import need
from tests.support.harness import container_paths
from tests.support.proposed import IDENTITY, commit, git, make_repository


@dataclass
class Trap:
    """A proposed repository, and a program that must never run."""

    repository: Path
    root: Path

    @property
    def marker(self) -> Path:
        return self.root / "it-ran"

    @property
    def program(self) -> Path:
        return self.root / "program"

    def set(self, *settings: str) -> None:
        """`name=value` into the repository's own configuration."""
        for setting in settings:
            git(self.repository, "config", *setting.split("=", 1))

    def file(self, path: str, text: str, mode: int = 0o644) -> Path:
        target = self.repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    def stale(self) -> None:
        """Make git look at agent.nix again: its time is not the one in the index."""
        os.utime(self.repository / "agent.nix", (1, 1))


@pytest.fixture
def paths(tmp_path: Path) -> ContainerPaths:
    need(shutil.which("git"), "git is not installed; install the package `git`")
    return container_paths(tmp_path)


@pytest.fixture
def trap(paths: ContainerPaths, tmp_path: Path) -> Trap:
    made = Trap(make_repository(paths.agents / "alice" / "config"), tmp_path)
    made.program.write_text(f'#!/bin/sh\n: > {made.marker}\ncase "$1" in -|"") cat;; esac\n')
    made.program.chmod(0o755)
    commit(made.repository, agent_nix="{ }")
    return made


def fsmonitor(trap: Trap) -> None:
    trap.set(f"core.fsmonitor={trap.program}")


def included_file(trap: Trap) -> None:
    inc = trap.file(".git/more", f"[core]\n\tfsmonitor = {trap.program}\n")
    trap.set(f"include.path={inc}")


def conditional_include(trap: Trap) -> None:
    inc = trap.file(".git/more", f"[core]\n\tfsmonitor = {trap.program}\n")
    trap.set(f"includeIf.gitdir:/**.path={inc}")


def common_directory(trap: Trap) -> None:
    other = make_repository(trap.root / "other")
    commit(other, agent_nix="{ }")
    git(other, "config", "core.fsmonitor", str(trap.program))
    trap.file(".git/commondir", str(other / ".git"))
    trap.file(".git/index", (other / ".git" / "index").read_text("latin-1"))
    shutil.copy(other / ".git" / "index", trap.repository / ".git" / "index")
    shutil.copytree(other / ".git" / "objects", trap.repository / ".git" / "objects", dirs_exist_ok=True)
    shutil.copytree(other / ".git" / "refs", trap.repository / ".git" / "refs", dirs_exist_ok=True)


def hooks_path(trap: Trap) -> None:
    trap.file("../hooks/post-index-change", f"#!/bin/sh\n: > {trap.marker}\n", 0o755)
    trap.set(f"core.hooksPath={trap.repository.parent / 'hooks'}")
    trap.stale()


def hook(trap: Trap) -> None:
    trap.file(".git/hooks/post-index-change", f"#!/bin/sh\n: > {trap.marker}\n", 0o755)
    trap.stale()


def clean_filter(trap: Trap) -> None:
    trap.file(".git/info/attributes", "* filter=evil\n")
    trap.set(f"filter.evil.clean={trap.program}")
    trap.stale()


def filter_process(trap: Trap) -> None:
    trap.file(".gitattributes", "* filter=evil\n")
    trap.set(f"filter.evil.process={trap.program}", "filter.evil.required=true")
    trap.stale()


def submodule(trap: Trap) -> None:
    inner = make_repository(trap.repository / "sub")
    commit(inner, agent_nix="{ }")
    git(trap.repository, "add", "sub")
    git(trap.repository, "commit", "-q", "-m", "with a submodule")
    git(inner, "config", "core.fsmonitor", str(trap.program))


def missing_object(trap: Trap) -> None:
    blob = git(trap.repository, "rev-parse", "HEAD:agent.nix")
    (trap.repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    trap.set(
        "core.repositoryformatversion=1",
        "extensions.partialClone=origin",
        f"remote.origin.url={trap.root}",
        "remote.origin.promisor=true",
        f"remote.origin.uploadpack={trap.program}",
    )


def signature(trap: Trap) -> None:
    plain = git(trap.repository, "cat-file", "commit", "HEAD")
    head, _, message = plain.partition("\n\n")
    signed = (
        f"{head}\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n{message}\n"
    )
    arguments = ("hash-object", "-t", "commit", "-w", "--stdin")
    git(trap.repository, "update-ref", "HEAD", git(trap.repository, *arguments, given=signed.encode()))
    trap.set("log.showSignature=true", f"gpg.program={trap.program}")


def textconv(trap: Trap) -> None:
    trap.file(".gitattributes", "* diff=evil\n")
    trap.set(f"diff.evil.textconv={trap.program}")


def external_diff(trap: Trap) -> None:
    trap.set(f"diff.external={trap.program}")
    trap.file("agent.nix", "{ changed = 1; }")


def pager(trap: Trap) -> None:
    trap.set(f"core.pager={trap.program} -")


def ssh_command(trap: Trap) -> None:
    trap.set(f"core.sshCommand={trap.program}", "remote.origin.url=ssh://nowhere.invalid/x")


def alternates(trap: Trap) -> None:
    outside = make_repository(trap.root / "outside")
    commit(outside, "theirs", agent_nix="{ theirs = 1; }")
    git(outside, "commit", "-q", "--allow-empty", "-m", "more")
    trap.file(".git/objects/info/alternates", f"{outside / '.git' / 'objects'}\n")
    trap.set(f"core.alternateRefsCommand={trap.program}", f"remote.origin.url={outside}")


STATUS = ("status",)

# How plain git is made to run the program, for each attack.
ATTACKS: dict[Callable[[Trap], None], tuple[str, ...]] = {
    fsmonitor: STATUS,
    included_file: STATUS,
    conditional_include: STATUS,
    common_directory: STATUS,
    hooks_path: STATUS,
    hook: STATUS,
    clean_filter: STATUS,
    filter_process: STATUS,
    submodule: STATUS,
    missing_object: ("cat-file", "-p", "HEAD:agent.nix"),
    signature: ("log", "-1"),
    textconv: ("log", "-p", "-1"),
    external_diff: ("diff",),
    pager: ("log",),
    ssh_command: ("fetch",),
    alternates: ("fetch",),
}

# Those that aim at a command which the harness itself runs.
AIMED_AT_THE_HARNESS = (
    fsmonitor,
    included_file,
    conditional_include,
    common_directory,
    hooks_path,
    hook,
    clean_filter,
    filter_process,
    missing_object,
)


def name_of(attack: object) -> str:
    return getattr(attack, "__name__", "")


def plain_git(trap: Trap, arguments: tuple[str, ...]) -> None:
    """As a person at a terminal runs it."""
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            ["git", *arguments],
            cwd=trap.repository,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", **IDENTITY},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            check=False,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)


async def submit_head(paths: ContainerPaths) -> None:
    with contextlib.suppress(Conflict):  # what is missing is missing
        async with Submissions(paths).packed("alice", "HEAD") as packed:
            assert (paths.run / packed.pack).stat().st_size > 0


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
async def test_packing_runs_no_program_of_the_repository(
    attack: Callable[[Trap], None], paths: ContainerPaths, trap: Trap
) -> None:
    attack(trap)
    trap.marker.unlink(missing_ok=True)

    await submit_head(paths)
    assert not trap.marker.exists()

    plain_git(trap, ATTACKS[attack])
    assert trap.marker.exists(), "this attack would have failed anyway"


@pytest.mark.parametrize("attack", AIMED_AT_THE_HARNESS, ids=name_of)
async def test_without_its_guard_the_harness_runs_them(
    attack: Callable[[Trap], None], paths: ContainerPaths, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def no_view(repository: Proposed, place: Path) -> Iterator[RepositoryView]:
        yield RepositoryView(repository, repository.path / ".git")

    monkeypatch.setattr(submit, "_view", no_view)
    monkeypatch.setattr("hive_agent.git._OPTIONS", ())
    monkeypatch.setattr("hive_agent.git._ENVIRONMENT", {})
    attack(trap)
    trap.marker.unlink(missing_ok=True)

    await submit_head(paths)

    assert trap.marker.exists()


@pytest.mark.parametrize("name", ["HEAD", "config", "index"])
async def test_files_of_the_repository_are_not_read_through_links(
    paths: ContainerPaths, trap: Trap, name: str
) -> None:
    secret = trap.root / "secret"
    secret.write_text("ref: refs/heads/main\n")
    (trap.repository / ".git" / name).unlink()
    (trap.repository / ".git" / name).symlink_to(secret)
    try:
        async with Submissions(paths).packed("alice", "HEAD") as packed:
            assert name == "index", "only the hint about the work tree may do without its file"
            assert packed.hints == ()
    except HiveError as error:
        assert name != "index"
        assert name in error.message


async def test_replaced_and_grafted_history_is_not_what_is_packed(paths: ContainerPaths, trap: Trap) -> None:
    """`git replace` shows one commit and the sha of another: what is submitted is what the sha says."""
    honest = git(trap.repository, "rev-parse", "HEAD")
    shown = commit(trap.repository, "looks harmless", agent_nix="{ harmless = 1; }")
    git(trap.repository, "reset", "-q", "--hard", honest)
    git(trap.repository, "replace", honest, shown)
    assert git(trap.repository, "log", "-1", "--format=%s") == "looks harmless"

    async with Submissions(paths).packed("alice", "HEAD") as packed:
        assert (packed.commit, packed.subject) == (honest, "change")
