"""Rules about the programs' own source that a linter does not know (SECURITY 13, 14 and 15)."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    file
    for package in ("hive_core", "hive_agent", "hive_shared")
    for file in (PROJECT / package).rglob("*.py")
)

# Who may start a program, and which: always by an argument list.
STARTS_PROGRAMS = {
    "hive_core/backup/seal.py": "what encrypts a backup",
    "hive_core/containers/command.py": "every program of the host that is waited for",
    "hive_core/containers/local.py": "bubblewrap, whose output is the console",
    "hive_core/containers/launch.py": "the harness, at the end of the launcher",
    "hive_core/cli_pager.py": "the operator's pager",
    "hive_core/doctor.py": "what is asked for its version",
    "hive_agent/git.py": "git, in the container",
    "hive_agent/backends/claude_process.py": "the Claude Code CLI",
    "hive_agent/backends/login_claude.py": "its login",
    "hive_agent/backends/guard.py": "what it guards",
    "hive_agent/backends/codex.py": "the Codex CLI",
    "hive_agent/mcp_launch.py": "an MCP server that agent.nix declares, in the container",
    "hive_agent/backends/openai_run.py": "the tools Bash, Glob and Grep of an agent, in the container",
    "hive_agent/backends/rehearsal_edits.py": "what a rehearsal is told to run, in the container",
}
STARTING = {
    *(
        "subprocess.run",
        "subprocess.Popen",
        "subprocess.call",
        "subprocess.check_call",
        "subprocess.check_output",
    ),
    *("asyncio.create_subprocess_exec", "os.posix_spawn", "os.posix_spawnp", "os.fork", "os.forkpty"),
    *(f"os.exec{kind}" for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
}
# Text that becomes a command or code.
NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "asyncio.create_subprocess_shell"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "pickle.loads", "pickle.load", "marshal.loads"),
    *("shelve.open", "yaml.load", "ctypes.CDLL.__getattr__", "os.mktemp", "tempfile.mktemp"),
}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults_of(source: str) -> list[str]:
    found = [name for name, _ in calls(source) if name in NEVER]
    return found + [
        f"{name}(shell=…)" for name, call in calls(source) for each in call.keywords if each.arg == "shell"
    ]


def test_no_text_becomes_a_command_or_code() -> None:
    assert len(SOURCES) > 120
    assert {str(file): faults for file in SOURCES if (faults := faults_of(file.read_text()))} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "eval(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "pickle.loads(data)",
        "exec(text, {})",
    ],
)
def test_the_check_sees_it(planted: str) -> None:
    assert faults_of(f"def f(text, data):\n    return {planted}\n")


def test_programs_are_started_where_it_is_known() -> None:
    starting = {
        str(file.relative_to(PROJECT))
        for file in SOURCES
        if any(name in STARTING for name, _ in calls(file.read_text()))
    }
    assert starting - set(STARTS_PROGRAMS) == set()
    there = {name for name in STARTS_PROGRAMS if (PROJECT / name).exists()}
    assert there - starting == set(), "named in vain"


def test_the_linter_looks_for_what_is_insecure_everywhere() -> None:
    rules = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]

    assert "S" in rules["select"]
    assert {rule for rule in rules["ignore"] if rule.startswith("S")} == {"S603", "S607"}
    exempt = {
        place for place, given in rules["per-file-ignores"].items() if any(rule[0] == "S" for rule in given)
    }
    assert exempt == {"tests/**"}


def test_whoever_silences_the_linter_names_the_rule() -> None:
    for file in SOURCES:
        for line in file.read_text().split("\n"):
            if "noqa" in line:
                assert re.search(r"# noqa: [A-Z]+\d+", line), f"{file}: {line}"
            assert "type: ignore" not in line or "type: ignore[" in line, f"{file}: {line}"
