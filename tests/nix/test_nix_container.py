"""The templates of containers, with an agent.nix in them, evaluated by the real module system."""

import json
from typing import Any

import pytest

from hive_agent.config import HarnessConfig
from hive_core.containers.local_options import HONOURED
from hive_core.containers.local_system import LocalSystem
from hive_shared import agent_options
from hive_shared.errors import BadRequest
from hive_shared.paths import ContainerPaths
from tests.nix.conftest import Evaluate
from tests.nix.sandbox import NixError

CONTAINER = """
  let config = t.container "%s" { imports = [ %s ]; }; in {
    failed = t.failed config;
    unit = config.systemd.services.hyperhive-harness;
    asked = builtins.fromJSON (builtins.readFile config.environment.etc."hyperhive/agent.json".source);
    git = config.programs.git.config;
    packages = map (package: package.name) config.environment.systemPackages;
    isContainer = config.boot.isNspawnContainer;
    firewall = config.networking.firewall.enable;
  }
"""
CLAUDE = '{ hyperhive.hive = { backend = "claude"; allowClaude = true; }; }'


def container(evaluate: Evaluate, agent: str = "{ }", template: str = "agent-base", more: str = "") -> Any:
    return evaluate(CONTAINER % (template, f"({agent}) {more}"))


def test_an_empty_configuration_gives_a_container_with_a_harness(evaluate: Evaluate) -> None:
    made = container(evaluate)
    assert made["failed"] == []
    assert made["isContainer"] is True
    assert made["firewall"] is False
    assert made["git"]["user"] == {"name": "agent", "email": "agent@hive.invalid"}
    assert made["unit"]["serviceConfig"]["ExecStart"].endswith("/bin/hive-ag3nt serve")
    assert made["unit"]["serviceConfig"]["Restart"] == "always"
    assert made["unit"]["wantedBy"] == ["multi-user.target"]
    assert "claude-code" not in made["packages"]


def test_the_harness_waits_for_what_is_bound_in(evaluate: Evaluate) -> None:
    inside = ContainerPaths()
    own = [str(path) for path in (inside.run, inside.claude, inside.state, inside.shared)]
    agent = container(evaluate)["unit"]["unitConfig"]
    assert agent["AssertPathIsMountPoint"] == agent["RequiresMountsFor"] == own
    manager = container(evaluate, template="manager")["unit"]["unitConfig"]
    assert manager["AssertPathIsMountPoint"] == [*own, str(inside.applied)]


def test_the_manager_has_its_own_program_role_and_name(evaluate: Evaluate) -> None:
    made = container(evaluate, template="manager")
    assert made["unit"]["environment"]["HIVE_ROLE"] == "manager"
    assert made["unit"]["environment"]["HIVE_AGENT"] == "hm1nd"
    assert made["unit"]["serviceConfig"]["ExecStart"].endswith("/bin/hive-m1nd serve")


def test_programs_that_an_agent_adds_are_on_the_path_of_its_shell(evaluate: Evaluate) -> None:
    unit = container(evaluate)["unit"]
    assert "/run/current-system/sw" in unit["path"]
    assert not [entry for entry in unit["path"] if entry.endswith("/bin")]
    assert "PATH" not in unit["environment"]


def test_an_identity_for_git_of_its_own_merges_with_the_base(evaluate: Evaluate) -> None:
    made = container(evaluate, '{ programs.git.config.user.email = "alice@example.org"; }')
    assert made["git"]["user"] == {"name": "agent", "email": "alice@example.org"}


# --- what the harness reads ---------------------------------------------------------------

EVERYTHING = """{
  hyperhive = {
    model = "opus";
    backend = "rehearsal";
    extraMcpServers.forge = {
      command = "/bin/forge"; args = [ "--stdio" "50%" ]; env.FORGE_URL = "http://f";
    };
    allowedTools = [ "Read" "Bash" "mcp__forge__issue" ];
    bashAllow = [ "git *" ];
    limits = { memoryMax = "512M"; tasksMax = 64; cpuQuota = "150%"; openFiles = 128; };
  };
  environment.variables = { GREETING = "hello 100% \\\\ \\" \\n x"; LIST = [ "a" "b" ]; NUMBER = 7; };
}"""


