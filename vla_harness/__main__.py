"""``python -m vla_harness COMMAND``, installed as ``vla-harness``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__"))

import sys
from collections.abc import Sequence
from importlib import import_module

from .command import DONE, run_command
from .errors import UserError

COMMANDS = {
    "doctor": ("vla_harness.doctor", "check versions, rendering, assets, devices and checkpoints"),
    "policies": ("vla_harness.tools.policies", "list the policies, or the options of one"),
    "show": ("vla_harness.tools.show", "print a run's table and draw its failures"),
    "replay": ("vla_harness.tools.replay", "play one stored episode again, to the same state, and film it"),
    "merge": ("vla_harness.tools.merge", "make one run of parts that were played apart"),
    "plan": ("vla_harness.tools.plan", "say how many workers and GPUs play so many episodes in a wanted time"),
    "export": ("vla_harness.tools.export", "write a run's episodes as CSV, Parquet or a LeRobot dataset"),
}

_USAGE = "usage: python -m vla_harness COMMAND [--help]\n\ncommands:\n" + "\n".join(
    f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named first in ``arguments`` (default: the command line's) and return its exit code."""
    return run_command(lambda: _dispatch(sys.argv[1:] if arguments is None else arguments))


def _dispatch(arguments: Sequence[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if name in ("--help", "-h"):
        print(_USAGE)
        return DONE
    if name not in COMMANDS:
        raise UserError(f"There is no command {name!r}: choose from {', '.join(COMMANDS)}.")
    return int(import_module(COMMANDS[name][0]).main(rest))
