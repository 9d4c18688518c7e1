# Everything a test begins with: the project's flake, evaluated with stand-ins for nixpkgs and NixOS.
{
  lib ? import /nixpkgs-lib,
  source ? /source,
}:

let
  pkgsFor = system: import ./pkgs.nix { inherit lib system; };

  nixosSystem =
    { modules }:
    let
      evaluated = lib.evalModules {
        modules = modules ++ [
          ./nixos.nix
          (
            { config, ... }:
            {
              _module.args.pkgs = pkgsFor config.nixpkgs.hostPlatform;
              system.build.toplevel = (pkgsFor config.nixpkgs.hostPlatform).writeText "toplevel" "";
            }
          )
        ];
      };
    in
    evaluated;

  nixpkgs = {
    outPath = "/nix/store/00000000000000000000000000000000-nixpkgs";
    lib = lib // {
      inherit nixosSystem;
    };
    legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] pkgsFor;
  };

  self =
    (import (source + "/flake.nix")).outputs { inherit self nixpkgs; }
    // {
      outPath = "/nix/store/00000000000000000000000000000000-hyperhive";
      narHash = "sha256-AAAA+BBB/CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC=";
      lastModified = 1779796641;
      inputs = { inherit nixpkgs; };
    };

  failed = config: map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
in
{
  inherit
    failed
    lib
    nixpkgs
    pkgsFor
    self
    ;

  # The host with the module and `settings` of the operator.
  host =
    settings:
    (nixosSystem {
      modules = [
        self.nixosModules.default
        { nix.package = (pkgsFor "x86_64-linux").nix; }
        settings
      ];
    }).config;

  # A container of the template with an agent.nix.
  container =
    template: agent:
    (self.nixosConfigurations.${template}.extendModules { modules = [ agent ]; }).config;
}
