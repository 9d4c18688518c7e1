# The Python packages that hyperhive runs with: the very files that its lock names, with the same hashes.
#
# The pinned nixpkgs lacks some of them and has older ones of most others. Mixing the two would give a
# combination that nobody has tested; this set stands beside nixpkgs' own and changes nothing in it.
# wheels.json is written by update.py.
{
  lib,
  stdenv,
  autoPatchelfHook,
  fetchPypi,
  python,
}:

let
  table = lib.importJSON ./wheels.json;
  system = stdenv.hostPlatform.system;

  fileOf =
    name: entry:
    entry.files.any or entry.files.${system} or (throw "hyperhive: ${name} has no wheel for ${system}");

  build =
    name: entry:
    let
      file = fileOf name entry;
      # name-version-python-abi-platform.whl (PEP 427)
      part = lib.elemAt (lib.splitString "-" (lib.removeSuffix ".whl" file.name));
      compiled = !(entry.files ? any);
    in
    python.pkgs.buildPythonPackage {
      pname = name;
      inherit (entry) version;
      format = "wheel";
      src = fetchPypi {
        pname = part 0;
        version = part 1;
        format = "wheel";
        dist = part 2;
        python = part 2;
        abi = part 3;
        platform = part 4;
        inherit (file) hash;
      };
      nativeBuildInputs = lib.optional compiled autoPatchelfHook;
      buildInputs = lib.optional compiled (lib.getLib stdenv.cc.cc);
      dependencies = map (needed: packages.${needed}) entry.requires;
    };

  packages = lib.mapAttrs build table.packages;
  select = names: map (name: packages.${name}) names;
in
{
  inherit packages;
  run = select table.run; # what pyproject.toml names
  check = select table.check; # what the unit tests need besides
}
