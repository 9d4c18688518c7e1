# The daemon's unit, and what it needs of the host.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.hive-c0re;

  settings = lib.filterAttrsRecursive (_: value: value != null) cfg.settings // {
    runtime = "nixos";
    group = "hive";
  };
  withKey = lib.optionalAttrs (cfg.apiKeyFile != null) {
    api_key_file = "/run/credentials/hive-c0re.service/api-key";
  };
  file = (pkgs.formats.toml { }).generate "hive-c0re.toml" (settings // withKey);
in
{
  config = lib.mkIf cfg.enable {
    users.groups.hive = { };
    environment.systemPackages = [ cfg.package ];

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.settings.dashboard_port ];

    # The addresses that nixos-container gives, by the names that systemd-nspawn gives the interfaces.
    networking.nat = lib.mkIf cfg.privateNetwork {
      enable = true;
      internalInterfaces = [ "ve-+" ];
      externalInterface = lib.mkIf (cfg.externalInterface != null) cfg.externalInterface;
    };

    systemd.services.hive-c0re = {
      description = "hyperhive";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "nix-daemon.socket"
      ];

      # Entries get /bin appended. nixos-container is where the host's system has it, made for its directories.
      path = [
        pkgs.git
        config.nix.package
        "/run/current-system/sw"
      ];

      unitConfig.StartLimitIntervalSec = 0;
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${cfg.package}/bin/hive-c0re serve --config ${file}";
        Restart = "on-failure";
        RestartSec = 1;
        RestartSteps = 5;
        RestartMaxDelaySec = 30;
        TimeoutStartSec = "10min"; # migrating a large store takes its time
        WatchdogSec = 60;
        TimeoutStopSec = 90;
        KillMode = "mixed"; # the daemon ends what it has started in order

        StateDirectory = "hyperhive";
        StateDirectoryMode = "0700";
        RuntimeDirectory = "hyperhive";
        RuntimeDirectoryMode = "0755";
        # Containers outlive the daemon, and their binds come from here.
        RuntimeDirectoryPreserve = "yes";
        LoadCredential = lib.mkIf (cfg.apiKeyFile != null) "api-key:${cfg.apiKeyFile}";
        UMask = "0077";

        # It is root, because nixos-container is; of root's rights it keeps those that this takes.
        ProtectSystem = "strict";
        ReadWritePaths = [
          "-/etc/nixos-containers"
          "-/etc/containers"
          "-/var/lib/nixos-containers"
          "-/var/lib/containers"
          "/nix/var/nix"
          "/run"
        ];
        CapabilityBoundingSet = [
          "CAP_CHOWN"
          "CAP_DAC_OVERRIDE"
          "CAP_DAC_READ_SEARCH"
          "CAP_FOWNER"
          "CAP_FSETID"
          "CAP_KILL"
          "CAP_LINUX_IMMUTABLE" # nixos-container destroy takes the flag off a container's /var/empty
          "CAP_SETGID"
          "CAP_SETUID"
        ];
        NoNewPrivileges = true;
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        LockPersonality = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_NETLINK"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [ "@system-service" ];
      };
    };

    # Made before the unit: ProtectSystem needs its exceptions to be there.
    systemd.tmpfiles.rules = [
      "d /etc/nixos-containers 0755 root root -"
      "d /var/lib/nixos-containers 0755 root root -"
    ];
  };
}
