{
  description = "A swarm of coding agents on your own machines: brokered, approved commit by commit, each in a container";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});

      # A container before its name and its own configuration are known. The generated flake of an agent
      # extends it; the system is that of the host.
      base =
        template:
        lib.nixosSystem {
          modules = [
            template
            (
              { lib, pkgs, ... }:
              {
                nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
                hyperhive.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
              }
            )
          ];
        };

      module = import ./nix/modules {
        flake = self;
      };
    in
    {
      packages = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
        options-doc = pkgs.writeText "options.md" (import ./nix/options-doc.nix { inherit lib pkgs module; });
      });

      # `nix run`: a hive under ./.hive on the local runtime, for trying out.
      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          meta.description = "Try hyperhive out: a hive under ./.hive, without NixOS containers";
          program = lib.getExe (
            pkgs.writeShellApplication {
              name = "hyperhive-local";
              runtimeInputs = [
                self.packages.${pkgs.stdenv.hostPlatform.system}.default
                pkgs.bubblewrap
                pkgs.git
              ];
              text = ''exec hive-c0re --root "''${HIVE_ROOT:-.hive}" serve "$@"'';
            }
          );
        };
      });

      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.bubblewrap
            pkgs.chromium
            pkgs.git
            pkgs.gnumake
            pkgs.nodejs
            pkgs.python3
          ];
          # The locked wheels of `make` bring compiled parts that look for these where other systems have them.
          LD_LIBRARY_PATH = lib.makeLibraryPath [ pkgs.stdenv.cc.cc ];
        };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      checks = eachSystem (
        pkgs:
        let
          system = pkgs.stdenv.hostPlatform.system;
        in
        {
          package = self.packages.${system}.default; # runs the unit tests
          container =
            (self.nixosConfigurations.agent-base.extendModules {
              modules = [ { nixpkgs.hostPlatform = system; } ];
            }).config.system.build.toplevel;
          hive = import ./nix/tests/hive.nix { inherit pkgs self; };
          docs = pkgs.runCommand "hyperhive-docs" { } ''
            sed -n '/^<!-- options: begin -->$/,/^<!-- options: end -->$/p' ${./docs/nixos.md} | sed '1d;$d' >table
            diff table ${self.packages.${system}.options-doc}
            touch $out
          '';
        }
      );

      nixosModules = {
        hive-c0re = module;
        default = module;
      };

      nixosConfigurations = {
        agent-base = base ./nix/templates/agent-base.nix;
        manager = base ./nix/templates/manager.nix;
      };
    };
}
