"""What the local runtime honours of a configuration, and what it says of the rest (SPEC section 7)."""

from pathlib import Path
from typing import Any

import pytest

from hive_core import config_repo
from hive_core.config import AgentLimits
from hive_core.containers.base import BuildFailed
from hive_core.containers.local_build import Machine, build_local
from hive_core.containers.local_options import HONOURED
from hive_core.containers.local_system import LocalLimits, LocalSystem, read_system, write_system
from hive_shared.context_options import ContextOptions
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths
from hive_shared.permissions import PermissionOptions
from tests.conftest import PROJECT


class Bench:
    """A machine with a few programs, and what a build on it says."""

    def __init__(self, root: Path) -> None:
        self.tree, self.bin = root / "tree", root / "bin"
        self.tree.mkdir()
        self.bin.mkdir()
        self.log: list[str] = []
        for program in ("git", "node", "python3", "uvx"):
            (self.bin / program).write_text("#!/bin/sh\n")
            (self.bin / program).chmod(0o755)

    def build(self, source: str, *, files: dict[str, str] | None = None, **machine: Any) -> LocalSystem:
        for name, text in {"agent.nix": source, **(files or {})}.items():
            (self.tree / name).parent.mkdir(exist_ok=True)
            (self.tree / name).write_text(text)
        return build_local(self.tree, self.log.append, Machine(search_path=str(self.bin), **machine))

    def options(self, options: str, **machine: Any) -> LocalSystem:
        return self.build(f"{{ pkgs, lib, config, ... }}: {{ {options} }}", **machine)

    def said(self, part: str) -> bool:
        return any(part in line for line in self.log)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


REALISTIC = """\
# The system of agent alice.
{ pkgs, lib, config, ... }:
let
  node = with pkgs; [ nodejs_22 pnpm ];
  editor = "vim";
in
{
  imports = [ ./modules/git.nix ];

  environment.systemPackages = with pkgs; [
    git ripgrep
    (python3.withPackages (ps: with ps; [ requests pytest ]))
  ] ++ node ++ lib.optionals (lib.elem "x" [ "y" ]) [ jq ];

  environment.variables = {
    EDITOR = editor;
    NODE_OPTIONS = "--max-old-space-size=${toString (2 * 1024)}";
    NOTES = ''
      one
        two
    '';
  };

  hyperhive = {
    model = lib.mkDefault "opus";
    limits = { memoryMax = "2G"; tasksMax = 100; };
    extraMcpServers.git = {
      command = "${pkgs.uv}/bin/uvx";
      args = [ "mcp-server-git" "--repository" "/state/work" ];
      env.GIT_PAGER = "cat";
    };
    bashAllow = [ "git *" "make *" ];
  };

  services.postgresql = { enable = true; package = pkgs.postgresql_16; };
  networking.hostName = config.hyperhive.name;
}
"""
GIT_MODULE = """\
{ lib, ... }: {
  programs.git.enable = true;
  hyperhive.model = "sonnet";
  environment.sessionVariables.GIT_TERMINAL_PROMPT = 0;
}
"""


def test_a_realistic_configuration(bench: Bench) -> None:
    system = bench.build(REALISTIC, files={"modules/git.nix": GIT_MODULE})
    assert system.environment == {
        "EDITOR": "vim",
        "NODE_OPTIONS": "--max-old-space-size=2048",
        "NOTES": "one\n  two\n",
        "GIT_TERMINAL_PROMPT": "0",
    }
    assert system.packages == ("git", "ripgrep", "python3.withPackages", "nodejs_22", "pnpm")
    assert system.missing == ("ripgrep (rg)", "pnpm")
    assert system.model == "sonnet"
    git = system.extra_mcp_servers["git"]
    assert git.command == str(bench.bin / "uvx")
    assert git.args == ("mcp-server-git", "--repository", "/state/work")
    assert git.env == {"GIT_PAGER": "cat"}
    assert system.bash_allow == ("git *", "make *")
    assert system.allowed_tools is None
    assert system.limits == LocalLimits(memory_max_bytes=2 * 2**30, tasks_max=100)
    assert system.not_honoured == (
        "programs.git.enable", "services.postgresql.enable", "services.postgresql.package",
        "networking.hostName",
    )  # fmt: skip


