# What `agent.nix` may say about an agent: `hyperhive.*`.
#
# The local runtime honours the same options without Nix (hive_core/containers/local_options.py), with the
# same names, types and limits. Tests compare the two.
{ config, lib, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.hyperhive;

  own = import ../types.nix { inherit lib; };

  server = types.submodule {
    options = {
      command = mkOption {
        type = types.nonEmptyStr;
        description = "Program that serves tools over standard input and output.";
        example = lib.literalExpression ''"''${pkgs.forge-mcp}/bin/forge-mcp"'';
      };
      args = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Its arguments.";
      };
      env = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Its environment variables. No secrets: configurations are kept in git and in the Nix store.";
      };
    };
  };

  # As hive_shared/agent_options.py has them.
  secret = ".*(API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL).*";
  isSecret = name: builtins.match secret (lib.toUpper name) != null;
  isServerName = name: builtins.match "[A-Za-z0-9]([A-Za-z0-9-]|_[A-Za-z0-9-]|_$){0,30}" name != null;
  tools = [
    "Bash"
    "Edit"
    "Glob"
    "Grep"
    "Read"
    "TodoWrite"
    "Write"
    "NotebookEdit"
    "Task"
    "WebFetch"
    "WebSearch"
  ];
  pattern = "[^[:cntrl:],()]{1,200}";
  isPattern = text: builtins.match pattern text != null && builtins.match " *" text == null;
  isTool =
    rule:
    let
      parts = builtins.match "(${lib.concatStringsSep "|" tools})(\\((.*)\\))?" rule;
    in
    parts != null && (lib.elemAt parts 1 == null || isPattern (lib.elemAt parts 2));
  # The shortest server name that was declared: `mcp__<server>` or `mcp__<server>__<tool>`.
  isMcpTool =
    rule:
    lib.any (
      name: rule == "mcp__${name}" || builtins.match "mcp__${name}__[A-Za-z0-9_-]{1,64}" rule != null
    ) (lib.filter isServerName (lib.attrNames cfg.extraMcpServers));

  wrongServers = lib.filter (name: !isServerName name || name == "hyperhive") (
    lib.attrNames cfg.extraMcpServers
  );
  wrongTools = lib.filter (rule: !(isTool rule || isMcpTool rule)) (
    if cfg.allowedTools == null then [ ] else cfg.allowedTools
  );
  # Null unless something is set. The names are those of hive_shared.permissions.PermissionOptions.
  permissions =
    let
      said = lib.filterAttrs (_: value: value != null) {
        inherit (cfg.permissions) allow deny default;
        ask_timeout_seconds = cfg.permissions.askTimeoutSeconds;
      };
    in
    if said == { } then null else said;
  # The same, with the names of hive_shared.context_options.ContextOptions.
  context =
    let
      said = lib.filterAttrs (_: value: value != null) {
        compact_at = cfg.context.compactAt;
        reset_at = cfg.context.resetAt;
        cache_seconds = cfg.context.cacheSeconds;
      };
    in
    if said == { } then null else said;
  isWatermark =
    value:
    value == 0
    || (value >= 0.1 && value <= 0.95)
    || (value >= 10000 && value <= 10000000 && builtins.floor value == builtins.ceil value);
  watermark =
    own.called "share of the context from 0.1 to 0.95, tokens (10000 or more), or 0 for never"
      (types.addCheck types.number isWatermark);
  rulesOf = name: if cfg.permissions.${name} == null then [ ] else cfg.permissions.${name};
  wrongRules = lib.filter (rule: !(isTool rule || isMcpTool rule)) (rulesOf "allow" ++ rulesOf "deny");
  secrets = lib.concatMap (one: lib.filter isSecret (lib.attrNames one.env)) (
    lib.attrValues cfg.extraMcpServers
  );
  namesBash = cfg.allowedTools == null || lib.elem "Bash" cfg.allowedTools;

  memory = own.called "size such as \"512M\" or \"2G\", at least 64M" (
    types.addCheck own.size (value: own.bytesOf value >= 64 * 1024 * 1024)
  );
