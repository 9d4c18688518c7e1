# A whole hive in a virtual machine: the module, real containers, approvals, and a daemon that is restarted
# while they run. There is no network: what the containers are built from is in the machine's store.
{ pkgs, self }:

let
  # As the generated flake has it, so that little is left to build inside.
  container =
    base: name:
    (self.nixosConfigurations.${base}.extendModules {
      modules = [
        {
          nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
          hyperhive.name = name;
        }
      ];
    }).config.system.build.toplevel;
  toplevels = [
    (container "manager" "hm1nd")
    (container "agent-base" "alice")
  ];
in
pkgs.testers.runNixOSTest {
  name = "hyperhive";

  nodes.host =
    { pkgs, ... }:
    {
      imports = [ self.nixosModules.default ];

      services.hive-c0re = {
        enable = true;
        agent.backend = "rehearsal";
        agent.memoryMax = "512M";
        openFirewall = true;
        listenAddress = "0.0.0.0";
        settings.allowed_hosts = [ "host" ];
      };

      users.users.ada = {
        isNormalUser = true;
        extraGroups = [ "hive" ];
      };
      users.users.eve.isNormalUser = true;
      environment.systemPackages = [
        pkgs.curl
        pkgs.jq
      ];

      nix.settings.substituters = [ ];
      virtualisation = {
        cores = 2;
        memorySize = 4096;
        diskSize = 8192;
        writableStore = true;
        additionalPaths = [
          self.outPath
          self.inputs.nixpkgs.outPath
          pkgs.stdenvNoCC
        ]
        ++ toplevels
        ++ map (toplevel: toplevel.inputDerivation) toplevels;
      };
    };

  nodes.outside =
    { pkgs, ... }:
    {
      environment.systemPackages = [ pkgs.curl ];
    };

  testScript = ''
    import json

    def hive(words):
        return json.loads(host.succeed(f"hive-c0re --json {words}"))

    def main_pid(unit):
        return host.succeed(f"systemctl show --property MainPID --value {unit}").strip()

    start_all()
    host.wait_for_unit("hive-c0re.service")
    host.wait_for_open_port(7000)

    with subtest("the sockets are there, with their modes"):
        assert host.succeed("stat -c '%a %G' /run/hyperhive/host.sock").strip() == "660 hive"
        assert host.succeed("stat -c '%a' /var/lib/hyperhive").strip() == "700"

    with subtest("members of the group are operators, and nobody else is"):
        host.succeed("su ada -c 'hive-c0re status'")
        host.fail("su eve -c 'hive-c0re status'")

    with subtest("the dashboard answers, from outside too, because the firewall was opened"):
        host.succeed("curl --fail --silent http://127.0.0.1:7000/login")
        outside.succeed("curl --fail --silent http://host:7000/login")

    with subtest("the manager's container runs its harness"):
        host.wait_for_unit("container@hm1nd.service")
        host.wait_until_succeeds("nixos-container run hm1nd -- systemctl is-active hyperhive-harness.service")
        host.wait_until_succeeds("test -S /run/hyperhive/manager/page.sock")

    with subtest("an agent is spawned, and answers"):
        hive("spawn alice")
        host.wait_for_unit("container@h-alice.service")
        host.wait_until_succeeds("test -S /run/hyperhive/agents/alice/page.sock")
        host.succeed("hive-c0re send alice 'send operator all is well'")
        host.wait_until_succeeds("hive-c0re inbox | grep 'all is well'")

    with subtest("its directories are its own, and the host's is not there"):
        inside = "nixos-container run h-alice --"
        host.succeed(f"{inside} test -S /run/hive/mcp.sock")
        host.fail(f"{inside} test -e /var/lib/hyperhive/broker.sqlite")
        host.fail(f"{inside} test -e /run/hyperhive/host.sock")
        host.succeed(f"{inside} git config user.name | grep alice")

    with subtest("limits hold from outside"):
        limit = host.succeed("systemctl show --property MemoryMax --value container@h-alice.service").strip()
        assert limit == str(512 * 1024 * 1024), limit

    with subtest("containers outlive a restart of the daemon"):
        before = main_pid("container@h-alice.service")
        host.succeed("systemctl restart hive-c0re.service")
        host.wait_for_unit("hive-c0re.service")
        assert main_pid("container@h-alice.service") == before
        host.succeed("hive-c0re send alice 'send operator still here'")
        host.wait_until_succeeds("hive-c0re inbox | grep 'still here'")

    with subtest("a harness that crashes comes back"):
        host.succeed("nixos-container run h-alice -- systemctl kill --signal=KILL hyperhive-harness.service")
        host.wait_until_succeeds("nixos-container run h-alice -- systemctl is-active hyperhive-harness.service")

    with subtest("a destroyed agent leaves no container"):
        host.succeed("hive-c0re destroy alice --yes")
        host.wait_until_fails("test -e /etc/nixos-containers/h-alice.conf")
        host.fail("systemctl is-active container@h-alice.service")
        host.succeed("test -d /var/lib/hyperhive/agents/alice/state")
  '';
}
