# What every container of a hive has: the harness as a service, with its directories bound in from the host.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.hyperhive;
  json = pkgs.formats.json { };
  backend = if cfg.backend == null then cfg.hive.backend else cfg.backend;
  claude = backend == "claude";

  # Where core binds what the harness works on (hive_shared/paths.py, ContainerPaths).
  binds = [
    "/run/hive"
    "/root/.claude"
    "/state"
    "/shared"
  ]
  ++ lib.optional (cfg.role == "manager") "/applied"; # below /agents there may be nobody yet

  # Ours, the interpreter's, or what every program is found by (hive_shared/agent_options.py): NixOS sets
  # some of them for login shells, and they mean nothing to a service.
  isOurs =
    name:
    lib.any (prefix: lib.hasPrefix prefix name) [
      "HIVE_"
      "LD_"
      "PYTHON"
    ]
    || lib.elem name [
      "BASH_ENV"
      "CLAUDE_CONFIG_DIR"
      "ENV"
      "GCONV_PATH"
      "HOME"
      "IFS"
      "OLDPWD"
      "PATH"
      "PWD"
      "SHELLOPTS"
    ];
  # A variable of a login shell may name others (`$HOME/.nix-profile`); a service's is taken as it stands.
  isPlain = value: value != null && !(lib.hasInfix "$" (toString value));
  ofTheConfiguration = lib.mapAttrs (_: toString) (
    lib.filterAttrs (name: value: !isOurs name && isPlain value) config.environment.variables
  );

  variables =
    ofTheConfiguration
    // {
      HIVE_ISOLATION = "systemd-nspawn";
    }
    // cfg.hive.environment
    // {
      HIVE_AGENT = cfg.name;
      HIVE_ROLE = cfg.role;
      HIVE_BACKEND = backend;
      HIVE_MODEL = if cfg.model == null then cfg.hive.model else cfg.model;
      HOME = "/root";
      PYTHONUNBUFFERED = "1";
    }
    // lib.optionalAttrs (claude && cfg.hive.allowClaude) { HIVE_CLAUDE = lib.getExe cfg.claudePackage; }
    // lib.filterAttrs (_: value: value != null) {
      HIVE_EXTRA_MCP = if cfg.extraMcpServers == { } then null else builtins.toJSON cfg.extraMcpServers;
      HIVE_ALLOWED_TOOLS = lib.mapNullable builtins.toJSON cfg.allowedTools;
      HIVE_BASH_ALLOW = lib.mapNullable builtins.toJSON cfg.bashAllow;
      HIVE_PERMISSIONS = lib.mapNullable builtins.toJSON cfg.system.permissions;
      HIVE_CONTEXT = lib.mapNullable builtins.toJSON cfg.system.context;
    };

  # NixOS quotes the values of a unit's environment, and leaves systemd's specifiers (%h) as they are.
  withoutSpecifiers = lib.replaceStrings [ "%" ] [ "%%" ];

  refused = lib.filter (name: lib.hasPrefix "HIVE_" name) (lib.attrNames config.environment.variables);
in
{
  imports = [ ./options.nix ];

  config = {
    boot.isNspawnContainer = true;
    system.stateVersion = lib.mkDefault "25.11";

    # The host's network is the container's own, and so is its firewall; both are the host's to set up.
    networking.useDHCP = lib.mkDefault false;
    networking.firewall.enable = lib.mkDefault false;
    documentation.enable = lib.mkDefault false;

    # A container evaluates its own nixpkgs: what the host allows does not reach it. This one and no other.
    nixpkgs.config.allowUnfreePredicate = lib.mkIf (claude && cfg.hive.allowClaude) (
      package: lib.elem (lib.getName package) [ "claude-code" ]
    );
    hyperhive.claudePackage = lib.mkDefault pkgs.claude-code;

    environment.systemPackages = [
      pkgs.git
      cfg.package
    ]
    ++ lib.optional (claude && cfg.hive.allowClaude) cfg.claudePackage;

    # Read by core from the built system, without a second evaluation: what the configuration asks for.
    environment.etc."hyperhive/agent.json".source = json.generate "agent.json" cfg.system;

    programs.git = {
      enable = true;
      config.user = {
        name = lib.mkDefault cfg.name;
        email = lib.mkDefault "${cfg.name}@hive.invalid";
      };
    };

    assertions = [
      {
        assertion = !claude || cfg.hive.allowClaude;
        message = "hyperhive.backend is \"claude\", and the Claude Code CLI is unfree. The operator of the host allows it in agents' containers with services.hive-c0re.agent.allowUnfreeClaudeCode = true; or use backend \"rehearsal\".";
      }
      {
        assertion = refused == [ ];
        message = "environment.variables: ${lib.concatStringsSep ", " refused} is set by hyperhive itself; a configuration cannot change it.";
      }
    ];

    systemd.services.hyperhive-harness = {
      description = "hyperhive harness of ${cfg.name}";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];

      # Entries get /bin appended. The second one is what agent.nix adds to environment.systemPackages.
      path = [
        pkgs.git
        "/run/current-system/sw"
        "/run/wrappers"
      ];
      environment = lib.mapAttrs (_: withoutSpecifiers) variables;

      unitConfig = {
        RequiresMountsFor = binds;
        # Binds come with the container's start. Without them the harness would work on directories of its own,
        # which nobody sees and which are gone with the container.
        AssertPathIsMountPoint = binds;
        StartLimitIntervalSec = 0; # core says whether an agent that keeps ending is given up
      };
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/${if cfg.role == "manager" then "hive-m1nd" else "hive-ag3nt"} serve";
        WorkingDirectory = "/state";
        Restart = "always";
        RestartSec = 1;
        RestartSteps = 6;
        RestartMaxDelaySec = 60;
        KillMode = "mixed"; # the harness ends its own children in order
        # The console is what the host's journal has of a container, also when that is down.
        StandardOutput = "journal+console";
        StandardError = "journal+console";
        TimeoutStopSec = 20;
        # An agent's shell may do in its container what it likes; that a restart ends all of it is systemd's.
        OOMPolicy = "continue";
        LimitNOFILE = lib.mkIf (cfg.limits.openFiles != null) cfg.limits.openFiles;
      };
    };
  };
}
