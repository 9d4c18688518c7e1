"""Where `hive-ag3nt` and `hive-m1nd` begin. `mcp` must be quick: it imports the relay and nothing else."""

import sys


def main() -> None:
    """Run `serve` or `mcp`; the program's name decides nothing, the environment says who we are."""
    if sys.argv[1:2] == ["mcp"]:
        from hive_agent import mcp_relay

        sys.exit(mcp_relay.main(sys.argv[2:]))
    from hive_agent.cli import app

    app()
