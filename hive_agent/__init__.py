"""The harness that runs one agent inside its container. Never imports the core."""
