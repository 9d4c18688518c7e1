"""Calls written so that a rule reads something else than the tool does."""

import shutil
import subprocess

import pytest

from hive_agent.backends.base import BackendConfig
from hive_agent.backends.openai_policy import AllowList
from hive_shared.paths import ContainerPaths
from hive_shared.permissions import ToolCall, denies, matches, rule_for
from tests.conftest import need

GIT = "Bash(git *)"


def bash(command: str) -> ToolCall:
    return ToolCall("Bash", {"command": command}, "/state")


@pytest.mark.parametrize(
    "command",
    [
        r"git log $'\'' ; evil #'",
        "git log # '\nevil #'",
        "git log;# '\nevil #'",
        "git apply <<EOF\ngit '\nEOF\nevil #'",
        "git apply <<'EOF'\ngit \"\nEOF\nevil #\"",
        'git log "$\\\n(evil)"',
        'git log "${x:-$\\\n(evil)}"',
        "x='a[$(evil)]'\ngit log ${y[x]}",
        "git log a\\\n#'\ngit log' ; evil #'",
        "git log <(evil)",
        "git log >(evil)",
        "{ evil; }",
        "git log |& evil",
        "git log & evil",
        "git log\nevil",
        "git=1 evil",
    ],
)
def test_what_bash_runs_besides_git_is_not_allowed_by_a_rule_for_git(command: str) -> None:
    need(shutil.which("bash"), "there is no bash")
    mine = "git() { cat >/dev/null 2>&1 </dev/null; :; }; evil() { echo EVIL >&2; echo 0; };\n"
    ran = subprocess.run(
        ["bash", "-c", mine + command], capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )
    assert b"EVIL" in ran.stderr, ran  # or this would attack nothing
    assert not matches(GIT, bash(command))


def test_a_space_that_is_none_to_a_shell_makes_another_program() -> None:
    for space in "\u00a0\u2003\r\x0b\x0c\x1c":
        assert not matches(GIT, bash(f"git{space}/evil"))
        assert not matches(GIT, bash(f"{space}git status"))


@pytest.mark.parametrize(
    "command",
    [
        "git log --format='%h # it' # why: it is short",
        "git commit -m \"costs $5, $$, ${HOME} and '$x'\"",
        "git add a \\\n  b",
        "git apply < a.patch",
        "git hash-object --stdin <<< 'a b'",
    ],
)
def test_ordinary_lines_are_still_read(command: str) -> None:
    assert matches(GIT, bash(command))


def test_a_comment_or_a_quote_hides_nothing_that_is_denied() -> None:
    for command in ("echo # '\nrm x #'", r"echo $'\'' ; rm x #'"):
        assert denies("Bash(rm *)", bash(command))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.net\\@example.org/",
        "https://example.org@evil.net/",
        "https://evil.net\\.example.org/",
        " https://example.org/",
        "https:example.org",
        "https:///example.org",
        "https://ex%61mple.org/",
        "https://example.org\t.evil.net/",
    ],
)
def test_a_host_that_programs_read_differently_is_not_allowed_and_may_be_the_denied_one(url: str) -> None:
    call = ToolCall("WebFetch", {"url": url})
    assert not matches("WebFetch(domain:example.org)", call)
    assert not matches("WebFetch(domain:*example.org)", call)
    assert denies("WebFetch(domain:example.org)", call)
    assert rule_for(call) == ""
    assert denies("WebFetch(domain:example.org)", ToolCall("WebFetch", {"url": "https://example.org./"}))


def test_two_slashes_are_one() -> None:
    call = ToolCall("Read", {"file_path": "//etc/shadow"}, "/state")
    assert denies("Read(/etc/*)", call)


@pytest.mark.parametrize("pattern", ["/etc/**", "../etc/*", "a/../../etc/*", "{../etc,a}/*", "{a,..}/etc/*"])
def test_a_pattern_of_glob_leads_nowhere_else(pattern: str) -> None:
    assert not matches("Glob(/state*)", ToolCall("Glob", {"pattern": pattern}, "/state"))
    assert matches("Glob(/state*)", ToolCall("Glob", {"pattern": "**/*.py"}, "/state"))


def test_many_stars_are_matched_without_going_back() -> None:
    """What an agent writes for a rule with stars would take a regular expression for ever."""
    stars = "*".join("a" * 12)
    assert not matches(f"Bash(x{stars}b)", bash("x" + "a" * 30_000))
    for long in ("echo " + "# " * 100_000, "A=1 env " * 20_000 + "x", "# '\n" * 20_000):
        assert not denies("Bash(rm *)", bash(long))
    assert matches("Bash(a*b*c)", bash("a-b-b-c"))
    assert not matches("Bash(a*bc*c)", bash("abc"))


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("Glob", {"file_path": "ok/a", "path": "/etc", "pattern": "*"}),
        ("Grep", {"file_path": "ok/a", "path": "/etc", "pattern": "x"}),
        ("Glob", {"path": "ok", "pattern": "/etc/*"}),
        ("Glob", {"path": "ok", "pattern": "../../etc/*"}),
        ("Read", {"path": "ok/a", "file_path": "/etc/passwd"}),
    ],
)
async def test_the_list_of_the_openai_backend_looks_at_the_path_that_is_used(
    tool: str, arguments: dict[str, str]
) -> None:
    allowed = AllowList(BackendConfig(ContainerPaths(), "a", "agent", "m", builtin_tools=[f"{tool}(ok*)"]))
    assert not (await allowed.decide(tool, arguments, "")).allowed
    inside = {"pattern": "*.py", "path": "ok", "file_path": "ok/a"}
    assert (await allowed.decide(tool, inside, "")).allowed
