# A stand-in for nixpkgs: what the project's files use of it, as things that can be looked at and not built.
{ lib, system }:

let
  store = name: "/nix/store/00000000000000000000000000000000-${name}";
  derivation =
    name: more:
    {
      type = "derivation";
      inherit name;
      pname = name;
      version = "0";
      outPath = store name;
      drvPath = "${store name}.drv";
      outputName = "out";
      inputDerivation = derivation "${name}-inputs" { };
      meta.mainProgram = name;
    }
    // more;
  file =
    name: content:
    derivation name {
      outPath = builtins.toFile name content;
      inherit content;
    };
  format = {
    generate = name: value: file name (builtins.toJSON value); # so that tests can read it back
  };
  builder =
    kind: args:
    derivation (args.pname or args.name) (
      args
      // {
        inherit kind;
        outPath = store "${args.pname or args.name}-${args.version or "0"}";
        meta = {
          mainProgram = args.pname or args.name;
        }
        // (args.meta or { });
      }
    );

  pkgs = {
    inherit lib;
    callPackage = lib.callPackageWith pkgs;
    stdenv = {
      hostPlatform.system = system;
      cc.cc = derivation "gcc" { lib = derivation "gcc-lib" { }; };
    };
    formats.toml = { }: format;
    formats.json = { }: format;
    writeText = file;
    writeShellApplication = args: derivation args.name (args // { meta.mainProgram = args.name; });
    runCommand =
      name: args: script:
      derivation name (args // { inherit script; } // (args.passthru or { }));
    mkShell = args: derivation "shell" args;
    fetchPypi =
      args:
      derivation args.pname {
        url = "${args.dist}/${args.pname}-${args.version}-${args.python}-${args.abi}-${args.platform}.whl";
        inherit (args) hash;
      };
    python3 = derivation "python3" { };
    python313 = {
      pkgs = {
        buildPythonApplication = builder "application";
        buildPythonPackage = builder "package";
        toPythonModule = package: package // { kind = "module"; };
        hatchling = derivation "hatchling" { };
      };
      withPackages = select: derivation "python3-env" { packages = select { }; };
    };
    testers.runNixOSTest =
      test:
      (lib.evalModules {
        modules = [
          test
          (import ./vm_test.nix { inherit lib pkgs; })
        ];
      }).config;
  }
  // lib.genAttrs [
    "autoPatchelfHook"
    "bubblewrap"
    "chromium"
    "claude-code"
    "ripgrep"
    "curl"
    "git"
    "gnumake"
    "jq"
    "nix"
    "nixfmt-tree"
    "nodejs"
    "stdenvNoCC"
  ] (name: derivation name { });
in
pkgs