in
{
  options.hyperhive = {
    model = mkOption {
      type = types.nullOr (own.text "name of a model" "[A-Za-z0-9][]A-Za-z0-9._:/@[-]{0,127}");
      default = null;
      example = "opus";
      description = "Model of this agent, until the operator chooses another on its page. Null: the hive's.";
    };
    backend = mkOption {
      type = types.nullOr (
        types.enum [
          "claude"
          "codex"
          "openai"
          "rehearsal"
        ]
      );
      default = null;
      description = "What thinks in its turns. Null: what the hive uses.";
    };
    extraMcpServers = mkOption {
      type = types.attrsOf server;
      default = { };
      description = "Servers of tools beside the hive's own, started by the backend inside the container.";
    };
    allowedTools = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [
        "Read"
        "Bash(git *)"
        "mcp__forge__issue"
      ];
      description = "The backend's own tools and those of extra servers. Null: Bash, Edit, Glob, Grep, Read, TodoWrite and Write, and all tools of the extra servers.";
    };
    bashAllow = mkOption {
      type = types.nullOr (types.listOf (own.called "pattern" (types.addCheck types.str isPattern)));
      default = null;
      example = [ "git *" ];
      description = "Narrows Bash to commands of these patterns. Null: any command.";
    };
    permissions = {
      allow = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = [
          "Read"
          "Bash(git *)"
        ];
        description = "Tool calls that need no question. With any option of `permissions` there is a policy; null in it: Glob, Grep, Read and TodoWrite.";
      };
      deny = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = [ "Bash(git push *)" ];
        description = "Tool calls that are denied, whatever else allows them.";
      };
      default = mkOption {
        type = types.nullOr (
          types.enum [
            "ask"
            "deny"
          ]
        );
        default = null;
        description = "What becomes of any other tool call. Null in a policy: the operator is asked.";
      };
      askTimeoutSeconds = mkOption {
        type = types.nullOr (types.ints.between 1 2592000);
        default = null;
        description = "Seconds after which a request that nobody has answered is denied. Null: it waits.";
      };
    };
    context = {
      compactAt = mkOption {
        type = types.nullOr watermark;
        default = null;
        example = 120000;
        description = "How large the agent's conversation is compacted, after its notes are saved. Null: 0.75.";
      };
      resetAt = mkOption {
        type = types.nullOr watermark;
        default = null;
        example = 0.3;
        description = "How large a conversation is begun anew with the next message, once the provider's cache of it is cold. Null: never.";
      };
      cacheSeconds = mkOption {
        type = types.nullOr (types.ints.between 60 86400);
        default = null;
        description = "How long after its last use the provider keeps a prompt in its cache. Null: 300.";
      };
    };
    limits = {
      memoryMax = mkOption {
        type = types.nullOr memory;
        default = null;
        example = "2G";
        description = "Memory of the container. Null, or more than the hive's limit: the hive's limit.";
      };
      tasksMax = mkOption {
        type = types.nullOr (own.atLeast 16);
        default = null;
        description = "Processes and threads of the container.";
      };
      cpuQuota = mkOption {
        type = types.nullOr own.share;
        default = null;
        example = "150%";
        description = "Processor time of the container; 100 is one core.";
      };
      openFiles = mkOption {
        type = types.nullOr (own.atLeast 64);
        default = null;
        description = "Open files of one process.";
      };
    };

    # --- set by the hive, not by agent.nix ---
    name = mkOption {
      type = types.strMatching "[a-z][a-z0-9-]{0,8}";
      internal = true;
      description = "The agent's name.";
    };
    role = mkOption {
      type = types.enum [
        "agent"
        "manager"
      ];
      internal = true;
      description = "Which prompt and tools the harness has.";
    };
    package = mkOption {
      type = types.package;
      internal = true;
      description = "hyperhive, of which the harness runs.";
    };
    claudePackage = mkOption {
      type = types.package;
      internal = true;
      description = "The Claude Code CLI.";
    };
    hive = {
      model = mkOption {
        type = types.str;
        default = "sonnet";
        internal = true;
        description = "Model where `hyperhive.model` is null.";
      };
      backend = mkOption {
        type = types.enum [
          "claude"
          "codex"
          "openai"
          "rehearsal"
        ];
        default = "rehearsal";
        internal = true;
        description = "Backend where `hyperhive.backend` is null.";
      };
      allowClaude = mkOption {
        type = types.bool;
        default = false;
        internal = true;
        description = "Whether the operator has allowed the Claude Code CLI, which is unfree.";
      };
      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
        internal = true;
        description = "Variables of the harness that the hive decides on.";
      };
    };
    # A derived value and no choice: JSON that core reads from the built system, with the names of
    # hive_core.containers.local_system.LocalSystem.
    system = mkOption {
      type = types.raw;
      readOnly = true;
      internal = true;
      description = "What core has to know of this configuration.";
    };
  };

  config = {
    hyperhive.system = {
      version = 1;
      inherit (cfg) model backend;
      extra_mcp_servers = cfg.extraMcpServers;
      allowed_tools = cfg.allowedTools;
      bash_allow = cfg.bashAllow;
      inherit permissions context;
      limits = {
        memory_max_bytes = lib.mapNullable own.bytesOf cfg.limits.memoryMax;
        tasks_max = cfg.limits.tasksMax;
        cpu_quota_percent = lib.mapNullable own.percentOf cfg.limits.cpuQuota;
        open_files = cfg.limits.openFiles;
      };
    };

    assertions = [
      {
        assertion = wrongServers == [ ];
        message = "hyperhive.extraMcpServers: ${lib.concatStringsSep ", " wrongServers}: a name has at most 31 letters, digits, - and single _, begins with a letter or digit, and is not hyperhive.";
      }
      {
        assertion = lib.length (lib.attrNames cfg.extraMcpServers) <= 16;
        message = "hyperhive.extraMcpServers: at most 16 servers.";
      }
      {
        assertion = secrets == [ ];
        message = "hyperhive.extraMcpServers: ${lib.concatStringsSep ", " secrets} looks like a secret; a configuration is kept in git and in the Nix store for ever. Have the server read it from a file below /state.";
      }
      {
        assertion = wrongTools == [ ];
        message = "hyperhive.allowedTools: ${lib.concatStringsSep ", " wrongTools}: there are ${lib.concatStringsSep ", " tools}, those with a pattern such as Bash(git *), and mcp__<server>__<tool> of declared servers.";
      }
      {
        assertion = wrongRules == [ ];
        message = "hyperhive.permissions: ${lib.concatStringsSep ", " wrongRules}: there are ${lib.concatStringsSep ", " tools}, those with a pattern such as Bash(git *), and mcp__<server>__<tool> of declared servers.";
      }
      {
        assertion = cfg.bashAllow == null || namesBash;
        message = "hyperhive.bashAllow narrows the tool Bash, which hyperhive.allowedTools does not name; name it, or drop one.";
      }
    ];
  };
}
