"""The module of the host, evaluated by the real module system against stand-ins of NixOS' options."""

import re
from pathlib import Path
from typing import Any

import pytest

from hive_core.config import AgentLimits, Settings
from hive_core.plan_nixos import pin_of
from tests.conftest import PROJECT
from tests.nix.conftest import Evaluate
from tests.nix.sandbox import NixError
from tests.unit.test_nix_settings import FIXED, LOCAL

CONFIG = """
  let config = t.host { services.hive-c0re = { enable = true; } // %s; };
      exec = config.systemd.services.hive-c0re.serviceConfig.ExecStart;
      path = lib.last (lib.splitString " " exec);
  in {
    inherit (config) warnings;
    failed = t.failed config;
    unit = config.systemd.services.hive-c0re;
    settings = builtins.fromJSON (builtins.readFile path);
    ports = config.networking.firewall.allowedTCPPorts;
    nat = config.networking.nat;
    groups = builtins.attrNames config.users.groups;
    packages = map (package: package.name) config.environment.systemPackages;
    tmpfiles = config.systemd.tmpfiles.rules;
  }
"""


def host(evaluate: Evaluate, options: str = "{ }") -> Any:
    return evaluate(CONFIG % options)


def failures(evaluate: Evaluate, settings: str) -> list[str]:
    """The messages of the assertions that fail with these settings of the host."""
    found: list[str] = evaluate(f"t.failed (t.host {settings})")
    return found


def enabled(options: str) -> str:
    return f"{{ services.hive-c0re = {{ enable = true; {options} }}; }}"


# --- alone it works -----------------------------------------------------------------


def test_enable_alone_gives_a_unit_settings_and_the_group(evaluate: Evaluate) -> None:
    made = host(evaluate)
    assert made["failed"] == []
    assert made["groups"] == ["hive"]
    assert made["ports"] == []
    assert made["nat"]["enable"] is False
    assert "hyperhive-0.1.0" in made["packages"]
    assert made["settings"]["runtime"] == "nixos"
    assert made["settings"]["backend"] == "rehearsal"
    assert made["settings"]["group"] == "hive"
    assert "unfree" in made["warnings"][0]
    assert made["unit"]["wantedBy"] == ["multi-user.target"]


def test_disabled_it_sets_nothing(evaluate: Evaluate) -> None:
    made = evaluate(
        """
        let config = t.host { }; in {
          services = config.systemd.services; groups = config.users.groups; inherit (config) warnings;
        }
        """
    )
    assert made == {"services": {}, "groups": {}, "warnings": []}


def test_both_attributes_of_the_flake_are_one_module(evaluate: Evaluate) -> None:
    twice = "{ imports = [ t.self.nixosModules.hive-c0re ]; services.hive-c0re.enable = true; }"
    assert failures(evaluate, twice) == []


# --- settings -----------------------------------------------------------------------


def test_every_setting_of_the_daemon_has_its_option_and_no_other(evaluate: Evaluate) -> None:
    names = evaluate(
        """
        let settings = import /source/nix/modules/settings.nix { inherit lib; };
        in { all = builtins.attrNames settings; limits = builtins.attrNames settings.limits; }
        """
    )
    assert set(names["all"]) == set(Settings.model_fields) - FIXED - LOCAL
    assert set(names["limits"]) == set(AgentLimits.model_fields)


def test_the_daemon_takes_what_the_module_writes(evaluate: Evaluate) -> None:
    made = host(
        evaluate,
        """{
          dashboardPort = 7100; listenAddress = "::1"; operatorPronouns = "she/her";
          privateNetwork = true; userNamespaces = true;
          agent = {
            backend = "claude"; allowUnfreeClaudeCode = true; model = "opus";
            memoryMax = "2G"; cpuQuota = "150%"; tasksMax = 64;
          };
          settings = {
            allowed_hosts = [ "https://hive.example.org" ]; stop_grace_seconds = 2.5; limits.open_files = 99;
          };
        }""",
    )
    assert made["failed"] == []
    settings = Settings(**made["settings"])
    assert settings.runtime == "nixos"
    assert settings.dashboard_port == 7100
    assert settings.listen_address == "::1"
    assert settings.operator_pronouns == "she/her"
    assert settings.backend == "claude"
    assert settings.model == "opus"
    assert settings.allowed_hosts == ["https://hive.example.org"]
    assert settings.stop_grace_seconds == 2.5
    expected = AgentLimits(memory_max_bytes=2 * 2**30, tasks_max=64, cpu_quota_percent=150, open_files=99)
    assert settings.limits == expected
    assert settings.private_network
    assert settings.user_namespaces
    assert settings.allow_unfree_claude_code
    assert settings.chosen_backend() == "claude"


