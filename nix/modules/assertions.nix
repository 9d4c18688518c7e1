# What cannot work is told when the host is built, in words that say what to do.
{ config, lib, ... }:

let
  cfg = config.services.hive-c0re;
  inherit (cfg) settings;

  port = settings.dashboard_port;
  pagePorts = settings.agent_page_ports != false;
  isLoopback = address: lib.hasPrefix "127." address || address == "::1" || address == "localhost";

  isOurs = name: name == "hm1nd" || lib.hasPrefix "h-" name;
  clashing = lib.filter isOurs (lib.attrNames (config.containers or { }));

  # As hive_core/config.py has them.
  secret = ".*(API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL).*";
  variables = lib.attrNames (if settings.agent_environment == null then { } else settings.agent_environment);
  secrets = lib.filter (name: builtins.match secret (lib.toUpper name) != null) variables;
  ours = lib.filter (lib.hasPrefix "HIVE_") variables;
  noVariables = lib.filter (name: builtins.match "[A-Za-z_][A-Za-z0-9_]*" name == null) variables;

  reference = toString settings.hyperhive_flake;
  isPinned =
    lib.hasPrefix "${builtins.storeDir}/" (lib.removePrefix "path:" reference)
    || builtins.match ".*[?&](rev=[0-9a-f]{40}|narHash=[^&]+).*" reference != null
    || builtins.match "(github|gitlab|sourcehut):[^/]+/[^/]+/[0-9a-f]{40}([?].*)?" reference != null;
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = port != 0;
        message = "services.hive-c0re.dashboardPort: 0 takes any free port, which nobody could find on a host; choose one.";
      }
      {
        assertion = !(pagePorts && (port == 8000 || (port >= 8100 && port <= 8999)));
        message = "services.hive-c0re.dashboardPort: ${toString port} is a port of an agent's page (8000 and 8100 to 8999); choose another, or set services.hive-c0re.settings.agent_page_ports = false.";
      }
      {
        assertion = clashing == [ ];
        message = "containers: ${lib.concatStringsSep ", " clashing}: the names hm1nd and h-… belong to hyperhive's agents; rename these containers.";
      }
      {
        assertion = settings.backend != "claude" || cfg.agent.allowUnfreeClaudeCode;
        message = "services.hive-c0re.agent.backend is \"claude\", and the Claude Code CLI is unfree. To allow it in agents' containers, and nothing else, set services.hive-c0re.agent.allowUnfreeClaudeCode = true; or use backend \"rehearsal\".";
      }
      {
        assertion = config.boot.enableContainers;
        message = "services.hive-c0re: agents are NixOS containers; boot.enableContainers must not be false.";
      }
      {
        assertion = cfg.databaseUrl == null;
        message = "services.hive-c0re.databaseUrl: this version keeps its data in SQLite below /var/lib/hyperhive; leave it null.";
      }
      {
        assertion = cfg.apiKeyFile == null || !lib.hasPrefix "${builtins.storeDir}/" cfg.apiKeyFile;
        message = "services.hive-c0re.apiKeyFile: everybody can read the Nix store; name a file outside it, as a string and not as a path of Nix.";
      }
      {
        assertion =
          settings.notify_urls_file == null
          || (lib.isString settings.notify_urls_file && !lib.hasPrefix "${builtins.storeDir}/" settings.notify_urls_file);
        message = "services.hive-c0re.settings.notify_urls_file: everybody can read the Nix store, and its URLs hold passwords; name a file outside it, as a string and not as a path of Nix.";
      }
      {
        assertion = secrets == [ ];
        message = "services.hive-c0re.settings.agent_environment: ${lib.concatStringsSep ", " secrets} looks like a secret, and everybody can read the Nix store; put an API key into a file and name it services.hive-c0re.apiKeyFile.";
      }
      {
        assertion = ours == [ ] && noVariables == [ ];
        message = "services.hive-c0re.settings.agent_environment: ${lib.concatStringsSep ", " (ours ++ noVariables)}: names of environment variables, and none that begins with HIVE_.";
      }
      {
        assertion = isPinned;
        message = "services.hive-c0re.hyperhiveFlake: ${reference} is not pinned, so that agents would be built from whatever it is at that moment; use a path of the Nix store, or add a rev or narHash.";
      }
    ];

    warnings =
      lib.optional (settings.backend == "rehearsal" && cfg.agent.backend == "auto")
        "services.hive-c0re: agents rehearse, without a model: the Claude Code CLI is unfree and was not allowed. Set services.hive-c0re.agent.allowUnfreeClaudeCode = true, or agent.backend = \"rehearsal\" if that is meant."
      ++ lib.optional (
        cfg.openFirewall && isLoopback settings.listen_address
      ) "services.hive-c0re.openFirewall opens a port that nothing listens on: listenAddress is ${settings.listen_address}."
      ++ lib.optional (!isLoopback settings.listen_address)
        "services.hive-c0re.listenAddress: the dashboard speaks plain HTTP on ${settings.listen_address}; sessions can be read on the way. A proxy with TLS on this host is safer.";
  };
}
