"""``python -m vla_harness.train groot|openvla|tformer|curves``: hands over to the command of that name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = ("groot", "openvla", "tformer", "curves")
USAGE = f"usage: python -m vla_harness.train {'|'.join(COMMANDS)} [options]; --help after the name explains the options"


def main(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names and return its exit code."""
    if list(arguments[:1]) in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        print(USAGE, file=sys.stderr)
        return 2
    return int(import_module(f"vla_harness.train.{arguments[0]}").main(list(arguments[1:])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
