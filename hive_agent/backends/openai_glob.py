"""Print the files that fit a pattern, the newest first: `python -I -S openai_glob.py <pattern> <directory>`.

A program of its own so that it can be stopped: IMPORT ONLY THE STANDARD LIBRARY HERE.
"""

import glob
import os
import sys
from itertools import islice

FILES_MAX = 10_000  # looked at
SHOWN_MAX = 200


def main(pattern: str, directory: str) -> int:
    """Print the paths; the exit code."""
    found = islice(glob.iglob(os.path.join(directory, pattern), recursive=True), FILES_MAX)
    files = sorted((path for path in found if os.path.isfile(path)), key=_modified, reverse=True)
    for path in files[:SHOWN_MAX]:
        sys.stdout.write(os.fsencode(path).decode("utf-8", "replace") + "\n")
    if len(files) > SHOWN_MAX:
        sys.stdout.write(f"[{len(files) - SHOWN_MAX} more]\n")
    return 0


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
