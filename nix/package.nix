# hyperhive: the daemon and command line `hive-c0re`, and the harness `hive-ag3nt`, `hive-m1nd`.
{
  lib,
  callPackage,
  git,
  python313, # the one that wheels.json was chosen for
  runCommand,
}:

let
  inherit (lib.importTOML ../pyproject.toml) project;
  locked = callPackage ./python { python = python313; };

  application = python313.pkgs.buildPythonApplication {
    pname = project.name;
    inherit (project) version;
    pyproject = true;

    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../README.md
        ../assets
        ../docs
        ../flake.lock
        ../hive_agent
        ../hive_core
        ../hive_shared
        ../prompts
        ../pyproject.toml
        ../tests
      ];
    };

    build-system = [ python313.pkgs.hatchling ];
    dependencies = locked.run;
    pythonImportsCheck = [
      "hive_agent"
      "hive_core.cli"
      "hive_shared"
    ];

    # The fast tests: those that need neither containers, nor a browser, nor the Claude Code CLI. Those that
    # look at the files below nix/ and at the locks have their say before anything is built.
    nativeCheckInputs = [ git ] ++ locked.check;
    checkPhase = ''
      runHook preCheck
      HOME=$TMPDIR python -m pytest tests/unit -q -p no:cacheprovider \
        --ignore tests/unit/test_nix_settings.py --ignore tests/unit/test_nix_wheels.py \
        --ignore tests/unit/test_locks.py
      runHook postCheck
    '';

    meta = {
      inherit (project) description;
      license = lib.licenses.mit;
      mainProgram = "hive-c0re";
      platforms = lib.platforms.linux;
    };
  };

  # Parts of hyperhive start others with the interpreter that they run with (`sys.executable -m …`). In this
  # environment that interpreter finds the packages; the one that the application's own wrappers name does not.
  environment = python313.withPackages (_: [ (python313.pkgs.toPythonModule application) ]);
in
runCommand "${project.name}-${project.version}"
  {
    inherit (application) meta version;
    pname = project.name;
    passthru = {
      inherit application environment;
      python = locked.packages;
    };
  }
  ''
    mkdir -p $out/bin
    for program in hive-c0re hive-ag3nt hive-m1nd; do
      ln -s ${environment}/bin/$program $out/bin/$program
    done
  ''