def test_a_policy_has_defaults_once_any_of_it_is_set(bench: Bench) -> None:
    system = bench.build('{ ... }: { hyperhive.permissions.deny = [ "Bash(rm *)" ]; }')
    assert system.permissions == PermissionOptions(deny=("Bash(rm *)",))
    assert system.permissions.default == "ask"
    said = '{ default = "deny"; allow = [ "Read" ]; askTimeoutSeconds = 60; }'
    system = bench.build(f"{{ ... }}: {{ hyperhive.permissions = {said}; }}")
    assert system.permissions == PermissionOptions(allow=("Read",), default="deny", ask_timeout_seconds=60)
    assert bench.build("{ ... }: { }").permissions is None


def test_when_a_conversation_is_made_shorter_may_be_a_share_or_tokens(bench: Bench) -> None:
    system = bench.build("{ ... }: { hyperhive.context = { compactAt = 120000; resetAt = 0.3; }; }")
    assert system.context == ContextOptions(compact_at=120_000, reset_at=0.3, cache_seconds=300)
    system = bench.build("{ ... }: { hyperhive.context = { compactAt = 0; cacheSeconds = 3600; }; }")
    assert system.context == ContextOptions(compact_at=0, cache_seconds=3600)
    assert bench.build("{ ... }: { }").context is None


def test_the_log_says_it_all_in_words(bench: Bench) -> None:
    bench.build(REALISTIC, files={"modules/git.nix": GIT_MODULE})
    for part in (
        "model: sonnet",
        "environment: EDITOR, GIT_TERMINAL_PROMPT, NODE_OPTIONS, NOTES",
        "tools: Edit, Glob, Grep, Read, TodoWrite, Write, Bash(git *), Bash(make *)",
        "packages on this machine: git, python3.withPackages (python3), nodejs_22 (node)",
        "packages NOT on this machine: ripgrep (rg), pnpm; ",
        "limit: memory 2 GiB",
        "only a NixOS host honours: programs.git.enable, services.postgresql.enable",
    ):
        assert bench.said(part), part


def test_the_first_commit_of_every_agent_builds(bench: Bench) -> None:
    assert bench.build(config_repo._AGENT_NIX.format(name="alice")) == LocalSystem()


def test_an_empty_module_changes_nothing(bench: Bench) -> None:
    assert bench.build("{ }") == LocalSystem()
    assert bench.build("{ ... }: { }") == LocalSystem()
    assert bench.build("{ options, modulesPath, inputs, self, ... }@args: { config = { }; }") == LocalSystem()


# --- merging, as the module system does it ---


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ('hyperhive.model = lib.mkForce "opus"; imports = [ { hyperhive.model = "sonnet"; } ];', "opus"),
        ('hyperhive = lib.mkForce { model = "opus"; }; imports = [ { hyperhive.model = "a"; } ];', "opus"),
        ('hyperhive.model = lib.mkDefault "a"; imports = [ { hyperhive.model = "b"; } ];', "b"),
        ('hyperhive.model = lib.mkIf (1 > 2) "a";', None),
        ('hyperhive = lib.mkIf true { model = "a"; };', "a"),
        ('hyperhive = lib.mkMerge [ { model = "a"; } (lib.mkIf false { model = "b"; }) ];', "a"),
        ('hyperhive.model = lib.mkMerge [ (lib.mkDefault "a") "b" ];', "b"),
        ('hyperhive.model = "a"; imports = [ { config.hyperhive.model = "a"; options = { }; } ];', "a"),
        ('imports = [ ({ pkgs, ... }: { hyperhive.model = "a"; }) ];', "a"),
    ],
)
def test_priorities_and_conditions(bench: Bench, options: str, model: str | None) -> None:
    assert bench.options(options).model == model


