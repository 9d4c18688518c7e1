"""What the stand-in's programs share: which host they are on, and the record of what was called."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HOST = Path(sys.argv[1])


def note() -> None:
    """Tests look at who was called, how, and where."""
    entry = {"program": Path(sys.argv[0]).stem, "arguments": sys.argv[2:], "directory": os.getcwd()}
    with (HOST / "calls").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def program(name: str, *arguments: str) -> int:
    """Run another program of the stand-in, in the same directory."""
    return subprocess.run([HOST / "bin" / name, *arguments], check=False).returncode


def die(message: str, code: int = 255) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
