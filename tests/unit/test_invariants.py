"""doctor --deep: every invariant, broken on purpose, is found; what is safe is repaired, and nothing else."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hive_core import cli, invariants
from hive_core.doctor import Verdict
from hive_core.one_daemon import locked
from hive_shared.paths import HostPaths
from tests.support import proposing
from tests.support.backup_hive import broken, copied, execute, query, resting_hive, run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("template") / "hive"
    run(resting_hive(root, "alice"))
    return root


@pytest.fixture
def hive(template: Path, tmp_path: Path) -> HostPaths:
    return copied(template, tmp_path / "hive")


def test_nothing_is_found_where_everything_is_well_and_nothing_is_changed(hive: HostPaths) -> None:
    shutil.rmtree(hive.run_root)
    found = invariants.examine(hive)
    assert {finding.verdict for finding in found} == {Verdict.OK}, found
    assert not hive.run_root.exists()
    assert not (hive.state_root / "hive-c0re.lock").exists()


def no_state(hive: HostPaths) -> None:
    shutil.rmtree(hive.state("alice"))


def state_is_a_link(hive: HostPaths) -> None:
    shutil.rmtree(hive.state("alice"))
    hive.state("alice").symlink_to("/etc")


def unknown_directory(hive: HostPaths) -> None:
    (hive.agents / "ghost").mkdir()


def same_port(hive: HostPaths) -> None:
    execute(hive, "UPDATE agent SET port = 8102")


def other_port(hive: HostPaths) -> None:
    hive.port_file("alice").write_text("8999\n")


def no_repository(hive: HostPaths) -> None:
    shutil.rmtree(hive.applied("alice") / ".git")


def no_objects(hive: HostPaths) -> None:
    shutil.rmtree(hive.applied("alice") / ".git" / "objects")
    (hive.applied("alice") / ".git" / "objects").mkdir()


def wrong_tag(hive: HostPaths) -> None:
    other = proposing.git(hive.applied("alice"), "commit-tree", "-m", "x", "main^{tree}").decode().strip()
    proposing.git(hive.applied("alice"), "update-ref", "refs/tags/deployed/1", other)


def tag_of_no_approval(hive: HostPaths) -> None:
    proposing.git(hive.applied("alice"), "update-ref", "refs/tags/proposal/77", "main")


def other_branch(hive: HostPaths) -> None:
    other = proposing.git(hive.applied("alice"), "commit-tree", "-m", "x", "main^{tree}").decode().strip()
    proposing.git(hive.applied("alice"), "update-ref", "refs/heads/main", other)


def commit_gone(hive: HostPaths) -> None:
    execute(hive, f"UPDATE approval SET commit_sha = '{'1' * 40}' WHERE agent = 'alice'")


def no_system(hive: HostPaths) -> None:
    hive.system_file("alice").unlink()


def damaged_system(hive: HostPaths) -> None:
    hive.system_file("alice").write_text("{")


def message_for_nobody(hive: HostPaths) -> None:
    execute(hive, "UPDATE message SET recipient = 'ghost'")


def damaged_database(hive: HostPaths) -> None:
    hive.database.write_bytes(b"x" * 8192)


def no_database(hive: HostPaths) -> None:
    hive.database.unlink()


def newer_database(hive: HostPaths) -> None:
    execute(hive, "UPDATE alembic_version SET version_num = '9999'")


ONLY_TOLD: dict[Callable[[HostPaths], None], str] = {
    no_state: "is missing",
    state_is_a_link: "is no directory",
    unknown_directory: "is of no agent",
    same_port: "shares port 8102",
    other_port: "says '8999'",
    no_repository: "no applied repository",
    no_objects: "is damaged",
    wrong_tag: "tag deployed/1 names",
    tag_of_no_approval: "tag proposal/77 is of no approval",
    other_branch: "what was deployed last is",
    commit_gone: "is gone",
    no_system: "is missing",
    damaged_system: "cannot be read",
    message_for_nobody: "wait for nobody",
    damaged_database: "cannot be read",
    no_database: "does not exist",
    newer_database: "newer hyperhive",
}


@pytest.mark.parametrize("damage", ONLY_TOLD, ids=lambda damage: damage.__name__)
def test_what_could_lose_something_is_told_with_what_to_do(
    hive: HostPaths, damage: Callable[[HostPaths], None]
) -> None:
    damage(hive)
    found = broken(hive, repair=True)
    assert any(ONLY_TOLD[damage] in finding.found for finding in found), found
    assert all(finding.verdict is Verdict.BROKEN and finding.get for finding in found)
    assert all("\n" not in finding.found + finding.get for finding in found)


def open_state(hive: HostPaths) -> None:
    hive.state_root.chmod(0o755)


def open_credentials(hive: HostPaths) -> None:
    (hive.claude("alice") / ".credentials.json").chmod(0o644)


def open_database(hive: HostPaths) -> None:
    hive.database.chmod(0o644)


def missing_tag(hive: HostPaths) -> None:
    proposing.git(hive.applied("alice"), "update-ref", "-d", "refs/tags/deployed/1")


def changed_file(hive: HostPaths) -> None:
    (hive.applied("alice") / "agent.nix").write_text("something else")


def done_and_leased(hive: HostPaths) -> None:
    execute(hive, "UPDATE message SET acked_at_ms = 5, lease = 'local/c1'")


def sockets_of_nobody(hive: HostPaths) -> None:
    (hive.run_root / "agents" / "ghost").mkdir(parents=True, mode=0o700)
    (hive.run_root / "agents").chmod(0o700)


REPAIRED = [open_state, open_credentials, open_database, missing_tag, changed_file, done_and_leased,
            sockets_of_nobody]  # fmt: skip


@pytest.mark.parametrize("damage", REPAIRED, ids=lambda damage: damage.__name__)
def test_what_is_safe_is_repaired_when_asked_for(
    hive: HostPaths, damage: Callable[[HostPaths], None]
) -> None:
    damage(hive)
    assert [finding.verdict for finding in broken(hive)] == [Verdict.BROKEN]  # looking repairs nothing
    assert [finding.verdict for finding in broken(hive, repair=True)] == [Verdict.REPAIRED]
    assert broken(hive) == []


def test_beside_a_daemon_only_rights_are_taken_away(hive: HostPaths) -> None:
    changed_file(hive)
    open_credentials(hive)
    with locked(hive):
        found = {finding.name: finding for finding in broken(hive, repair=True)}
    assert found["permissions"].verdict is Verdict.REPAIRED
    assert found["configurations"].verdict is Verdict.BROKEN
    assert "stop the daemon" in found["configurations"].get
    assert (hive.applied("alice") / "agent.nix").read_text() == "something else"


def test_leases_of_a_killed_daemon_are_no_damage(hive: HostPaths) -> None:
    execute(hive, "UPDATE message SET lease = 'local/c1'")
    assert broken(hive, repair=True) == []
    assert query(hive, "SELECT count(*) FROM message WHERE lease IS NULL") == [(0,)]


def test_a_repair_does_not_go_through_an_agents_link(hive: HostPaths, tmp_path: Path) -> None:
    """SECURITY 9: a credentials file that is a link to the host's, or another name of it, stays as it is."""
    host = tmp_path / "host"
    host.write_text("x")
    host.chmod(0o666)
    secret = hive.claude("alice") / ".credentials.json"
    secret.unlink()
    secret.symlink_to(host)
    invariants.examine(hive, repair=True)
    secret.unlink()
    os.link(host, secret)
    found = broken(hive, repair=True)
    assert [finding.verdict for finding in found] == [Verdict.BROKEN]
    assert stat.S_IMODE(host.stat().st_mode) == 0o666


def test_the_command(
    hive: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def doctor(*options: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["--root", str(tmp_path / "hive"), "doctor", *options])
        return int(ended.value.code or 0)

    monkeypatch.setattr("hive_core.doctor.examine", lambda machine: [])
    open_credentials(hive)
    assert doctor("--repair") == 2
    capsys.readouterr()
    assert doctor() == 0
    assert doctor("--deep") == 1
    said = capsys.readouterr()
    assert "broken" in said.out
    assert "say what to do" in said.err
    assert doctor("--deep", "--repair", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], "repaired" in {check["verdict"] for check in report["checks"]}) == (True, True)
