"""doctor: what is there, what is missing, how to get it."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hive_core import cli, doctor
from hive_core.doctor import Finding, Machine, Verdict
from hive_shared.paths import HostPaths
from tests.support.host_surface import STATUS, HostSurface


def machine(tmp_path: Path, **fields: Any) -> Machine:
    usual: dict[str, Any] = {
        "environment": dict(os.environ),
        "daemon": None,
        "claude": None,
        "dashboard_port": 0,
    }
    return Machine(paths=HostPaths.under(tmp_path), **{**usual, **fields})


def finding(machine_: Machine, name: str) -> Finding:
    return next(found for found in doctor.examine(machine_) if found.name == name)


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH, to put programs on."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv("HIVE_CHROMIUM", raising=False)
    return directory


def program(directory: Path, name: str, script: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_every_finding_that_is_not_ok_says_in_one_line_how_to_get_it(
    tmp_path: Path, no_programs: Path
) -> None:
    for found in doctor.examine(machine(tmp_path)):
        assert "\n" not in found.found + found.get
        assert (found.verdict is Verdict.OK) or found.get, found


def test_packages_are_named_for_debian_nixos_and_fedora(tmp_path: Path, no_programs: Path) -> None:
    for name, verdict in (("git", "missing"), ("bubblewrap", "optional"), ("chromium", "optional")):
        found = finding(machine(tmp_path), name)
        assert found.verdict == verdict
        for system in ("apt install", "NixOS:", "dnf install"):
            assert system in found.get


def test_bubblewrap_that_is_installed_and_does_not_work_is_not_ok(tmp_path: Path, no_programs: Path) -> None:
    program(no_programs, "bwrap", 'echo "bwrap: No permissions to create new namespace" >&2; exit 1')
    found = finding(machine(tmp_path), "bubblewrap")
    assert found.verdict is Verdict.OPTIONAL
    assert "No permissions" in found.found
    assert "not isolated" in found.found


def test_bubblewrap_is_really_run(tmp_path: Path, no_programs: Path) -> None:
    program(no_programs, "bwrap", f'echo "$@" >> {tmp_path}/calls; echo bubblewrap 1.0')
    assert finding(machine(tmp_path), "bubblewrap").verdict is Verdict.OK
    assert "-- " in (tmp_path / "calls").read_text()  # a command in a sandbox, not only --version


@pytest.mark.parametrize("wanted", [True, False])
def test_it_says_whether_system_calls_are_filtered_and_abstract_sockets_apart(
    tmp_path: Path, no_programs: Path, wanted: bool
) -> None:
    program(no_programs, "bwrap", f'echo "$@" >> {tmp_path}/calls; echo "  --seccomp FD"')
    findings = machine(tmp_path, system_call_filter=wanted)
    calls = finding(findings, "system call filter")
    assert calls.verdict is (Verdict.OK if wanted else Verdict.OPTIONAL)
    assert ("are filtered" in calls.found) is wanted
    assert finding(findings, "Landlock").verdict in (Verdict.OK, Verdict.OPTIONAL)


def test_a_bubblewrap_that_cannot_filter_is_told(tmp_path: Path, no_programs: Path) -> None:
    program(no_programs, "bwrap", "echo bubblewrap 0.1")
    found = finding(machine(tmp_path), "system call filter")
    assert found.verdict is Verdict.OPTIONAL
    assert "cannot be filtered" in found.found
    assert "apt install" in found.get


def test_without_the_claude_cli_it_says_that_rehearsal_is_used_and_how_to_get_it(tmp_path: Path) -> None:
    found = finding(machine(tmp_path), "claude")
    assert found.verdict is Verdict.OPTIONAL
    assert "not a model" in found.found
    assert "make claude" in found.get


def test_the_claude_cli_is_asked_for_its_version(tmp_path: Path) -> None:
    claude = program(tmp_path, "claude", 'echo "2.1.0 (Claude Code)"')
    found = finding(machine(tmp_path, claude=claude), "claude")
    assert (found.verdict, found.found) == (Verdict.OK, f"2.1.0 (Claude Code) at {claude}")


@pytest.mark.parametrize(("version", "verdict"), [("v16.20.0", "optional"), ("v20.1.0", "ok")])
def test_node_has_to_be_recent(tmp_path: Path, no_programs: Path, version: str, verdict: str) -> None:
    program(no_programs, "node", f"echo {version}")
    program(no_programs, "npm", "echo 10.0.0")
    assert finding(machine(tmp_path), "node and npm").verdict == verdict


def test_a_taken_dashboard_port_is_missing_and_the_free_one_is_ok(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = finding(machine(tmp_path, dashboard_port=port), "dashboard port")
        assert (found.verdict, str(port) in found.found) == (Verdict.MISSING, True)
    assert finding(machine(tmp_path, dashboard_port=port), "dashboard port").verdict is Verdict.OK


def test_ports_that_the_running_daemon_holds_are_no_problem(tmp_path: Path) -> None:
    findings = doctor.examine(machine(tmp_path, daemon="running, pid 1"))
    assert {found.name: found.verdict for found in findings}["ports"] is Verdict.OK
    assert findings[-1] == Finding("daemon", Verdict.OK, "running, pid 1")


def test_a_directory_that_cannot_be_written_is_missing_and_the_way_out_is_named(tmp_path: Path) -> None:
    nowhere = machine(Path("/proc/hive"))  # even root creates nothing there
    found = finding(nowhere, "state directory")
    assert (found.verdict, "--root ./.hive" in found.get) == (Verdict.MISSING, True)


def test_directories_that_can_be_created_are_ok_and_are_not_created(tmp_path: Path) -> None:
    assert finding(machine(tmp_path / "new"), "state directory").verdict is Verdict.OK
    assert not (tmp_path / "new").exists()


def test_little_disk_space_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_MIN_BYTES", 2**80)
    assert finding(machine(tmp_path), "disk space").verdict is Verdict.MISSING


@pytest.mark.parametrize(("mode", "verdict"), [(0o600, "ok"), (0o640, "missing"), (0o604, "missing")])
def test_an_api_key_that_others_can_read_is_told(tmp_path: Path, mode: int, verdict: str) -> None:
    file = tmp_path / "key"
    file.write_text("secret-value")
    file.chmod(mode)
    found = finding(machine(tmp_path, api_key_file=file), "API key file")
    assert found.verdict == verdict
    assert "secret-value" not in str(found)


@pytest.mark.parametrize(("mode", "verdict"), [(0o600, "ok"), (0o444, "missing")])
def test_notification_urls_that_others_can_read_are_told(
    tmp_path: Path, mode: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "urls"
    file.write_text("ntfy://secret-value")
    file.chmod(mode)
    found = finding(machine(tmp_path, notify_urls_file=file), "notification URLs")
    assert found.verdict == verdict
    assert "secret-value" not in str(found)
    assert found.get == ("" if verdict == "ok" else f"chmod 600 {file}")
    monkeypatch.setattr(doctor, "NIX_STORE", tmp_path)  # where no mode helps
    found = finding(machine(tmp_path, notify_urls_file=file), "notification URLs")
    assert verdict == "ok" or "outside" in found.get


def test_an_api_key_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert (
        finding(machine(tmp_path, api_key_file=tmp_path / "key"), "API key file").verdict is Verdict.MISSING
    )


def test_a_program_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROGRAM_SECONDS", 0.1)
    outcome = doctor.run([sys.executable, "-c", "import time; time.sleep(600)"])
    assert (outcome.ok, "did not end" in outcome.line) == (False, True)


def test_a_program_that_is_not_there_is_no_crash() -> None:
    assert doctor.run(["/does/not/exist"]) == doctor.Outcome(False, "No such file or directory")


# --- the command ------------------------------------------------------------


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith("HIVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HIVE_DASHBOARD_PORT", "0")
    return tmp_path


def run_doctor(root: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--root", str(root), "doctor", *options])
    return int(ended.value.code or 0)


def test_the_command_exits_with_0_where_a_hive_can_run(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_doctor(in_tmp, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {"python", "git", "daemon"} <= {check["name"] for check in report["checks"]}


def test_the_command_exits_with_1_when_something_required_is_missing(
    in_tmp: Path, no_programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_doctor(in_tmp) == 1
    said = capsys.readouterr()
    assert "missing   git" in said.out
    assert "something that a hive needs is missing" in said.err


def test_a_setting_that_cannot_be_is_a_finding(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HIVE_DASHBOARD_PORT", "many")
    assert run_doctor(in_tmp) == 1
    assert "HIVE_DASHBOARD_PORT" in capsys.readouterr().out


def test_a_running_daemon_is_found(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HostSurface(in_tmp / "run" / "host.sock").running() as host:
        host.replies["status"] = STATUS
        run_doctor(in_tmp, "--json")
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["daemon"]["verdict"] == "ok"
    assert "4711" in checks["daemon"]["found"]
