# The options of NixOS that the project's modules set, with NixOS' types, and nothing behind them.
{ config, lib, ... }:

let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  list = type: option (types.listOf type) [ ];
  anything = option (types.attrsOf types.anything) { };

  atom = types.nullOr (
    types.oneOf [
      types.bool
      types.int
      types.float
      types.str
      types.path
      types.package
    ]
  );
  unitSection = option (types.attrsOf (types.either atom (types.listOf atom))) { };
  service = types.submodule {
    options = {
      description = option types.str "";
      wantedBy = list types.str;
      wants = list types.str;
      after = list types.str;
      path = list (
        types.oneOf [
          types.package
          types.str
        ]
      );
      environment = option (types.attrsOf (
        types.nullOr (
          types.oneOf [
            types.str
            types.path
            types.package
          ]
        )
      )) { };
      unitConfig = unitSection;
      serviceConfig = unitSection;
    };
  };
  # As NixOS has it: a list is joined with colons.
  variable = types.nullOr (
    types.oneOf [
      (types.listOf (
        types.oneOf [
          types.int
          types.str
          types.path
        ]
      ))
      types.int
      types.str
      types.path
    ]
  );
  joined = lib.mapAttrs (
    _: value: if lib.isList value then lib.concatMapStringsSep ":" toString value else toString value
  );
in
{
  options = {
    assertions = list types.unspecified;
    warnings = list types.str;

    boot.enableContainers = option types.bool true;
    boot.isNspawnContainer = option types.bool false;
    containers = anything;
    documentation.enable = option types.bool true;

    environment.systemPackages = list types.package;
    environment.etc = anything;
    environment.variables = mkOption {
      type = types.attrsOf variable;
      default = { };
      apply = joined;
    };
    environment.sessionVariables = mkOption {
      type = types.attrsOf variable;
      default = { };
    };

    networking.useDHCP = option types.bool true;
    networking.firewall.enable = option types.bool true;
    networking.firewall.allowedTCPPorts = list types.port;
    networking.nat.enable = option types.bool false;
    networking.nat.internalInterfaces = list types.str;
    networking.nat.externalInterface = option (types.nullOr types.str) null;

    nix.package = option types.package { };
    nix.settings = anything;
    nixpkgs.config = option (types.attrsOf types.raw) { };
    nixpkgs.hostPlatform = option types.str "x86_64-linux";

    programs.git.enable = option types.bool false;
    programs.git.config = option (types.attrsOf (types.attrsOf types.anything)) { };

    system.stateVersion = option types.str "25.11";
    system.build.toplevel = option types.raw null;
    systemd.services = option (types.attrsOf service) { };
    systemd.tmpfiles.rules = list types.str;

    users.groups = anything;
    users.users = anything;
    virtualisation = anything;
  };

  config = {
    # NixOS defines these for every system.
    environment.sessionVariables.LD_LIBRARY_PATH = [ "/run/opengl-driver/lib" ];
    environment.sessionVariables.NIX_PATH = [ "nixpkgs=flake:nixpkgs" ];
    environment.variables = {
      EDITOR = lib.mkDefault "nano";
      XDG_CONFIG_DIRS = [ "/etc/xdg" ];
      INFOPATH = [ "$HOME/.nix-profile/share/info" ];
    }
    // config.environment.sessionVariables;
  };
}