def test_defaults_of_the_module_are_those_of_the_daemon(evaluate: Evaluate) -> None:
    written = host(evaluate)["settings"]
    defaults = Settings()
    assert written["dashboard_port"] == defaults.dashboard_port
    assert written["listen_address"] == defaults.listen_address
    assert written["operator_pronouns"] == defaults.operator_pronouns
    assert written["model"] == defaults.model
    limits = AgentLimits(**written["limits"])
    assert limits == defaults.limits


def test_settings_win_over_the_options_that_stand_for_them(evaluate: Evaluate) -> None:
    made = host(evaluate, "{ dashboardPort = 7100; settings.dashboard_port = 7200; openFirewall = true; }")
    assert made["settings"]["dashboard_port"] == 7200
    assert made["ports"] == [7200]


@pytest.mark.parametrize(
    "options",
    [
        "settings.dashbord_port = 1;",  # a typing error
        "settings.limits.memory = 1;",
        'dashboardPort = "7000";',
        "dashboardPort = 70000;",
        'agent.backend = "gpt";',
        "agent.tasksMax = 3;",
        'agent.memoryMax = "lots";',
        'apiKeyFile = "relative";',
        'settings.log_level = "loud";',
        "settings.retention_days = 0;",
        'settings.state_root = "/srv";',  # the unit's directories are fixed
    ],
)
def test_wrong_types_and_names_end_the_evaluation(evaluate: Evaluate, options: str) -> None:
    with pytest.raises(NixError, match=r"does not exist|is not of type"):
        host(evaluate, f"{{ {options} }}")


def test_containers_take_hyperhive_from_this_flake_pinned(evaluate: Evaluate) -> None:
    pin = pin_of(Settings(**host(evaluate)["settings"]))
    assert str(pin.source) == "/nix/store/00000000000000000000000000000000-hyperhive"
    assert pin.query["narHash"] == "sha256-AAAA+BBB/CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC="
    assert pin.query["lastModified"] == "1779796641"


# --- the unit -----------------------------------------------------------------------


def test_readiness_directories_and_path_of_the_unit(evaluate: Evaluate) -> None:
    unit = host(evaluate)["unit"]
    service = unit["serviceConfig"]
    assert service["Type"] == "notify"
    assert service["StateDirectory"] == service["RuntimeDirectory"] == "hyperhive"
    assert service["StateDirectoryMode"] == "0700"
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert service["Restart"] == "on-failure"
    assert "/run/current-system/sw" in unit["path"]
    assert any(entry.endswith("-git") for entry in unit["path"])
    assert not [entry for entry in unit["path"] if entry.endswith("/bin")]  # it is appended


def test_a_daemon_that_hangs_is_started_again(evaluate: Evaluate) -> None:
    assert host(evaluate)["unit"]["serviceConfig"]["WatchdogSec"] == 60


HARDENED = {
    "ProtectSystem": "strict",
    **dict.fromkeys(
        [
            "LockPersonality",
            "NoNewPrivileges",
            "PrivateDevices",
            "PrivateTmp",
            "ProtectClock",
            "ProtectControlGroups",
            "ProtectHome",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "ProtectKernelTunables",
            "RestrictNamespaces",
            "RestrictRealtime",
            "RestrictSUIDSGID",
        ],
        True,
    ),
}