def test_the_harness_reads_what_agent_nix_says(evaluate: Evaluate) -> None:
    environment = container(evaluate, EVERYTHING)["unit"]["environment"]
    # systemd turns %% into %, and nothing else.
    assert not [value for value in environment.values() if "%" in value.replace("%%", "")]
    variables = {name: value.replace("%%", "%") for name, value in environment.items()}
    config = HarnessConfig.from_environment(variables)
    assert config.agent == "agent"
    assert config.model == "opus"
    assert config.backend == "rehearsal"
    assert config.environment["GREETING"] == 'hello 100% \\ " \n x'
    assert config.environment["LIST"] == "a:b"
    assert config.environment["NUMBER"] == "7"
    servers = json.loads(variables["HIVE_EXTRA_MCP"])
    assert agent_options.ExtraMcpServer(**servers["forge"]).args == ("--stdio", "50%")
    assert json.loads(variables["HIVE_ALLOWED_TOOLS"]) == ["Read", "Bash", "mcp__forge__issue"]
    assert json.loads(variables["HIVE_BASH_ALLOW"]) == ["git *"]


def test_core_reads_the_same_from_the_built_system(evaluate: Evaluate) -> None:
    system = LocalSystem.model_validate(container(evaluate, EVERYTHING)["asked"])
    assert system.limits.model_dump() == {
        "memory_max_bytes": 512 * 2**20,
        "tasks_max": 64,
        "cpu_quota_percent": 150,
        "open_files": 128,
    }
    assert system.model == "opus"
    assert system.backend == "rehearsal"
    assert system.allowed_tools == ("Read", "Bash", "mcp__forge__issue")
    assert system.bash_allow == ("git *",)
    assert system.extra_mcp_servers["forge"].command == "/bin/forge"


def test_what_is_not_said_is_the_hives(evaluate: Evaluate) -> None:
    hive = '{ hyperhive.hive = { model = "haiku"; environment.HIVE_OPERATOR_PRONOUNS = "she/her"; }; }'
    made = container(evaluate, more=hive)
    assert made["unit"]["environment"]["HIVE_MODEL"] == "haiku"
    assert made["unit"]["environment"]["HIVE_OPERATOR_PRONOUNS"] == "she/her"
    assert "HIVE_EXTRA_MCP" not in made["unit"]["environment"]
    assert "HIVE_ALLOWED_TOOLS" not in made["unit"]["environment"]
    assert LocalSystem.model_validate(made["asked"]) == LocalSystem()


def test_variables_of_ours_and_of_login_shells_do_not_reach_the_harness(evaluate: Evaluate) -> None:
    environment = container(
        evaluate, '{ environment.variables = { LD_PRELOAD = "/x.so"; PYTHONPATH = "/x"; HOME = "/x"; }; }'
    )["unit"]["environment"]
    assert environment["HOME"] == "/root"
    assert not [name for name in environment if name.startswith("LD_") or name == "PYTHONPATH"]
    assert not [value for value in environment.values() if "$HOME" in value]  # nothing expands it in a unit


# --- the options are those of the local runtime ---------------------------------------------


def test_the_options_are_those_that_the_local_runtime_honours(evaluate: Evaluate) -> None:
    names = evaluate(
        """
        map (option: option.name) (lib.filter (option: option.visible && !option.internal)
          (lib.optionAttrSetToDocList (t.self.nixosConfigurations.agent-base.options.hyperhive)))
        """
    )
    plain = {name.split(".<name>")[0] for name in names}
    assert plain == {name for name in HONOURED if name.startswith("hyperhive.")}


def test_tools_and_limits_are_those_of_the_rules_in_python(evaluate: Evaluate) -> None:
    tools = " ".join(f'"{name}"' for name in (*agent_options.DEFAULT_TOOLS, *agent_options.EXTRA_TOOLS))
    assert container(evaluate, f"{{ hyperhive.allowedTools = [ {tools} ]; }}")["failed"] == []


TOOLS = [
    "Bash(\t)",
    "Read",
    "Bash(git *)",
    "Bash(a,b)",
    "Bash()",
    "Bash( )",
    "bash",
    "Reader",
    "mcp__forge",
    "mcp__forge__issue",
    "mcp__forge__",
    "mcp__other__x",
    "mcp__hyperhive__send",
    "",
    "Read\nWrite",
]


@pytest.mark.parametrize("rule", TOOLS)
def test_both_take_the_same_tools(evaluate: Evaluate, rule: str) -> None:
    try:
        agent_options.check_tool(rule, ["forge"])
        fine = True
    except BadRequest:
        fine = False
    text = json.dumps(rule)
    agent = f'{{ hyperhive.extraMcpServers.forge.command = "x"; hyperhive.allowedTools = [ {text} ]; }}'
    try:
        taken = container(evaluate, agent)["failed"] == []
    except NixError:
        taken = False
    assert taken == fine


SERVERS = ["forge", "a", "a_b", "a__b", "a_", "_a", "-a", "a.b", "a" * 31, "a" * 32, "hyperhive", "é", "a b"]


