"""Which hive a command means."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from hive_core.cli_target import BadConfiguration, Target, find_target, local_root
from hive_core.config import load_settings
from hive_shared.paths import HostPaths


def target(directory: Path, environment: Mapping[str, str] | None = None, **flags: Path) -> Target:
    return find_target(environment=environment or {}, directory=directory, **flags)


def test_without_anything_it_is_the_hive_of_the_machine(tmp_path: Path) -> None:
    assert target(tmp_path).socket == Path("/run/hyperhive/host.sock")


def test_a_local_hive_is_found_in_the_present_directory(tmp_path: Path) -> None:
    (tmp_path / ".hive").mkdir()
    assert target(tmp_path).paths == HostPaths.under(tmp_path / ".hive")


def test_a_local_hive_is_found_from_deep_inside_the_project_and_from_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / ".hive").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert local_root(deep) is None
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "hive_core").mkdir()
    assert local_root(deep) == tmp_path / ".hive"


def test_a_planted_hive_of_somebody_else_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / ".hive"
    planted.mkdir()
    assert local_root(tmp_path) == planted
    if os.geteuid() == 0:
        os.chown(planted, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert local_root(tmp_path) is None


def test_root_beats_environment_beats_file_beats_place(tmp_path: Path) -> None:
    (tmp_path / ".hive").mkdir()
    config = tmp_path / "hive.toml"
    config.write_text('run_root = "/file/run"\n')
    assert target(tmp_path, config=config).socket == Path("/file/run/host.sock")
    assert target(tmp_path, {"HIVE_CONFIG": str(config)}).socket == Path("/file/run/host.sock")
    environment = {"HIVE_ROOT": "/env"}
    assert target(tmp_path, environment, config=config).socket == Path("/env/run/host.sock")
    assert target(tmp_path, environment, config=config, root=Path("/flag")).socket == Path(
        "/flag/run/host.sock"
    )
    socket = Path("/s.sock")
    assert target(tmp_path, environment, root=Path("/flag"), socket=socket).socket == socket


def test_the_socket_alone_can_come_from_the_environment(tmp_path: Path) -> None:
    assert target(tmp_path, {"HIVE_SOCKET": "/e.sock"}).socket == Path("/e.sock")
    assert target(tmp_path, {"HIVE_SOCKET": "/e.sock"}, root=Path("/flag")).socket == Path(
        "/flag/run/host.sock"
    )


VALUES = {
    "HIVE_ROOT": "/e",
    "HIVE_STATE_ROOT": "/es",
    "HIVE_RUN_ROOT": "/er",
    'root = "/f"': "",
    'state_root = "/fs"': "",
    'run_root = "/fr"': "",
}
COMBINATIONS = [
    chosen for length in range(1, len(VALUES) + 1) for chosen in itertools.combinations(VALUES, length)
]


def test_commands_and_the_daemon_agree_on_where_the_hive_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("HIVE_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "hive.toml"
    for chosen in COMBINATIONS:
        config.write_text("\n".join(line for line in chosen if not line.startswith("HIVE_")))
        environment = {name: VALUES[name] for name in chosen if name.startswith("HIVE_")}
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            expected = load_settings({}, config).paths
        assert target(tmp_path, environment, config=config).paths == expected, chosen


@pytest.mark.parametrize("content", [b"run_root = ", b"\xff"])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "hive.toml"
    config.write_bytes(content)
    with pytest.raises(BadConfiguration, match=r"hive\.toml: not TOML"):
        target(tmp_path, config=config)


def test_the_hint_names_the_command_that_starts_this_very_hive(tmp_path: Path) -> None:
    config = tmp_path / "hive.toml"
    config.write_text('root = "/f"')
    assert target(tmp_path, root=Path("/x")).start_hint == "hive-c0re serve --root /x"
    assert target(tmp_path, config=config).start_hint == f"hive-c0re serve --config {config}"
    assert target(tmp_path).start_hint == "hive-c0re serve"
