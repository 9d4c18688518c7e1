# An agent's container, before its own agent.nix. Core's generated flake extends it.
{ lib, ... }:

{
  imports = [ ./harness-base.nix ];

  hyperhive.role = "agent";
  hyperhive.name = lib.mkDefault "agent";
}