@pytest.mark.parametrize("name", SERVERS)
def test_both_take_the_same_names_of_servers(evaluate: Evaluate, name: str) -> None:
    try:
        agent_options.check_server_name(name)
        fine = True
    except BadRequest:
        fine = False
    made = container(evaluate, f'{{ hyperhive.extraMcpServers."{name}".command = "x"; }}')
    assert (made["failed"] == []) == fine


@pytest.mark.parametrize(
    ("value", "size"),
    [('"512M"', 512 * 2**20), ('"1 GiB"', 2**30), ("1073741824", 2**30), ('"70000KB"', 70000 * 2**10)],
)
def test_sizes_are_read_as_the_local_runtime_reads_them(evaluate: Evaluate, value: str, size: int) -> None:
    made = container(evaluate, f"{{ hyperhive.limits.memoryMax = {value}; }}")
    assert made["asked"]["limits"]["memory_max_bytes"] == size


@pytest.mark.parametrize(
    "agent",
    [
        'hyperhive.model = "a b";',
        'hyperhive.model = "-x";',
        'hyperhive.backend = "gpt";',
        'hyperhive.limits.memoryMax = "63M";',
        'hyperhive.limits.memoryMax = "much";',
        "hyperhive.limits.tasksMax = 15;",
        'hyperhive.limits.cpuQuota = "0%";',
        "hyperhive.limits.openFiles = 63;",
        'hyperhive.bashAllow = [ "a,b" ];',
        "hyperhive.extraMcpServers.forge = { };",
        'hyperhive.extraMcpServers.forge = { command = ""; };',
        'hyperhive.extraMcpServers.forge = { command = "x"; url = "y"; };',
        'hyperhive.allowedTool = [ "Read" ];',  # a typing error
    ],
)
def test_wrong_types_end_the_evaluation(evaluate: Evaluate, agent: str) -> None:
    with pytest.raises(
        NixError, match=r"is not of type|does not exist|no value defined|was accessed but has no"
    ):
        container(evaluate, f"{{ {agent} }}")


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ('hyperhive.extraMcpServers."a.b".command = "x";', "a.b: a name has at most 31"),
        ('hyperhive.extraMcpServers.hyperhive.command = "x";', "is not hyperhive"),
        (
            "hyperhive.extraMcpServers ="
            ' lib.genAttrs (map (n: "s${toString n}") (lib.range 1 17)) (_: { command = "x"; });',
            "at most 16 servers",
        ),
        ('hyperhive.extraMcpServers.a = { command = "x"; env.MY_TOKEN = "y"; };', "MY_TOKEN looks like"),
        ('hyperhive.allowedTools = [ "Everything" ];', "Everything: there are Bash"),
        ('hyperhive = { allowedTools = [ "Read" ]; bashAllow = [ "git *" ]; };', "narrows the tool Bash"),
        ('environment.variables.HIVE_AGENT = "bob";', "HIVE_AGENT is set by hyperhive"),
        ('hyperhive.backend = "claude";', "allowUnfreeClaudeCode"),
    ],
)
def test_assertions_fire(evaluate: Evaluate, agent: str, words: str) -> None:
    found = container(evaluate, f"{{ {agent} }}")["failed"]
    assert len(found) == 1
    assert words in found[0]


# --- the unfree one -----------------------------------------------------------------------


def test_claude_is_there_where_the_operator_allowed_it(evaluate: Evaluate) -> None:
    made = container(evaluate, more=CLAUDE)
    assert made["failed"] == []
    assert "claude-code" in made["packages"]
    assert made["unit"]["environment"]["HIVE_BACKEND"] == "claude"
    assert made["unit"]["environment"]["HIVE_CLAUDE"].endswith("/bin/claude-code")


def test_an_agent_may_rehearse_in_a_hive_that_thinks(evaluate: Evaluate) -> None:
    made = container(evaluate, '{ hyperhive.backend = "rehearsal"; }', more=CLAUDE)
    assert made["failed"] == []
    assert made["unit"]["environment"]["HIVE_BACKEND"] == "rehearsal"
    assert "HIVE_CLAUDE" not in made["unit"]["environment"]


def test_no_other_unfree_package_is_allowed(evaluate: Evaluate) -> None:
    allows = evaluate(
        """
        let hive = { backend = "claude"; allowClaude = true; };
            config = t.container "agent-base" { hyperhive = { inherit hive; }; };
        in map (name: config.nixpkgs.config.allowUnfreePredicate { pname = name; })
          [ "claude-code" "claude-code-router" "steam" ]
        """
    )
    assert allows == [True, False, False]


def test_nothing_unfree_is_allowed_without_the_operator(evaluate: Evaluate) -> None:
    assert evaluate('(t.container "agent-base" { }).nixpkgs.config') == {}
