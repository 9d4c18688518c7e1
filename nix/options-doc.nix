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
  host = optionsOf [ module ];
  settings = "services.hive-c0re.settings.";
  isSetting = option: lib.hasPrefix settings option.name;
  short = option: option // { name = lib.removePrefix settings option.name; };
  below = prefix: lib.filter (option: lib.hasPrefix prefix option.name);

  inCell = lib.replaceStrings [ "|" "\n" ] [ "\\|" " " ];
  code = text: "`${inCell text}`";
  default =
    option:
    if !(option ? default) then
      "required"
    else if option.default._type == "literalMD" then
      option.default.text
    else
      code option.default.text;
  # What null means is said in words.
  type =
    option:
    inCell (
      lib.replaceStrings [ "(" ")" "submodule" ] [ "" "" "set of the options below" ] (
        lib.removePrefix "null or " option.type
      )
    );
  row = option: "| ${code option.name} | ${type option} | ${default option} | ${inCell option.description} |\n";
  table = options: "| option | type | default | meaning |\n|---|---|---|---|\n" + lib.concatMapStrings row options;
in
''
  Of the host:

  ${table (lib.filter (option: !isSetting option) (below "services.hive-c0re." host))}
  Of the host, below `services.hive-c0re.settings`, for what the options above do not say:

  ${table (map short (lib.filter isSetting host))}
  Of an agent, in its `agent.nix`:

  ${table (below "hyperhive." (optionsOf [ ./templates/options.nix ]))}''
