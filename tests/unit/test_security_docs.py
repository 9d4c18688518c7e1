"""`docs/security.md` names an attack for every rule, and every test that it names is there."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "security.md").read_text()
RULES = range(1, 16)
ATTACKS = ("tests/attack", "tests/browser")

_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_TEST = re.compile(r"`(test_\w+)::(test_\w+)`")


def rows(page: str) -> dict[int, list[tuple[str, str]]]:
    """The tests that each rule names: module and function."""
    return {int(number): _TEST.findall(tests) for number, _, _, tests in _ROW.findall(page)}


def existing_tests() -> dict[str, tuple[Path, set[str]]]:
    found = {}
    for file in (PROJECT / "tests").rglob("test_*.py"):
        functions = {
            node.name
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        found[file.stem] = (file.relative_to(PROJECT), functions)
    return found


def missing(page: str) -> list[str]:
    """Named tests that do not exist, and rules without a row or an attack."""
    there, table = existing_tests(), rows(page)
    faults = [f"rule {number} has no row" for number in RULES if number not in table]
    for number, named in table.items():
        faults += [f"{file}::{test}" for file, test in named if test not in there.get(file, (None, set()))[1]]
        places = {str(there[file][0].parent) for file, _ in named if file in there}
        if not places & {*ATTACKS, "tests/unit"}:
            faults.append(f"rule {number} has no attack")
    return faults


def test_every_rule_is_attacked_by_tests_that_exist() -> None:
    assert missing(PAGE) == []
    assert set(rows(PAGE)) == set(RULES)
    assert all(len(named) >= 2 for named in rows(PAGE).values())


def test_rules_with_a_guard_in_code_are_attacked_and_not_only_tested() -> None:
    there = existing_tests()
    only_tested = {
        number
        for number, named in rows(PAGE).items()
        if not any(str(there[file][0].parent) in ATTACKS for file, _ in named)
    }
    assert only_tested == {15}, "what is locked is read, not attacked"


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (
            PAGE.replace("::test_a_login_code_works_once", "::test_a_login_code_works_twice"),
            "test_web_session::test_a_login_code_works_twice",
        ),
        (PAGE.replace("| 9 |", "| ninth |"), "rule 9 has no row"),
        (
            re.sub(r"^(\| 7 \|.*\|) .*? \|$", r"\1 trust us |", PAGE, flags=re.MULTILINE),
            "rule 7 has no attack",
        ),
    ],
    ids=["a test that is gone", "a rule that is gone", "a rule without a test"],
)
def test_the_check_sees_what_is_missing(planted: str, fault: str) -> None:
    assert fault in missing(planted)


def test_the_page_says_what_it_must() -> None:
    for heading in (
        "Who there is",
        "What is worth stealing",
        "What is promised",
        "What is not promised",
        "Reporting a vulnerability",
    ):
        assert f"\n## {heading}\n" in PAGE
    for limit in ("kernel", "malicious operator", "shared", "provider sees everything", "isolation"):
        assert limit in PAGE.partition("## What is not promised")[2]


def test_the_page_is_found_from_the_others() -> None:
    assert "(docs/security.md)" in (PROJECT / "README.md").read_text()
    assert "(security.md)" in (PROJECT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("page", ["security.md"])
def test_what_the_page_links_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (PROJECT / "docs" / page).read_text()):
        assert (PROJECT / "docs" / target).is_file()
