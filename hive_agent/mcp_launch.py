"""Become an MCP server that is declared in the harness's file, with the environment declared there.

For backends that take a server's environment on their command line only, where everyone on the machine
could read its secrets in /proc: they start this file itself instead (`python -I -S mcp_launch.py <file>
<server>`), and the values stay in the file, which its owner alone can read. IMPORT ONLY THE STANDARD LIBRARY.
"""

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Only comes back when the server could not be started; the exit code."""
    file, name = arguments
    try:
        server = json.loads(Path(file).read_bytes())["mcpServers"][name]
        environment = {**os.environ, **server.get("env", {})}
        os.execvpe(server["command"], [server["command"], *server.get("args", [])], environment)  # noqa: S606
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"MCP server {name} of {file} does not start: {type(error).__name__}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