def test_the_unit_is_hardened(evaluate: Evaluate) -> None:
    service = host(evaluate)["unit"]["serviceConfig"]
    assert {name: service.get(name) for name in HARDENED} == HARDENED
    assert "CAP_SYS_ADMIN" not in service["CapabilityBoundingSet"]
    assert "CAP_NET_ADMIN" not in service["CapabilityBoundingSet"]
    assert set(service["RestrictAddressFamilies"]) == {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"}
    assert service["SystemCallFilter"] == ["@system-service"]


def test_the_key_comes_as_a_credential_and_is_not_in_the_settings(evaluate: Evaluate) -> None:
    made = host(evaluate, '{ apiKeyFile = "/run/secrets/key"; }')
    assert made["unit"]["serviceConfig"]["LoadCredential"] == "api-key:/run/secrets/key"
    assert made["settings"]["api_key_file"] == "/run/credentials/hive-c0re.service/api-key"
    assert "/run/secrets" not in str(made["settings"])
    without = host(evaluate)
    assert "LoadCredential" not in without["unit"]["serviceConfig"]
    assert "api_key_file" not in without["settings"]


def test_the_firewall_is_opened_on_request_only(evaluate: Evaluate) -> None:
    assert host(evaluate, "{ dashboardPort = 7100; openFirewall = true; }")["ports"] == [7100]
    assert host(evaluate, '{ listenAddress = "0.0.0.0"; }')["ports"] == []


def test_containers_with_their_own_network_go_out_by_nat(evaluate: Evaluate) -> None:
    nat = host(evaluate, '{ privateNetwork = true; externalInterface = "eth0"; }')["nat"]
    assert nat == {"enable": True, "internalInterfaces": ["ve-+"], "externalInterface": "eth0"}


# --- assertions: each fires, with words that say what to do -------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (enabled("dashboardPort = 8000;"), "8000 is a port of an agent's page"),
        (enabled("dashboardPort = 8100;"), "8100 is a port of an agent's page"),
        (enabled("dashboardPort = 8999;"), "8999 is a port of an agent's page"),
        (enabled("settings.dashboard_port = 8500;"), "8500 is a port of an agent's page"),
        (enabled("dashboardPort = 0;"), "choose one"),
        (
            "{ services.hive-c0re.enable = true; containers.hm1nd = { }; containers.web = { }; }",
            "hm1nd: the names hm1nd and h-",
        ),
        ("{ services.hive-c0re.enable = true; containers.h-web = { }; }", "h-web: the names"),
        (enabled('agent.backend = "claude";'), "allowUnfreeClaudeCode = true"),
        (enabled('settings.backend = "claude";'), "allowUnfreeClaudeCode = true"),
        ("{ services.hive-c0re.enable = true; boot.enableContainers = false; }", "boot.enableContainers"),
        (enabled('databaseUrl = "postgresql://db/hive";'), "leave it null"),
        (enabled('apiKeyFile = "/nix/store/00000000000000000000000000000000-key";'), "the Nix store"),
        (
            enabled('settings.notify_urls_file = "/nix/store/00000000000000000000000000000000-urls";'),
            "notify_urls_file: everybody can read the Nix store",
        ),
        (enabled("settings.notify_urls_file = /etc/urls;"), "not as a path of Nix"),
        (enabled('settings.agent_environment.MY_TOKEN = "x";'), "MY_TOKEN looks like a secret"),
        (enabled('settings.agent_environment.anthropic_api_key = "x";'), "looks like a secret"),
        (enabled('settings.agent_environment.HIVE_MODEL = "x";'), "begins with HIVE_"),
        (enabled('settings.agent_environment."A B" = "x";'), "A B: names of environment variables"),
        (enabled('hyperhiveFlake = "github:someone/hyperhive";'), "is not pinned"),
        (enabled('hyperhiveFlake = "path:/etc/nixos/hyperhive";'), "is not pinned"),
    ],
)
def test_assertions_fire(evaluate: Evaluate, settings: str, words: str) -> None:
    found = failures(evaluate, settings)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    "settings",
    [
        enabled("dashboardPort = 8099;"),
        enabled("dashboardPort = 9000;"),
        enabled("dashboardPort = 8100; settings.agent_page_ports = false;"),
        "{ services.hive-c0re.enable = true; containers.web = { }; containers.hm2nd = { }; }",
        enabled('agent.backend = "claude"; agent.allowUnfreeClaudeCode = true;'),
        f"""{{ nixpkgs.config.allowUnfree = true; imports = [ {enabled('agent.backend = "claude";')} ]; }}""",
        enabled('hyperhiveFlake = "github:someone/hyperhive/' + "a" * 40 + '";'),
        enabled('settings.agent_environment.ANTHROPIC_BASE_URL = "http://x";'),
        "{ containers.hm1nd = { }; boot.enableContainers = false; }",  # without the service all is well
    ],
)
def test_assertions_are_silent_where_all_is_well(evaluate: Evaluate, settings: str) -> None:
    assert failures(evaluate, settings) == []


def test_a_host_that_allows_unfree_packages_gets_claude(evaluate: Evaluate) -> None:
    made = evaluate(
        "(t.host { nixpkgs.config.allowUnfree = true; services.hive-c0re.enable = true; })"
        ".services.hive-c0re.settings"
    )
    assert made["backend"] == "claude"
    assert made["allow_unfree_claude_code"] is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('agent.backend = "rehearsal"; openFirewall = true;', "opens a port that nothing listens on"),
        ('agent.backend = "rehearsal"; listenAddress = "0.0.0.0";', "plain HTTP"),
    ],
)
def test_warnings(evaluate: Evaluate, options: str, words: str) -> None:
    (warning,) = host(evaluate, f"{{ {options} }}")["warnings"]
    assert words in warning


def test_no_warning_for_what_was_meant(evaluate: Evaluate) -> None:
    assert host(evaluate, '{ agent.backend = "rehearsal"; }')["warnings"] == []


def test_the_module_touches_no_packages_of_the_host() -> None:
    for path in Path(PROJECT / "nix" / "modules").glob("*.nix"):
        assert not re.search(r"overlays|nixpkgs\.(config|pkgs)\s*=|packageOverrides", path.read_text()), path
