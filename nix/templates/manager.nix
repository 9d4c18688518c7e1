# The manager's container: it sees every agent's proposed repository and state, and what is applied.
{ lib, ... }:

{
  imports = [ ./harness-base.nix ];

  hyperhive.role = "manager";
  hyperhive.name = lib.mkDefault "hm1nd";
}
