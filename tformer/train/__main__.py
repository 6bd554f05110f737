"""``python -m tformer.train translation|charlm|diffusion``: hands over to the command of that name."""

from __future__ import annotations

import importlib
import sys

COMMANDS = ("translation", "charlm", "diffusion")
USAGE = f"usage: python -m tformer.train {'|'.join(COMMANDS)} [options]; --help after the name explains the options"


def main(arguments: list[str]) -> int:
    """Run the command that the first argument names and return its exit code."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        print(USAGE, file=sys.stderr)
        return 2
    # Imported by name, so that one command does not wait for what only the others need.
    return importlib.import_module(f"tformer.train.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