def test_lists_of_several_modules_are_joined(bench: Bench) -> None:
    system = bench.options(
        'hyperhive.allowedTools = lib.mkBefore [ "Read" ]; '
        'imports = [ { hyperhive.allowedTools = [ "Grep" ]; environment.systemPackages = [ pkgs.git ]; } ]; '
        "environment.systemPackages = [ pkgs.nodejs ];"
    )
    assert system.allowed_tools == ("Read", "Grep")
    assert system.packages == ("git", "nodejs")


def test_files_that_import_each_other_are_read_once(bench: Bench) -> None:
    other = "{ imports = [ ./agent.nix ]; environment.systemPackages = [ ]; hyperhive.model = ''x''; }"
    assert bench.options("imports = [ ./other.nix ./other.nix ];", files={"other.nix": other}).model == "x"


def test_a_directory_is_imported_by_its_default(bench: Bench) -> None:
    files = {
        "modules/default.nix": "{ imports = [ ./a.nix ]; }",
        "modules/a.nix": '{ hyperhive.model = "x"; }',
    }
    assert bench.options("imports = [ ./modules ];", files=files).model == "x"


def test_modules_that_only_nixos_has_are_left_out_and_told(bench: Bench) -> None:
    bench.options('imports = [ "${modulesPath}/profiles/minimal.nix" ];'.replace("modulesPath", "pkgs.path"))
    assert bench.said("modules that only NixOS has")


# --- environment ---


def test_values_of_variables(bench: Bench) -> None:
    system = bench.options(
        'environment.variables = { A = 1; B = 1.5; C = [ "x" "y" ]; D = null; E = "${pkgs.git}/bin/git"; };'
        'environment.sessionVariables.A = "2";'
    )
    assert system.environment == {"A": "2", "B": "1.5", "C": "x:y", "E": str(bench.bin / "git")}


def test_variables_that_only_nixos_knows_are_left_out_and_told(bench: Bench) -> None:
    system = bench.options(
        'environment.variables = { A = config.x; B = "${pkgs.zlib}/lib"; C = ./x; D = "d"; };'
    )
    assert system.environment == {"D": "d"}
    for name in "ABC":
        assert bench.said(f"environment.variables.{name} is not set, its value is only known on a NixOS host")


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "HIVE_AGENT", "HIVE_ALLOWED_TOOLS", "PYTHONPATH",
     "BASH_ENV", "CLAUDE_CONFIG_DIR"],
)  # fmt: skip
def test_what_hyperhive_sets_cannot_be_set(bench: Bench, name: str) -> None:
    with pytest.raises(BuildFailed, match=rf"agent.nix:1:\d+: {name} is set by hyperhive itself"):
        bench.options(f'environment.variables.{name} = "x";')


def test_no_secret_in_git(bench: Bench) -> None:
    with pytest.raises(BuildFailed, match="GITHUB_TOKEN looks like a secret"):
        bench.options('environment.variables.GITHUB_TOKEN = "ghp_x";')


