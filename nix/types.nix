# Types that both the host's options and those of agents have, and what their values mean.
{ lib }:

let
  inherit (lib) types;
  called = description: type: type // { inherit description; };
  number = types.ints.positive;
in
rec {
  inherit called;

  text = description: pattern: called description (types.strMatching pattern);

  atLeast =
    least: called "integer of at least ${toString least}" (types.addCheck types.int (value: value >= least));

  positive = called "number above 0" (types.addCheck types.number (value: value > 0));
  notNegative = called "number, 0 or above" (types.addCheck types.number (value: value >= 0));

  # Bytes, also written as `512M` or `2 GiB`, as the daemon reads them.
  size = called "bytes, or a size such as \"2G\"" (
    types.either number (types.strMatching "[0-9]{1,15} *[KMGTkmgt]?i?[Bb]?")
  );
  bytesOf =
    value:
    let
      parts = builtins.match "([0-9]{1,15}) *([KMGTkmgt]?)i?[Bb]?" value;
      units = {
        "" = 1;
        K = 1024;
        M = 1024 * 1024;
        G = 1024 * 1024 * 1024;
        T = 1024 * 1024 * 1024 * 1024;
      };
    in
    if lib.isInt value then
      value
    else
      lib.toIntBase10 (lib.head parts) * units.${lib.toUpper (lib.elemAt parts 1)};

  # A share of one core.
  share = called "percent, such as 150 or \"150%\"" (
    types.addCheck (types.either number (types.strMatching "[0-9]{1,6} *%")) (value: percentOf value >= 1)
  );
  percentOf =
    value:
    if lib.isString value then
      lib.toIntBase10 (lib.head (builtins.match "([0-9]{1,6}) *%" value))
    else
      value;
}
