"""``python -m tformer.train translation|charlm|diffusion``: hands over to the command of that name."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.train.__main__"))

from collections.abc import Sequence

from ..launch import dispatch, launch

COMMANDS = {
    "translation": ("tformer.train.translation", "an encoder-decoder that translates sentences"),
    "charlm": ("tformer.train.charlm", "a GPT that writes text, character by character"),
    "diffusion": ("tformer.train.diffusion", "a model that draws pictures from noise"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names and return its exit code."""
    return dispatch("python -m tformer.train", COMMANDS, arguments, launch)
