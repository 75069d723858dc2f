"""The command `agentflow`, also as `python -m agentflow`: on its feet before anything large is imported.

So Ctrl-C in the first tenth of a second is answered as it is later on: with a word and exit code 130, not a traceback.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        from agentflow.cli.main import main as begin
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    begin()


if __name__ == "__main__":
    main()
