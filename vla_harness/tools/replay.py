"""``python -m vla_harness replay RUN --episode TASK/STATE``: plays one stored episode again, and films it."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.__main__", ["replay", *sys.argv[1:]]))

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..command import DONE, parse_options
from ..errors import UserError
from ..printing import printable
from ..results import read_run
from ..rollout.episode import filmed_camera
from ..video import VideoWriter
from .playback import frame_size, playback, stored_episode


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Play one episode of a run again from its stored actions, and check that it ends in the same state, bit for bit.

    Exit codes: 0 it does, 1 it does not, 2 something to put right in the command.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run."""

    episode: Annotated[str, arg(metavar="TASK/STATE")]
    """Episode: task and initial state, such as 0/3, or its whole name SUITE/TASK/STATE/SEED."""

    video: Annotated[Path | None, arg(metavar="FILE.mp4", help_behavior_hint="(default: only check)")] = None
    """Film the episode into this file, at the speed of the robot."""

    size: Annotated[str | None, arg(metavar="N|HxW", help_behavior_hint="(default: 512)")] = None
    """Height and width of the video in pixels, such as 512 or 480x640."""

    camera: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the one from in front)")] = None
    """Camera that films."""

    assets: Annotated[
        str | None, arg(metavar="auto|hub|primitive|PATH", help_behavior_hint="(default: where the run found them)")
    ] = None
    """The run's assets, where they lie now."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    options = parse_options(Replay, arguments, "vla-harness replay")
    if options.video is None and (options.size or options.camera):
        raise UserError("--size and --camera are for a video: give --video FILE.mp4 as well.")
    if options.video is not None and options.video.suffix.lower() != ".mp4":
        raise UserError(f"--video is {options.video}: end its name in .mp4.")
    size = frame_size(options.size or "512")
    run = read_run(options.run)
    result = stored_episode(run, options.episode)
    with playback(run, options.assets) as player:
        simulator = player.simulator(result.key.task_id)
        camera = options.camera or filmed_camera(simulator)
        if camera not in simulator.interface.cameras:
            known = ", ".join(simulator.interface.cameras)
            raise UserError(f"--camera is {camera!r}, and the environment has {known}.")
        if options.video is None:
            for _ in player.moments(result):
                pass
        else:
            with VideoWriter(options.video, *size, fps=round(simulator.interface.control_hz)) as video:
                for _ in player.moments(result):
                    video.add(simulator.render_camera(camera, *size))
    ending = f"{result.outcome} in {result.steps} steps, to the same state ({result.state_sha256[:12]})."
    print(printable(f"{result.key}: {ending}"))
    if options.video is not None:
        print(f"Written: {options.video}")
    return DONE
