"""git as an agent has it: it can commit at once, under its own name, and its own settings go before ours."""

import shutil
import subprocess
from pathlib import Path

import pytest

from hive_agent.boot import git_environment, write_boot_files
from hive_agent.config import NOT_ISOLATED
from hive_agent.harness import backend_config
from tests.conftest import need
from tests.support.harness import harness_config
from tests.support.proposed import commit, make_repository


@pytest.fixture(autouse=True)
def _git_is_there() -> None:
    need(shutil.which("git"), "git is not installed; install the package `git`")


def agents_git(root: Path, *arguments: str, home: Path | None = None, **changes: str) -> str:
    """What git prints in `root`/state for the agent's programs."""
    config = harness_config(root, environment={"PATH": "/usr/local/bin:/usr/bin:/bin"}, **changes)
    write_boot_files(config)
    environment = {**backend_config(config, "m").environment, "HOME": str(home or root / "nowhere")}
    done = subprocess.run(
        ["git", *arguments],
        cwd=config.paths.state,
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_an_agent_commits_under_its_own_name(tmp_path: Path) -> None:
    agents_git(tmp_path, "init", "-q")
    agents_git(tmp_path, "commit", "-q", "--allow-empty", "-m", "mine")
    assert agents_git(tmp_path, "log", "--format=%an <%ae> %D") == (
        "alice <alice@hyperhive.invalid> HEAD -> main"
    )


def test_what_the_agent_configures_goes_before(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    agents_git(tmp_path, "config", "--global", "user.name", "Alice the Great", home=home)
    assert agents_git(tmp_path, "config", "user.name", home=home) == "Alice the Great"
    assert agents_git(tmp_path, "config", "user.email", home=home) == "alice@hyperhive.invalid"


@pytest.mark.parametrize(
    ("role", "isolation", "trusts"),
    [
        ("manager", "bubblewrap", True),
        ("manager", NOT_ISOLATED, False),
        ("agent", "bubblewrap", False),
    ],
)
def test_only_a_manager_in_a_container_works_in_repositories_of_others(
    tmp_path: Path, role: str, isolation: str, trusts: bool
) -> None:
    settings = agents_git(tmp_path, "config", "--list", role=role, isolation=isolation)
    assert ("safe.directory=*" in settings.splitlines()) == trusts


def test_the_remote_applied_leads_to_what_runs_also_without_a_container(tmp_path: Path) -> None:
    running = make_repository(harness_config(tmp_path).paths.applied / "alice")
    sha = commit(running, agent_nix="{ }")
    agents_git(tmp_path, "init", "-q")
    agents_git(tmp_path, "remote", "add", "applied", "/applied/alice")

    agents_git(tmp_path, "fetch", "-q", "applied", role="manager", agent="hm1nd")

    assert agents_git(tmp_path, "rev-parse", "applied/main") == sha


def test_git_never_waits_at_a_prompt(tmp_path: Path) -> None:
    assert git_environment(harness_config(tmp_path).paths)["GIT_TERMINAL_PROMPT"] == "0"
