"""``python -m vla_harness.train groot|openvla|tformer|curves``: hands over to the command of that name."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.train.__main__"))

from collections.abc import Sequence

from tformer.launch import dispatch

from ..launch import launch

COMMANDS = {
    "groot": ("vla_harness.train.groot", "fine-tune a GR00T"),
    "openvla": ("vla_harness.train.openvla", "fine-tune an OpenVLA, by LoRA or whole"),
    "tformer": ("vla_harness.train.tformer", "train the small policy from scratch"),
    "curves": ("vla_harness.train.curves", "draw the curves of trainings"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names and return its exit code."""
    return dispatch("python -m vla_harness.train", COMMANDS, arguments, launch)
