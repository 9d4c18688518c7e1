"""Attacks with a configuration: on core while it reads one, and on limits by what it says (SECURITY 8).

Each was seen to succeed with its guard removed: `TreeFiles` following links, `burn` and the depth not
counting, the parser without its progress callback, `check_variable` and `check_server_name` accepting all,
`LocalLimits.within` taking what is asked for.
"""

import asyncio
from pathlib import Path
from random import Random

import pytest

from hive_core.config import AgentLimits
from hive_core.containers import local_build
from hive_core.containers.base import BuildFailed
from hive_core.containers.local_build import Machine, build_apart, build_local
from hive_core.containers.local_system import LocalLimits
from hive_core.nix_module import parse

pytestmark = pytest.mark.slow

MACHINE = Machine()


def write(tree: Path, source: str | bytes) -> Path:
    tree.mkdir(exist_ok=True)
    (tree / "agent.nix").write_bytes(source.encode() if isinstance(source, str) else source)
    return tree


def refused(tree: Path, source: str) -> str:
    """Why a configuration with this module does not build; it must not."""
    with pytest.raises(BuildFailed) as failed:
        build_local(write(tree, source), lambda _: None)
    return failed.value.message


async def refused_apart(tree: Path, source: str | bytes) -> str:
    """The same, in the process that core really builds in."""
    with pytest.raises(BuildFailed) as failed:
        await build_apart(write(tree, source), lambda _: None, MACHINE)
    return failed.value.message


def doubling(seed: str, step: str) -> str:
    names = " ".join(f"a{n + 1} = {step.replace('@', f'a{n}')};" for n in range(90))
    return f"let a0 = {seed}; {names} in"


@pytest.mark.parametrize(
    "source",
    [
        "let f = x: f x; in { hyperhive.model = f 1; }",
        "let f = n: f (n + 1) + f (n + 1); in { hyperhive.model = f 1; }",
        "let f = n: if n == 0 then 1 else f (n - 1) + f (n - 1); in { hyperhive.model = f 60; }",
        doubling('"aaaaaaaa"', "@ + @") + " { hyperhive.model = a90; }",
        doubling("[ 1 ]", "@ ++ @") + " { hyperhive.allowedTools = a90; }",
        doubling("[ 1 ]", "[ @ @ ]") + " { hyperhive.model = builtins.toJSON a90; }",
        doubling("{ }", "{ a = @; b = @; }") + " { x = a90; hyperhive.model = if a90 == a90 then 1 else 2; }",
        "{ imports = [ ./agent.nix ] ++ import ./agent.nix; }",
        "let x = { imports = [ x ]; }; in x",
        "let f = n: { imports = [ (f (n + 1)) ]; }; in f 1",
        "let x = { a = x; }; in { environment.variables = x; }",
        "let x = [ x ]; in { environment.variables.A = x; }",
    ],
)
async def test_an_evaluation_without_end_is_a_failed_build(tmp_path: Path, source: str) -> None:
    message = await refused_apart(tmp_path / "tree", source)
    assert "could not be evaluated" not in message, "the evaluation's own limits must come first"


@pytest.mark.parametrize(
    "source",
    [
        "[" * 2**21,
        "{a=" * 80_000,
        "(" * 130_000 + ")" * 130_000,
        '"${' * 80_000,
        bytes(Random(1).choices(b"{}[]();=.,:\"$ab1 \n'", k=250_000)),
        Random(2).randbytes(200_000),
    ],
)
async def test_brackets_without_end_are_a_failed_build(tmp_path: Path, source: str | bytes) -> None:
    assert (await refused_apart(tmp_path / "tree", source)).startswith("agent.nix:")


async def test_a_build_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_build, "BUILD_SECONDS", 0.001)
    message = await refused_apart(tmp_path / "tree", "{ }")
    assert "agent.nix could not be evaluated" in message


async def test_core_goes_on_while_the_parser_works_on_brackets_without_end() -> None:
    soup = bytes(Random(1).choices(b"{}[]();=.,:\"$ab1 \n'", k=200_000))
    parsing = asyncio.create_task(asyncio.to_thread(parse.tree_of, soup, 60.0))
    turns = 0
    while not parsing.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 20, "the event loop stood still while the parser worked"
    assert parsing.result() is not None


@pytest.mark.parametrize(
    "path", ["./link.nix", "./directory/secret.nix", "./directory/../directory/secret.nix"]
)
def test_a_link_in_the_tree_shows_nothing_of_the_host(tmp_path: Path, path: str) -> None:
    """Core refuses links at submit time; the evaluation does not rely on that."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.nix").write_text('"stolen"')
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link.nix").symlink_to(outside / "secret.nix")
    (tree / "directory").symlink_to(outside)
    message = refused(tree, f"{{ hyperhive.model = import {path}; }}")
    assert "stolen" not in message


@pytest.mark.parametrize("call", ["import", "builtins.readFile", "builtins.pathExists", "lib.importJSON"])
@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "~/.ssh/id_rsa", "./. + ''/../outside''"])
def test_nothing_outside_the_configuration_is_read(tmp_path: Path, call: str, path: str) -> None:
    (tmp_path / "outside").write_text('"stolen"')
    message = refused(tmp_path / "tree", f"{{ lib, ... }}: {{ hyperhive.model = {call} ({path}); }}")
    assert "outside this configuration" in message


@pytest.mark.parametrize(
    "option",
    [
        'environment.variables.HIVE_ALLOWED_TOOLS = "[]";',
        'environment.sessionVariables."HIVE_ROLE" = "manager";',
        'environment.variables.${"HI" + "VE_AGENT"} = "hm1nd";',
        'environment.variables.LD_PRELOAD = "/state/evil.so";',
        'environment.variables.PYTHONSTARTUP = "/state/evil.py";',
        'environment.variables."A=B" = "x";',
        'environment.variables."" = "x";',
        'hyperhive.extraMcpServers.hyperhive = { command = "/state/evil"; };',
        'hyperhive.extraMcpServers.x = { command = "x"; env.HIVE_AGENT = "bob"; };',
        'hyperhive.allowedTools = [ "mcp__hyperhive__approve" ];',
        'hyperhive.bashAllow = [ "git *),Bash(*" ];',
        'hyperhive.model = "--dangerously-skip-permissions";',
    ],
)
def test_a_configuration_cannot_speak_for_core(tmp_path: Path, option: str) -> None:
    assert refused(tmp_path / "tree", f"{{ {option} }}").startswith("agent.nix")


async def test_the_log_holds_nothing_that_acts_on_a_terminal(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "agent.nix").write_text('{ "evil\x1b]0;x\x07\u202e\\n\\r2" = 1; hyperhive.model = "x"; }')
    lines: list[str] = []
    await build_apart(tree, lines.append, MACHINE)
    assert any("evil" in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_no_limit_of_the_operators_is_raised() -> None:
    operators = AgentLimits(memory_max_bytes=2**30, tasks_max=100, cpu_quota_percent=50, open_files=100)
    greedy = LocalLimits(memory_max_bytes=2**40, tasks_max=10**6, cpu_quota_percent=10**4, open_files=10**6)
    assert greedy.within(operators) == operators
