# What the operator can set. `services.hive-c0re.enable = true;` alone gives a working hive.
{ flake }:

{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;
  cfg = config.services.hive-c0re;
  system = pkgs.stdenv.hostPlatform.system;

  # As narHash is written in the query of a flake reference.
  inQuery = lib.replaceStrings [ "+" "/" "=" ] [ "%2B" "%2F" "%3D" ];
  own = import ../types.nix { inherit lib; };
  aFlake = own.called "flake" (types.addCheck types.attrs (value: value ? outPath && value ? narHash));
in
{
  options.services.hive-c0re = {
    enable = lib.mkEnableOption "hyperhive, a swarm of coding agents, each in a NixOS container";

    package = mkOption {
      type = types.package;
      default = flake.packages.${system}.default;
      defaultText = lib.literalExpression "hyperhive.packages.\${system}.default";
      description = "hyperhive, of which the daemon and the command line run.";
    };

    hyperhiveFlake = mkOption {
      type = types.either types.str aFlake;
      default = flake;
      defaultText = lib.literalExpression "this flake";
      description = "Where containers take hyperhive from: a flake, or a reference to one that is pinned (a path of the Nix store, or one with `rev` or `narHash`). Another value makes every agent *needs update*.";
    };

    dashboardPort = mkOption {
      type = own.called "port" types.port;
      default = 7000;
      description = "Port of the dashboard.";
    };

    listenAddress = mkOption {
      type = types.str;
      default = "127.0.0.1";
      description = "Address that the dashboard listens on. There is no TLS: for anything but this machine put a proxy before it.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Open the dashboard's port in the firewall.";
    };

    operatorPronouns = mkOption {
      type = own.text "1 to 40 characters" ".{1,40}";
      default = "they/them";
      description = "How agents speak of you.";
    };

    databaseUrl = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Database of the hive. Null: SQLite in /var/lib/hyperhive, the only one that this version supports.";
    };

    apiKeyFile = mkOption {
      type = types.nullOr (own.text "path, as a string" "/.*");
      default = null;
      example = "/run/secrets/hive-api-key";
      description = "File on the host with an API key for all agents, given to the daemon as a systemd credential. Only root has to be able to read it. Null: each agent logs in on its page.";
    };

    privateNetwork = mkOption {
      type = types.bool;
      default = false;
      description = "Give each container a network of its own, with NAT to the outside. Agents then cannot reach what listens on the host's loopback.";
    };

    externalInterface = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "eth0";
      description = "Interface that containers with a network of their own go out by. Null: whichever the route says.";
    };

    userNamespaces = mkOption {
      type = types.bool;
      default = true;
      description = "Run each container with user ids of its own, so that its root is nobody outside. Without it an agent that is turned has the host.";
    };

    agent = {
      allowUnfreeClaudeCode = mkOption {
        type = types.bool;
        default = config.nixpkgs.config.allowUnfree or false;
        defaultText = lib.literalExpression "config.nixpkgs.config.allowUnfree or false";
        description = "Allow the Claude Code CLI, which is unfree, in the containers of agents: this package and no other.";
      };

      backend = mkOption {
        type = types.enum [
          "auto"
          "claude"
          "codex"
          "openai"
          "rehearsal"
        ];
        default = "auto";
        description = "What thinks in an agent's turns. `auto` is Claude Code where `allowUnfreeClaudeCode` allows it, else a rehearsal without a model.";
      };

      model = mkOption {
        type = own.text "name of a model" ".{1,128}";
        default = "sonnet";
        description = "Model of agents without one of their own.";
      };

      memoryMax = mkOption {
        type = own.size;
        default = "4G";
        description = "Memory of one agent's container.";
      };

      cpuQuota = mkOption {
        type = types.nullOr own.share;
        default = null;
        example = "150%";
        description = "Processor time of one agent's container; 100 is one core. Null: no limit.";
      };

      tasksMax = mkOption {
        type = own.atLeast 16;
        default = 512;
        description = "Processes and threads of one agent's container.";
      };
    };

    settings = mkOption {
      type = types.submodule { options = import ./settings.nix { inherit lib; }; };
      default = { };
      example = {
        allowed_hosts = [ "https://hive.example.org" ];
      };
      description = "Further settings of the daemon, under the names of its configuration file. Null: the daemon's default.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.hive-c0re.settings = lib.mapAttrsRecursive (_: lib.mkDefault) {
      dashboard_port = cfg.dashboardPort;
      listen_address = cfg.listenAddress;
      operator_pronouns = cfg.operatorPronouns;
      allow_unfree_claude_code = cfg.agent.allowUnfreeClaudeCode;
      private_network = cfg.privateNetwork;
      user_namespaces = cfg.userNamespaces;
      model = cfg.agent.model;
      backend =
        if cfg.agent.backend != "auto" then
          cfg.agent.backend
        else if cfg.agent.allowUnfreeClaudeCode then
          "claude"
        else
          "rehearsal";
      limits = {
        memory_max_bytes = cfg.agent.memoryMax;
        tasks_max = cfg.agent.tasksMax;
        cpu_quota_percent = lib.mapNullable own.percentOf cfg.agent.cpuQuota;
      };
      hyperhive_flake =
        if lib.isString cfg.hyperhiveFlake then
          cfg.hyperhiveFlake
        else
          # With its context: as long as the host's system refers to it, it is not garbage.
          "path:${cfg.hyperhiveFlake.outPath}?narHash=${inQuery cfg.hyperhiveFlake.narHash}"
          + lib.optionalString (
            cfg.hyperhiveFlake ? lastModified
          ) "&lastModified=${toString cfg.hyperhiveFlake.lastModified}";
    };
  };
}
