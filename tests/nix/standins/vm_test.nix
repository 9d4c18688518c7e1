# The options of a NixOS VM test that ours sets. Its machines are evaluated as hosts.
{ lib, pkgs }:

{ config, ... }:

let
  inherit (lib) mkOption types;
in
{
  options = {
    name = mkOption { type = types.str; };
    nodes = mkOption { type = types.attrsOf types.deferredModule; };
    testScript = mkOption { type = types.str; };
    machines = mkOption { type = types.raw; };
  };
  config.machines = lib.mapAttrs (
    _: machine:
    (lib.evalModules {
      modules = [
        machine
        ./nixos.nix
        { nix.package = pkgs.nix; }
      ];
      specialArgs = { inherit pkgs; };
    }).config
  ) config.nodes;
}
