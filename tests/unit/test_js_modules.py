"""The unit tests of the pages' modules, which Node runs: tests/js/*.test.js."""

import re
import subprocess
from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[1] / "js"
FILES = sorted(PLACE.glob("*.test.js"))


def run(file: Path) -> tuple[int, str]:
    """The exit status and report of one file of tests."""
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", str(file)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=PLACE,
    )
    return done.returncode, done.stdout + done.stderr


def passed(report: str) -> int:
    found = re.search(r"^# pass (\d+)$", report, re.M)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".test.js"))
@pytest.mark.usefixtures("node_modules")
def test_modules(file: Path) -> None:
    status, report = run(file)
    assert status == 0, report
    assert passed(report) > 0, report


@pytest.mark.usefixtures("node_modules")
def test_a_failure_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "wrong.test.mjs"
    file.write_text('import test from "node:test"; test("wrong", () => { throw new Error("planted"); });\n')
    status, report = run(file)
    assert status != 0
    assert "planted" in report
