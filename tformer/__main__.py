"""``python -m tformer COMMAND``, installed as ``tformer``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.__main__"))

from collections.abc import Sequence

from .launch import dispatch, launch

COMMANDS = {
    "train": ("tformer.train.__main__", "train a model: translation, charlm or diffusion"),
    "sample": ("tformer.sample", "draw pictures with a trained model"),
    "figures": ("tformer.figures", "draw the figures of the transformer"),
    "diffusion-figures": ("tformer.diffusion.figures", "draw the figures of the diffusion models"),
    "quality": ("tformer.diffusion.quality", "measure how good a model's pictures are"),
    "two-ways": ("tformer.diffusion.two_ways", "compare the action head with a regression on a toy"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names and return its exit code."""
    return dispatch("tformer", COMMANDS, arguments, launch)
