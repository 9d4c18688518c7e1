# The tables of options in docs/nixos.md, from the modules themselves.
{
  lib,
  pkgs,
  module,
}:

let
  optionsOf =
    modules:
    lib.filter (option: option.visible && !option.internal) (
      lib.optionAttrSetToDocList
        (lib.evalModules {
          modules = modules ++ [ { _module.check = false; } ];
          specialArgs = { inherit pkgs; };
        }).options
    );
  below = prefix: lib.filter (option: lib.hasPrefix prefix option.name);

  inCell = lib.replaceStrings [ "|" "\n" ] [ "\\|" " " ];
  code = text: "`${inCell text}`";
  default = option: if option ? default then code option.default.text else "";
  type = option: inCell (lib.removePrefix "null or " option.type);
  row = option: "| ${code option.name} | ${type option} | ${default option} | ${inCell option.description} |\n";
  table = options: "| option | type | default | meaning |\n|---|---|---|---|\n" + lib.concatMapStrings row options;
in
''
  Of the host:

  ${table (below "services.hive-c0re." (optionsOf [ module ]))}
  Of an agent, in its `agent.nix`:

  ${table (below "hyperhive." (optionsOf [ ./templates/options.nix ]))}''