# --- wrong types, unknown options ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("hyperhive.model = 3;", 'hyperhive.model must be a model\'s name, such as "sonnet"; this is 3'),
        ('hyperhive.model = "a b";', 'this is "a b"'),
        (
            'hyperhive.backend = "gpt";',
            'hyperhive.backend must be "claude", "codex", "openai" or "rehearsal"; this is "gpt"',
        ),
        ("hyperhive = [ ];", "hyperhive must be a set; this is a list"),
        ('hyperhive.modle = "x";', "there is no option hyperhive.modle; there are allowedTools, backend"),
        ("hyperhive.limits.memory = 1;", "there is no option hyperhive.limits.memory; there are cpuQuota"),
        ("hyperhive.limits = 1;", "hyperhive.limits must be a set; this is an integer"),
        ('hyperhive.limits.memoryMax = "much";', 'must be a size such as "512M" or "2G"'),
        ("hyperhive.limits.memoryMax = 1000;", "at least 64M; this is 1000"),
        ("hyperhive.limits.tasksMax = 3;", "must be an integer of at least 16; this is 3"),
        ("hyperhive.limits.cpuQuota = true;", 'must be a share of one core, such as "50%" or 50'),
        ('hyperhive.allowedTools = "Read";', 'must be a list of strings; this is "Read"'),
        ("hyperhive.allowedTools = [ 1 ];", "must be a string; this is 1"),
        ('hyperhive.allowedTools = [ "Rad" ];', "tool 'Rad' is not known"),
        ('hyperhive.bashAllow = [ "a,b" ];', "no commas or parentheses"),
        ('hyperhive.permissions.allow = [ "*" ];', "tool '*' is not known"),
        ('hyperhive.permissions.default = "allow";', 'must be "ask" or "deny"'),
        ("hyperhive.permissions.askTimeoutSeconds = 0;", "a whole number of seconds"),
        ("hyperhive.context.compactAt = 1;", "a share of the context"),
        ("hyperhive.context.resetAt = true;", "a share of the context"),
        ("hyperhive.context.cacheSeconds = 5;", "60 to 86400"),
        ("hyperhive.context.compact = 1;", "there is no option hyperhive.context.compact"),
        ("hyperhive.permissions.allowed = [ ];", "there is no option hyperhive.permissions.allowed"),
        ('hyperhive = { bashAllow = [ "a" ]; allowedTools = [ ]; };', "bashAllow narrows the tool Bash"),
        ("hyperhive.extraMcpServers = [ ];", "hyperhive.extraMcpServers must be a set; this is a list"),
        ("hyperhive.extraMcpServers.a = { };", "hyperhive.extraMcpServers.a.command is missing"),
        ('hyperhive.extraMcpServers.a = { cmd = "x"; };', "has command, args and env, and no cmd"),
        ('hyperhive.extraMcpServers.a.command = [ "x" ];', "a.command must be a string"),
        ('hyperhive.extraMcpServers."a b".command = "x";', "MCP server 'a b'"),
        ('hyperhive.extraMcpServers.hyperhive.command = "x";', "is the hive's own and cannot be replaced"),
        ('hyperhive.extraMcpServers.a = { command = "x"; env.API_KEY = "x"; };', "API_KEY looks like"),
        ('environment.systemPackages = [ "git" ];', 'must be a package; this is "git"'),
        ("environment.systemPackages = pkgs.git;", "environment.systemPackages must be a list of packages"),
        ("environment.variables = [ ];", "environment.variables must be a set; this is a list"),
        ("environment.variables.A = true;", "environment.variables.A must be a string; this is a boolean"),
        ("services.x = undefined;", "undefined variable 'undefined'"),
        ('hyperhive.model = "a"; imports = [ { hyperhive.model = "b"; } ];', "is defined differently at"),
        ("imports = [ 3 ];", "a module is a set or a function; this is an integer"),
        ("imports = [ ../other.nix ];", "imports ../other.nix, which is outside this configuration"),
        ("imports = [ /etc/nixos/configuration.nix ];", "which is outside this configuration"),
        ("imports = [ (import <nixpkgs>) ];", "<nixpkgs> is not there"),
    ],
)  # fmt: skip
def test_what_is_wrong_fails_with_its_place(bench: Bench, options: str, said: str) -> None:
    with pytest.raises(BuildFailed) as failed:
        bench.options(options)
    assert said in failed.value.message
    assert failed.value.message.startswith("agent.nix:")


@pytest.mark.parametrize(
    "options",
    [
        "hyperhive.model = config.x;",
        "hyperhive.allowedTools = [ config.x ];",
        "hyperhive.bashAllow = [ ] ++ config.x;",
        "hyperhive = config.x;",
        'hyperhive = lib.mkIf config.x { allowedTools = [ "Read" ]; };',
        "hyperhive.limits = lib.somethingElse { };",
        "imports = config.x;",
        "imports = [ config.x ];",
    ],
)
def test_what_restricts_an_agent_is_never_guessed(bench: Bench, options: str) -> None:
    """A restriction that cannot be evaluated must not silently be none."""
    with pytest.raises(BuildFailed, match=r"only known on a NixOS host|is not known here"):
        bench.options(options)


