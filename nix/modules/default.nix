# The NixOS module of the host: `services.hive-c0re`. `flake` is the flake that it comes from.
{ flake }:

{
  _file = ./default.nix;
  key = "hyperhive/nix/modules"; # imported twice, as two attributes of the flake, it is one module
  imports = [
    (import ./options.nix { inherit flake; })
    ./assertions.nix
    ./service.nix
  ];
}
