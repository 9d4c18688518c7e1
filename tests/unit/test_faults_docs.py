"""`docs/faults.md` names tests for every kind of failure, and every test that it names is there."""

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "faults.md").read_text()

_ROW = re.compile(r"^\| (?!what fails|---)(.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_TEST = re.compile(r"`(test_\w+)::(test_\w+)`")


def functions_of(file: Path) -> set[str]:
    body = ast.parse(file.read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def faults_of(page: str) -> list[str]:
    """Rows without a test, tests that are not there, and modules of tests/faults that no row names."""
    files = {file.stem: file for file in (PROJECT / "tests").rglob("test_*.py")}
    rows = [(what, _TEST.findall(tests)) for what, _, tests in _ROW.findall(page)]
    named = {module for _, tests in rows for module, _ in tests}
    found = [f"no test: {what}" for what, tests in rows if not tests]
    found += [
        f"not there: {module}::{test}"
        for _, tests in rows
        for module, test in tests
        if module not in files or test not in functions_of(files[module])
    ]
    ours = sorted(name for name, file in files.items() if file.parent.name == "faults")
    return found + [f"in no row: {name}" for name in ours if name not in named]


def test_every_failure_has_tests_that_exist() -> None:
    assert faults_of(PAGE) == []
    assert len(_ROW.findall(PAGE)) >= 15


def test_the_check_sees_what_is_missing() -> None:
    planted = PAGE.replace("::test_doctor_finds_a_damaged_page", "::test_nobody_wrote")
    assert faults_of(planted) == ["not there: test_broken_disk::test_nobody_wrote"]
    planted = PAGE.replace("`test_deploy_killed::", "`").replace("test_migrations::test_a_downgrade", "x::y")
    assert "in no row: test_deploy_killed" in faults_of(planted)
    assert any(fault.startswith("no test:") for fault in faults_of(planted))