def test_what_is_unknown_elsewhere_does_not_matter(bench: Bench) -> None:
    system = bench.options(
        'services.x = lib.mkIf config.y { z = 1; }; hyperhive.model = "x"; '
        "environment.systemPackages = [ pkgs.git config.y ] ++ config.z;"
    )
    assert (system.model, system.packages) == ("x", ("git",))
    assert bench.said("a package is only known on a NixOS host")


# --- backend, packages, limits ---


def test_claude_without_its_cli_fails_with_advice(bench: Bench) -> None:
    with pytest.raises(BuildFailed, match=r"agent.nix:1:\d+: .*`make claude`.*claude_path.*rehearsal"):
        bench.options('hyperhive.backend = "claude";', has_claude=False)
    assert bench.options('hyperhive.backend = "claude";').backend == "claude"
    assert bench.options('hyperhive.backend = "rehearsal";', has_claude=False).backend == "rehearsal"


def test_missing_packages_are_a_note_and_no_failure(bench: Bench) -> None:
    system = bench.options(
        "environment.systemPackages = "
        "with pkgs; [ git jq python3Packages.requests (writeShellScriptBin ''x'' ''y'') ];"
    )
    assert system.missing == ("jq",)
    assert bench.said(
        "packages that only Nix can make, left out: python3Packages.requests, writeShellScriptBin"
    )


def test_limits_are_only_ever_lowered(bench: Bench) -> None:
    operators = AgentLimits(memory_max_bytes=2**30, tasks_max=200)
    system = bench.options(
        'hyperhive.limits = { memoryMax = "8G"; tasksMax = 50; cpuQuota = "50%"; openFiles = 100000; };',
        limits=operators,
    )
    held = system.limits.within(operators)
    assert held == AgentLimits(memory_max_bytes=2**30, tasks_max=50, cpu_quota_percent=50, open_files=8192)
    assert bench.said("limit: memory 8 GiB is above the operator's 1 GiB, which holds")
    assert bench.said("limit: tasks 50")


# --- what is kept ---


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    made = HostPaths.under(tmp_path / "hive")
    made.applied_root.mkdir(parents=True)
    return made


def test_a_system_is_kept_for_core_alone(bench: Bench, paths: HostPaths) -> None:
    system = bench.build(REALISTIC, files={"modules/git.nix": GIT_MODULE})
    write_system(paths, "alice", system.as_system())
    assert read_system(paths, "alice") == system
    assert paths.system_file("alice").stat().st_mode & 0o777 == 0o600


def test_an_agent_that_was_never_built_has_the_defaults(paths: HostPaths) -> None:
    assert read_system(paths, "alice") == LocalSystem()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"model": 3}', b'{"evil": 1}', b'{"limits": {"tasks_max": 1}}', b"\xff"]
)
def test_a_damaged_system_says_which_file_and_what_to_do(paths: HostPaths, content: bytes) -> None:
    paths.system_file("alice").write_bytes(content)
    with pytest.raises(HiveError, match=r"\.alice\.system\.json.*`hive-c0re rebuild alice`"):
        read_system(paths, "alice")


def test_a_link_in_the_place_of_a_system_is_not_followed(paths: HostPaths, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"model": "opus"}')
    paths.system_file("alice").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HiveError, match="rebuild alice"):
        read_system(paths, "alice")


# --- documentation ---


def test_the_documentation_lists_exactly_what_is_honoured() -> None:
    text = (PROJECT / "docs" / "local-runtime.md").read_text()
    table = [
        line.split("`")[1]
        for line in text.splitlines()
        if line.startswith(("| `environment", "| `hyperhive"))
    ]
    assert tuple(table) == HONOURED
