"""`python -m eb_tools.beside SCRIPT …`: run a script against a fresh stack of its own, and end that after it.

The script is told the stack's folder with `--run-dir`. Used by the benches, so that they start from empty tables.
"""

from __future__ import annotations

import subprocess
import sys

from eb_tools.paths import repository
from eb_tools.stack import Stack
from eb_tools.trouble import Trouble


def main() -> int:
    """Give the script's exit status; 1 with a sentence when the stack can't be started."""
    script, *arguments = sys.argv[1:]
    folder = repository() / ".run" / "bench"
    stack = Stack(folder, {"EB_PORTS": "any"})
    stack.clean()
    try:
        stack.up(lambda line: print(line, file=sys.stderr), is_detached=False)
        command = [sys.executable, script, "--run-dir", str(folder), *arguments]
        return subprocess.run(command, check=False).returncode
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    finally:
        stack.clean()


if __name__ == "__main__":
    sys.exit(main())
