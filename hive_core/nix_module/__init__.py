"""Reading `agent.nix` without Nix: a parser, a bounded evaluation, and what an operator should look at."""
