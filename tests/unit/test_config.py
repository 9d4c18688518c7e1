"""Settings: precedence of file, environment and flags, and errors that name field and source."""

from pathlib import Path

import pytest

from hive_core.config import BadConfig, Settings, load_settings
from hive_shared.paths import HostPaths


@pytest.fixture(autouse=True)
def no_outer_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("HIVE_"):
            monkeypatch.delenv(name)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hive.toml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_a_production_host() -> None:
    settings = load_settings()
    assert settings.paths == HostPaths()
    assert settings.dashboard_port == 7000
    assert settings.listen_address == "127.0.0.1"


def test_environment_wins_over_file_and_flags_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toml(tmp_path, 'model = "from-file"\ndashboard_port = 1111\nhost_name = "from-file"\n')
    monkeypatch.setenv("HIVE_MODEL", "from-env")
    monkeypatch.setenv("HIVE_DASHBOARD_PORT", "2222")
    settings = load_settings({"dashboard_port": 3333, "model": None}, config)
    assert (settings.host_name, settings.model, settings.dashboard_port) == ("from-file", "from-env", 3333)


def test_hive_config_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_CONFIG", str(toml(tmp_path, "inbox_depth = 7")))
    assert load_settings().inbox_depth == 7


def test_limits_merge_field_by_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toml(tmp_path, '[limits]\nmemory_max_bytes = "2 GiB"\ntasks_max = 100\n')
    monkeypatch.setenv("HIVE_LIMITS__TASKS_MAX", "200")
    limits = load_settings({}, config).limits
    assert (limits.memory_max_bytes, limits.tasks_max) == (2 * 2**30, 200)


def test_root_means_both_roots_and_beats_those_of_a_lower_layer(tmp_path: Path) -> None:
    config = toml(tmp_path, 'state_root = "/srv/state"\nrun_root = "/srv/run"\n')
    settings = load_settings({"root": str(tmp_path / "all")}, config)
    assert settings.paths == HostPaths.under(tmp_path / "all")
    both = load_settings({"root": str(tmp_path / "all"), "run_root": "/elsewhere"})
    assert both.paths == HostPaths(state_root=tmp_path / "all" / "lib", run_root=Path("/elsewhere"))


def test_relative_roots_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"root": ".hive"}).state_root == tmp_path / ".hive" / "lib"


def test_lists_and_tables_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_ALLOWED_HOSTS", "one, https://two ,")
    monkeypatch.setenv("HIVE_AGENT_ENVIRONMENT", '{"ANTHROPIC_BASE_URL": "http://x"}')
    settings = load_settings()
    assert settings.allowed_hosts == ["one", "https://two"]
    assert settings.agent_environment == {"ANTHROPIC_BASE_URL": "http://x"}


@pytest.mark.parametrize(
    ("variables", "flags", "file", "wanted"),
    [
        ({"HIVE_DASHBOARD_PORT": "no"}, {}, "", "environment variable HIVE_DASHBOARD_PORT: dashboard_port:"),
        ({"HIVE_LIMITS__TASKS_MAX": "1"}, {}, "", "environment variable HIVE_LIMITS__TASKS_MAX"),
        ({}, {"isolation": "perhaps"}, "", "flag --isolation: isolation:"),
        ({}, {}, "colour = 1", "hive.toml: colour: there is no such setting"),
        ({}, {}, "[limits]\nspeed = 1", "hive.toml: limits.speed: there is no such setting"),
        ({}, {}, "dashboard_port = 70000", "hive.toml: dashboard_port:"),
        ({}, {}, "not toml", "hive.toml: not TOML"),
        ({"HIVE_AGENT_ENVIRONMENT": "x=1"}, {}, "", "must be a JSON object"),
        ({"HIVE_LIMITS": "{"}, {}, "", "environment:"),
    ],
)
def test_a_bad_value_is_one_line_naming_field_and_source(
    variables: dict[str, str],
    flags: dict[str, str],
    file: str,
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadConfig) as caught:
        load_settings(flags, toml(tmp_path, file) if file else None)
    assert wanted in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"gone\.toml: No such file"):
        load_settings({}, tmp_path / "gone.toml")


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "my_token", "GITHUB_TOKEN", "DB_PASSWORD", "CLIENT_SECRET", "apikey"]
)
def test_secrets_are_refused_in_agent_environment_without_being_shown(name: str) -> None:
    with pytest.raises(BadConfig, match="api_key_file") as caught:
        load_settings({"agent_environment": {name: "s3cr3t-value"}})
    assert "s3cr3t-value" not in caught.value.message


@pytest.mark.parametrize("name", ["HIVE_ROLE", "A=B", "A B", ""])
def test_agent_environment_refuses_what_is_ours_or_no_variable(name: str) -> None:
    with pytest.raises(BadConfig, match="agent_environment"):
        load_settings({"agent_environment": {name: "1"}})


def test_backend_auto_is_claude_only_if_its_cli_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive_core.config.PROJECT_CLAUDE", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Settings().chosen_backend() == "rehearsal"
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert Settings().chosen_backend() == "claude"
    assert Settings(claude_path=tmp_path / "other").chosen_backend() == "rehearsal"
    assert Settings(backend="claude").chosen_backend() == "claude"
