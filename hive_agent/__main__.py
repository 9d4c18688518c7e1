"""`python -m hive_agent serve|mcp`, the same as `hive-ag3nt`."""

from hive_agent.entry import main

if __name__ == "__main__":
    main()
