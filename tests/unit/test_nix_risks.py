"""What of a configuration is flagged for the operator, and what is not (SECURITY 8)."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_core.nix_module.risks import FLAGS_MAX, risk_flags, rules
from hive_shared.wire import RiskFlag

PROGRAMMER = b"""\
{ pkgs, lib, config, ... }:
let
  nodeTools = with pkgs; [ nodejs_22 pnpm ];
  users = [ "a" "b" ];
in
{
  imports = [ ./git.nix ./modules ];
  environment.systemPackages = with pkgs; [
    ripgrep fd jq (python3.withPackages (ps: with ps; [ requests pytest ]))
  ] ++ nodeTools;
  environment.variables = { EDITOR = "vim"; PAGER = "less"; };
  programs.git = { enable = true; config.user.name = "alice"; };
  hyperhive.model = "sonnet";
  hyperhive.allowedTools = [ "Bash" "Read" ];
  time.timeZone = "Europe/Berlin";
}
"""
DATABASE = b"""\
{ pkgs, ... }: {
  services.postgresql = {
    enable = true;
    package = pkgs.postgresql_16;
    ensureDatabases = [ "app" ];
  };
  systemd.services.indexer = {
    wantedBy = [ "multi-user.target" ];
    after = [ "postgresql.service" ];
    serviceConfig = {
      ExecStart = "${pkgs.coreutils}/bin/sleep infinity > /dev/null";
      WorkingDirectory = "/state";
    };
  };
  environment.etc."app.conf".text = ''
    user = app
    home = /state/app
  '';
}
"""
WRITER = b"""\
{ pkgs, lib, ... }:
{
  environment.systemPackages = [
    pkgs.pandoc
    (pkgs.writeShellScriptBin "count" "wc -w \\"$@\\"")
  ];
  environment.variables.NOTES = builtins.readFile ./notes.md;
  fonts.packages = lib.mkIf true [ pkgs.dejavu_fonts ];
}
"""


def flags(source: str | bytes, **others: bytes) -> list[RiskFlag]:
    data = source.encode() if isinstance(source, str) else source
    return risk_flags({"agent.nix": data, **{name.replace("_", "."): text for name, text in others.items()}})


@pytest.mark.parametrize("source", [PROGRAMMER, DATABASE, WRITER, b"{ }", b"{ pkgs, ... }:\n{\n}\n"])
def test_ordinary_configurations_have_no_flags(source: bytes) -> None:
    files = {"git.nix": b"{ }", "modules/default.nix": b"{ }", "notes.md": b"# Notes\n", "agent.nix": source}
    assert risk_flags(files) == []


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ('a = builtins.fetchTarball "https://x.example/y.tgz";', "fetch"),
        ('a = fetchTarball "https://x.example/y.tgz";', "fetch"),
        ('a = pkgs.fetchFromGitHub { owner = "x"; };', "fetch"),
        ('a = (builtins.getFlake "github:x/y").packages;', "fetch"),
        ("inherit (builtins) fetchGit;", "fetch"),
        ("a = with builtins; fetchurl { };", "fetch"),
        ("imports = [ <nixpkgs/nixos/x.nix> ];", "search-path"),
        ("a = import <nixpkgs> { };", "search-path"),
        ("imports = [ (import (pkgs.runCommand ''x'' { } ''y'')) ];", "import"),
        ('a = import "${pkgs.x}/module.nix";', "import"),
        ("imports = [ x.nixosModules.default ];", "import"),
        ("imports = [ ./evil.txt ];", "import"),
        ("imports = [ ../../elsewhere.nix ];", "path-outside"),
        ("a = builtins.readFile /etc/shadow;", "path-outside"),
        ("a = ~/x;", "path-outside"),
        ('a = builtins.readFile "${pkgs.x}/y";', "builtins"),
        ('a = builtins.exec [ "id" ];', "builtins"),
        ('a = builtins.getEnv "HOME";', "builtins"),
        ('a = builtins.toFile "a" "b";', "builtins"),
        ('fileSystems."/host" = { device = "/"; options = [ "bind" ]; };', "bind-mount"),
        ('systemd.services.a.serviceConfig.BindPaths = [ "/x" ];', "bind-mount"),
        ("containers.x.privateNetwork = false;", "containers"),
        ("virtualisation.docker.enable = true;", "containers"),
        ("a.privileged = true;", "privileged"),
        ('a = "podman run --privileged x";', "privileged"),
        ('systemd.services.a.serviceConfig.AmbientCapabilities = "CAP_SYS_ADMIN";', "capabilities"),
        ("users.users.bob.isNormalUser = true;", "users"),
        ("users = { groups.x = { }; };", "users"),
        ("inherit (x) users;", "users"),
        ("users.mutableUsers = true;", "users"),
        ('users.users.root.openssh.authorizedKeys.keys = [ "ssh-ed25519 A" ];', "ssh-keys"),
        ('x.extraGroups = [ "wheel" ];', "sudo"),
        ("security.sudo.wheelNeedsPassword = false;", "sudo"),
        ("security.doas.enable = true;", "sudo"),
        ("security.polkit.enable = true;", "sudo"),
        ("security.wrappers.x = { };", "wrappers"),
        ("security.pki.certificates = [ ];", "security"),
        ("networking.firewall.enable = false;", "firewall"),
        ("networking.firewall.allowedTCPPorts = [ 22 ];", "firewall"),
        ("services.openssh.enable = true;", "ssh"),
        ('nix.settings.trusted-users = [ "*" ];', "nix-settings"),
        ("nix.settings.sandbox = false;", "nix-settings"),
        ("nixpkgs.config.allowUnfree = true;", "unfree"),
        ("nixpkgs.overlays = [ (a: b: { }) ];", "overlay"),
        ('boot.kernelModules = [ "x" ];', "boot"),
        ("hardware.enableAllFirmware = true;", "devices"),
        ('systemd.services.a.serviceConfig.DeviceAllow = "/x";', "devices"),
        ('systemd.services.a.script = "cat /etc/shadow";', "systemd-path"),
        ('systemd.tmpfiles.rules = [ "L /x - - - - /var/lib/hyperhive" ];', "systemd-path"),
        ("systemd.services.hive-agent.enable = false;", "harness"),
        ('system.activationScripts.x = "id";', "activation"),
        ('hyperhive.extraMcpServers.x.command = "curl";', "mcp-server"),
        ('hyperhive = { extraMcpServers = { x = { command = "y"; }; }; };', "mcp-server"),
        ('hyperhive.allowedTools = [ "WebFetch" ];', "tools"),
        ('${"us" + "ers"}.users.bob = { };', "computed-option"),
        ("config = lib.mkMerge [ { users.users.bob = { }; } ];", "users"),
        ("config = lib.mkIf true { security.sudo.enable = true; };", "sudo"),
    ],
)
def test_what_deserves_a_look_is_flagged(options: str, rule: str) -> None:
    found = flags(f"{{ pkgs, lib, x, ... }}:\n{{\n  {options}\n}}\n", evil_txt=b"{ }")
    assert [(flag.rule, flag.path, flag.line) for flag in found] == [(rule, "agent.nix", 3)]
    assert found[0].text.endswith((".", ")"))


def test_definitions_hidden_in_a_let_are_found() -> None:
    assert [flag.rule for flag in flags("let x = { users.users.bob = { }; }; in { config = x; }")] == [
        "users"
    ]


def test_what_belongs_together_is_one_flag() -> None:
    found = flags("{ users.users.bob = {\n isNormalUser = true;\n home = ''/x'';\n uid = 1;\n }; }")
    assert [(flag.rule, flag.line) for flag in found] == [("users", 1)]


def test_files_that_do_not_parse_are_looked_at_as_text() -> None:
    found = flags("{ users.users.bob = {\n  a = (builtins.fetchGit ;\n  security.sudo = ((((\n")
    assert {"syntax", "users", "fetch", "sudo"} <= {flag.rule for flag in found}


@pytest.mark.parametrize("character", "\u202e\u2066\u200b\u00ad\u2060\u3164\U000e0041")
def test_invisible_characters_are_flagged_by_their_number(character: str) -> None:
    found = flags(f"{{\n  # a comment {character}\n}}\n", notes_md=f"a\nb {character}\n".encode())
    assert [(flag.path, flag.line, flag.rule) for flag in found] == [
        ("agent.nix", 2, "invisible"), ("notes.md", 2, "invisible")
    ]  # fmt: skip
    assert f"U+{ord(character):04X}" in found[0].text
    assert character not in found[0].text


def test_control_characters_and_long_lines() -> None:
    assert [flag.rule for flag in flags(b"{ # \x1b[2J\n}")] == ["control"]
    assert [flag.rule for flag in flags("{ }" + " " * 500 + "# here")] == ["long-line"]
    assert flags("{\r\n}\r\n") == []


@pytest.mark.parametrize(
    ("data", "rule"),
    [(b"#!/bin/sh\nid\n", "executable"), (b"\x7fELF\2\1", "executable"), (b"a\0b", "binary")],
)
def test_other_files_that_can_run_or_cannot_be_read(data: bytes, rule: str) -> None:
    assert [(flag.path, flag.rule) for flag in flags("{ }", tool_bin=data)] == [("tool.bin", rule)]


def test_many_flags_of_one_kind_do_not_crowd_out_another() -> None:
    many = "\n".join(f"users.users.u{number}.uid = {number};" for number in range(400))
    found = flags(f'{{\n{many}\nhyperhive.extraMcpServers.x.command = "y";\n}}')
    assert len(found) == FLAGS_MAX
    assert {"mcp-server", "users", "more"} == {flag.rule for flag in found}
    assert "And 302 more" in found[-1].text


def test_every_rule_is_documented_by_its_slug() -> None:
    assert all(rule == rule.lower() and " " not in rule for rule in rules())
    text = (Path(__file__).parents[2] / "docs" / "local-runtime.md").read_text()
    missing = [rule for rule in rules() if f"`{rule}`" not in text]
    assert missing == []


@given(st.dictionaries(st.sampled_from(["agent.nix", "a.nix", "b.txt"]), st.binary(max_size=400), max_size=3))
@settings(deadline=None, max_examples=200)
def test_garbage_is_never_an_error(files: dict[str, bytes]) -> None:
    assert len(risk_flags(files)) <= FLAGS_MAX


_WORDS = ["{", "}", "[", "]", "(", ")", "=", ";", ".", '"', "''", "${", "let", "in", "with", "inherit", "a",
          "users", "import", "./x", "<n>", ":", "rec", "imports", "\n", "#", "/*", "if", "?"]  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS), max_size=120))
@settings(deadline=None, max_examples=300)
def test_token_soup_is_never_an_error(words: list[str]) -> None:
    assert len(flags(" ".join(words))) <= FLAGS_MAX
