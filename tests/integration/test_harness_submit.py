"""What the harness makes of a ref in a proposed repository: a pack for core, or why there is none."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
import uvloop

from hive_agent.submit import Submissions
from hive_shared.errors import BadRequest, Conflict, HiveError, InvalidName, NotFound, TimedOut
from hive_shared.paths import ContainerPaths
from hive_shared.wire import RequestApplyCommit
from tests.conftest import need
from tests.support.harness import container_paths
from tests.support.proposed import commit, git, make_repository, unpacked


@pytest.fixture(autouse=True)
def _git_is_there() -> None:
    need(shutil.which("git"), "git is not installed; install the package `git`")


@pytest.fixture
def paths(tmp_path: Path) -> ContainerPaths:
    return container_paths(tmp_path)


@pytest.fixture
def repository(paths: ContainerPaths) -> Path:
    return make_repository(paths.agents / "alice" / "config")


async def refusal(paths: ContainerPaths, ref: str = "HEAD", agent: str = "alice") -> HiveError:
    """Why it was refused; fails if it was not, or if anything is left behind."""
    with pytest.raises(HiveError) as caught:
        async with Submissions(paths).packed(agent, ref):
            pass
    assert list(paths.run.iterdir()) == []
    return caught.value


async def test_the_pack_holds_the_commit_with_its_whole_history(
    paths: ContainerPaths, repository: Path, tmp_path: Path
) -> None:
    first = commit(repository, "first", agent_nix="{ }")
    second = commit(repository, "Sécond\n\nbody", agent_nix="{ a = 1; }", extra_nix="{ }")

    async with Submissions(paths).packed("alice", "HEAD") as packed:
        pack = paths.run / packed.pack
        assert pack.stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in paths.run.iterdir()] == [packed.pack]
        alone = unpacked(pack.read_bytes(), tmp_path / "alone")

    assert (packed.commit, packed.subject, packed.hints) == (second, "Sécond", ())
    assert git(alone, "rev-list", second).splitlines() == [second, first]
    assert git(alone, "show", f"{second}:agent.nix") == "{ a = 1; }"
    assert list(paths.run.iterdir()) == []
    RequestApplyCommit(agent="alice", commit=packed.commit, pack=packed.pack)


@pytest.mark.parametrize("ref", ["HEAD", "main", "v1", "v1^{}", "HEAD~1", "HEAD@{1}", "old", "short"])
async def test_every_way_to_name_a_commit(paths: ContainerPaths, repository: Path, ref: str) -> None:
    first = commit(repository, "first", agent_nix="1")
    git(repository, "branch", "old")
    second = commit(repository, "second", agent_nix="2")
    git(repository, "tag", "-a", "-m", "t", "v1")
    git(repository, "pack-refs", "--all")
    expected = first if ref in ("HEAD~1", "HEAD@{1}", "old") else second

    async with Submissions(paths).packed("alice", second[:10] if ref == "short" else ref) as packed:
        assert packed.commit == expected
    elsewhere = "This is not the commit that is checked out"
    assert any(hint.startswith(elsewhere) for hint in packed.hints) == (expected == first)


async def test_objects_that_the_repository_borrows_are_in_the_pack(
    paths: ContainerPaths, tmp_path: Path
) -> None:
    origin = make_repository(tmp_path / "origin")
    sha = commit(origin, agent_nix="{ }")
    git(tmp_path, "clone", "-q", "--shared", str(origin), str(paths.agents / "alice" / "config"))

    async with Submissions(paths).packed("alice", "HEAD") as packed:
        data = (paths.run / packed.pack).read_bytes()

    shutil.rmtree(origin)
    assert git(unpacked(data, tmp_path / "alone"), "cat-file", "-t", sha) == "commit"


async def test_what_is_not_committed_is_pointed_out(paths: ContainerPaths, repository: Path) -> None:
    commit(repository, agent_nix="{ }", other_nix="{ }", gone_nix="{ }")
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "exclude").write_text("*.log\n")
    (repository / "noise.log").touch()
    async with Submissions(paths).packed("alice", "HEAD") as packed:
        assert packed.hints == ()

    (repository / "agent.nix").write_text("{ a = 1; }")
    async with Submissions(paths).packed("alice", "HEAD") as packed:
        assert packed.hints == ("1 file has changes that are not in this commit.",)

    (repository / "new.nix").touch()
    (repository / "gone.nix").unlink()
    git(repository, "add", "agent.nix")
    async with Submissions(paths).packed("alice", "HEAD") as packed:
        assert packed.hints == ("3 files have changes that are not in this commit.",)


async def test_the_work_tree_and_the_repository_stay_as_they_are(
    paths: ContainerPaths, repository: Path
) -> None:
    commit(repository, agent_nix="{ }")
    (repository / "agent.nix").write_text("{ a = 1; }")

    def state() -> dict[str, tuple[int, bytes | None]]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
            for path in sorted(repository.rglob("*"))
        }

    before = state()
    async with Submissions(paths).packed("alice", "HEAD"):
        assert state() == before
    assert state() == before


async def test_nothing_committed_yet(paths: ContainerPaths, repository: Path) -> None:
    (repository / "agent.nix").write_text("{ }")

    error = await refusal(paths)

    assert isinstance(error, Conflict)
    assert "nothing is committed yet" in error.message
    assert "`git commit`" in error.message


@pytest.mark.parametrize(
    "ref", ["nope", "main:agent.nix", "main^{tree}", "--all", "-h", "HEAD..main", "@{u}"]
)
async def test_a_ref_that_names_no_commit(paths: ContainerPaths, repository: Path, ref: str) -> None:
    commit(repository, agent_nix="{ }")

    error = await refusal(paths, ref)

    assert isinstance(error, BadRequest)
    assert error.field == "commit_ref"
    assert repr(ref) in error.message
    assert "git log --oneline --all" in error.message


@pytest.mark.parametrize("ref", ["", "a\nb", "a\0b", "x" * 257, "\x1b[2J", "\N{RIGHT-TO-LEFT OVERRIDE}main"])
async def test_a_ref_that_cannot_be_one(paths: ContainerPaths, repository: Path, ref: str) -> None:
    error = await refusal(paths, ref)

    assert isinstance(error, BadRequest)
    assert "printable" in error.message


async def test_a_name_that_two_refs_have_is_refused(paths: ContainerPaths, repository: Path) -> None:
    commit(repository, "first", agent_nix="1")
    git(repository, "tag", "same")
    commit(repository, "second", agent_nix="2")
    git(repository, "branch", "same")

    error = await refusal(paths, "same")

    assert isinstance(error, BadRequest)
    assert "more than one thing" in error.message


async def test_a_directory_that_is_no_repository(paths: ContainerPaths) -> None:
    (paths.agents / "alice" / "config").mkdir(parents=True)

    error = await refusal(paths)

    assert isinstance(error, Conflict)
    assert "no git repository" in error.message
    assert str(paths.applied / "alice") in error.message


async def test_an_agent_that_is_not_there(paths: ContainerPaths) -> None:
    error = await refusal(paths, agent="carol")

    assert isinstance(error, NotFound)
    assert "prepare_spawn" in error.message
    for name in ("../alice", "", "ALICE", "operator"):
        assert isinstance(await refusal(paths, agent=name), InvalidName)


async def test_the_manager_submits_its_own(paths: ContainerPaths) -> None:
    sha = commit(make_repository(paths.agents / "hm1nd" / "config"), agent_nix="{ }")
    async with Submissions(paths).packed("hm1nd", "HEAD") as packed:
        assert packed.commit == sha


async def test_a_shallow_clone(paths: ContainerPaths, tmp_path: Path) -> None:
    origin = make_repository(tmp_path / "origin")
    commit(origin, "first", agent_nix="1")
    commit(origin, "second", agent_nix="2")
    place = paths.agents / "alice" / "config"
    git(tmp_path, "clone", "-q", "--depth", "1", origin.as_uri(), str(place))

    error = await refusal(paths)

    assert isinstance(error, Conflict)
    assert "git fetch --unshallow" in error.message


async def test_a_sha256_repository(paths: ContainerPaths) -> None:
    commit(make_repository(paths.agents / "alice" / "config", "--object-format=sha256"), agent_nix="{ }")

    error = await refusal(paths)

    assert isinstance(error, Conflict)
    assert "SHA-256" in error.message


async def test_a_linked_work_tree(paths: ContainerPaths, tmp_path: Path) -> None:
    origin = make_repository(tmp_path / "origin")
    commit(origin, agent_nix="{ }")
    git(origin, "worktree", "add", "-q", str(paths.agents / "alice" / "config"), "-b", "other")

    error = await refusal(paths)

    assert isinstance(error, Conflict)
    assert "linked work tree" in error.message


async def test_a_history_with_a_hole(paths: ContainerPaths, repository: Path) -> None:
    first = commit(repository, "first", agent_nix="1")
    commit(repository, "second", agent_nix="2")
    blob = git(repository, "rev-parse", f"{first}:agent.nix")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()

    error = await refusal(paths)

    assert isinstance(error, Conflict)
    assert "missing or damaged" in error.message


async def test_a_pack_over_the_limit_is_not_kept(paths: ContainerPaths, repository: Path) -> None:
    (repository / "large").write_bytes(os.urandom(300_000))
    commit(repository, agent_nix="{ }")
    (repository / "large").unlink()
    commit(repository, "too late: it is in the history")

    with pytest.raises(Conflict, match=r"0\.25 MiB.*nor into its history"):
        async with Submissions(paths, max_bytes=2**18).packed("alice", "HEAD"):
            pass
    assert list(paths.run.iterdir()) == []


async def test_git_that_takes_too_long_is_ended(
    paths: ContainerPaths, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, agent_nix="{ }")
    git(repository, "pack-refs", "--all")
    (repository / ".git" / "packed-refs").unlink()
    os.mkfifo(repository / ".git" / "packed-refs")  # git waits for a writer
    monkeypatch.setattr("hive_agent.git.TIMEOUT_SECONDS", 0.2)

    assert isinstance(await refusal(paths), TimedOut)


async def test_the_pack_is_gone_however_the_call_ends(paths: ContainerPaths, repository: Path) -> None:
    commit(repository, agent_nix="{ }")
    with pytest.raises(ZeroDivisionError):
        async with Submissions(paths).packed("alice", "HEAD"):
            raise ZeroDivisionError
    assert list(paths.run.iterdir()) == []


def test_leftovers_of_a_killed_harness_are_removed_and_nothing_else(
    paths: ContainerPaths, repository: Path
) -> None:
    name = "submit-" + "0" * 32
    (paths.run / f"{name}.pack").touch()
    view = paths.run / f"{name}.git"
    view.mkdir()
    (view / "objects").symlink_to(repository / ".git" / "objects")
    (paths.run / f"{name[:-1]}1.pack").symlink_to(repository / ".git" / "HEAD")
    (paths.run / "submit-me.pack").touch()
    (paths.run / "mcp.sock").touch()

    Submissions(paths).clear()

    assert sorted(entry.name for entry in paths.run.iterdir()) == ["mcp.sock", "submit-me.pack"]
    assert (repository / ".git" / "objects").is_dir()
    assert (repository / ".git" / "HEAD").exists()


def test_it_works_on_the_event_loop_that_the_harness_has(paths: ContainerPaths, repository: Path) -> None:
    sha = commit(repository, agent_nix="{ }")

    async def submit() -> str:
        async with Submissions(paths).packed("alice", "HEAD") as packed:
            return packed.commit

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [runner.run(submit()) for _ in range(5)] == [sha] * 5
