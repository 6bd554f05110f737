"""Times LIBERO's stock environment against ours, in one run on one task: step, reset, whole episode, frames.

    python eval/bench/libero_step.py --suite spatial

Both sides run in this process, turn and turn about, so a machine that is busy with other things slows both alike.
Steps, resets and frames are medians.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.libero_step"))

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import gymnasium
import numpy as np

from tformer.values import NonNegativeInt, PositiveInt
from vla_harness.command import parse_options, run_command


@dataclass(frozen=True)
class LiberoStepBench:
    """Stock LIBERO against ours: milliseconds per step, reset, episode and frame."""

    suite: str = "spatial"
    """spatial, object, goal, 10 or 90."""
    task: NonNegativeInt = 0
    """Number of the task in the suite."""
    steps: PositiveInt = 100
    """Environment steps of the step timing, and of the episode."""
    chunk: PositiveInt = 8
    """Actions per policy call: ours renders when the policy asks, the stock environment at every step."""
    size: PositiveInt = 256
    """Height and width of frames in pixels."""
    assets: str = "auto"
    """auto, hub, primitive or a folder."""


def milliseconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def make(config: LiberoStepBench, assets: str) -> Any:
    """Return our environment of the task, with whichever assets."""
    return gymnasium.make(
        f"vla_harness.envs:libero/{config.suite}-v0", task=config.task, observations="on_request", assets=assets
    ).unwrapped


def bench(config: LiberoStepBench) -> int:
    """Measure and print a Markdown table."""
    ours = make(config, config.assets)
    # Only now, with the GL backend chosen and libero configured, may they be imported.
    import mujoco
    from libero.libero.envs import OffScreenRenderEnv

    from vla_harness.envs.libero.benchmark import initial_states, suite_tasks

    entry = suite_tasks(config.suite)[config.task]
    states = initial_states(entry)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (config.steps, 7))

    stock = OffScreenRenderEnv(
        bddl_file_name=str(entry.bddl_file), camera_heights=config.size, camera_widths=config.size
    )
    model, data = ours.model, ours.data
    floor_data = mujoco.MjData(model)
    everything = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, everything))
    substeps = round(1.0 / ours.interface.control_hz / model.opt.timestep)

    def start(environment: Any, index: int) -> None:
        environment.seed(0)
        environment.reset()
        environment.set_init_state(states[index])

    def show_frames(shown: bool) -> None:
        for camera in ("agentview_image", "robot0_eye_in_hand_image"):
            stock.env.modify_observable(camera, "enabled", shown)

    def make_stock_current() -> None:
        """Make stock's GL context the one drawn into: robosuite draws into whichever is current."""
        stock.sim._render_context_offscreen.gl_ctx.make_current()

    def floor() -> None:
        mujoco.mj_getState(model, data, state, everything)
        mujoco.mj_setState(model, floor_data, state, everything)
        begin = time.perf_counter()
        for _ in range(substeps):
            mujoco.mj_step(model, floor_data)
        floors.append(1e3 * (time.perf_counter() - begin))

    floors: list[float] = []
    stock_steps, our_steps = [], []
    start(stock, 0)
    show_frames(False)
    ours.reset(seed=0, options={"initial_state": 0})
    ours.step(actions[0])  # compiles
    stock.step(actions[0])
    for action in actions[1:]:
        floor()
        stock_steps.append(milliseconds(lambda: stock.step(action)))  # noqa: B023
        our_steps.append(milliseconds(lambda: ours.step(action)))  # noqa: B023
        assert np.array_equal(stock.get_sim_state()[1:], ours.simulator_state()[1:]), "the states must be equal"
    show_frames(True)
    ours.render_camera("agentview", config.size, config.size)  # builds the GL context

    def our_chunk(chunk: Any) -> None:
        for camera in ours.interface.cameras:
            ours.render_camera(camera, config.size, config.size)
        for action in chunk:
            ours.step(action)

    def stock_chunk(chunk: Any) -> None:
        make_stock_current()
        for action in chunk:
            stock.step(action)

    stock_resets, our_resets = [], []
    for index in (2, 1, 0):
        make_stock_current()  # a reset frees objects of the context that is current
        stock_resets.append(milliseconds(lambda: start(stock, index)))  # noqa: B023
        our_resets.append(milliseconds(lambda: ours.reset(seed=0, options={"initial_state": index})))  # noqa: B023
    # Both play the episode of the last reset, a chunk each in turn.
    stock_episode, our_episode = stock_resets[-1], our_resets[-1]
    for begin in range(0, config.steps, config.chunk):
        chunk = actions[begin : begin + config.chunk]
        stock_episode += milliseconds(lambda: stock_chunk(chunk))  # noqa: B023
        our_episode += milliseconds(lambda: our_chunk(chunk))  # noqa: B023
    make_stock_current()
    stock.close()
    frames = frame_times(config, ours)
    ours.close()

    rows = [
        ("step without rendering", median(stock_steps), median(our_steps)),
        ("reset", median(stock_resets), median(our_resets)),
        (f"{config.steps}-step episode, 2 cameras, chunk {config.chunk}", stock_episode, our_episode),
    ]
    print(f"libero {config.suite} task {config.task}: {entry.instruction}")
    print(f"| {'':42} | stock ms | ours ms | ratio |\n|{'-' * 44}|---------:|--------:|------:|")
    for name, theirs, mine in rows:
        print(f"| {name:42} | {theirs:8.1f} | {mine:7.1f} | {theirs / mine:4.1f}x |")
    print(f"floor of a step (mj_step x {substeps} from the same states): {median(floors):.1f} ms")
    for camera, (these, standins) in frames.items():
        print(
            f"our frame {config.size} x {config.size}, {camera}: {these:.1f} ms, "
            f"with stand-in assets {standins:.1f} ms, {these / standins:.1f}x less"
        )
    print(f"states after each of the {config.steps - 1} timed steps were equal to the last bit")
    return 0


def frame_times(config: LiberoStepBench, ours: Any) -> dict[str, tuple[float, float]]:
    """Return camera -> milliseconds a frame with the assets of ``ours`` and with stand-ins, taken in turns."""
    # Not before stock is done: it loads its files again at each reset, from where the newest environment has them.
    standins = make(config, "primitive")
    times: dict[str, tuple[list[float], list[float]]] = {camera: ([], []) for camera in ours.interface.cameras}
    for environment in (ours, standins):
        environment.reset(seed=0, options={"initial_state": 0})
        environment.render_camera("agentview", config.size, config.size)
    for _ in range(20):
        for camera, both in times.items():
            for environment, collected in zip((ours, standins), both, strict=True):
                draw = environment.render_camera
                collected.append(milliseconds(lambda: draw(camera, config.size, config.size)))  # noqa: B023
    standins.close()
    return {camera: (median(these), median(those)) for camera, (these, those) in times.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: bench(parse_options(LiberoStepBench, arguments, "libero_step.py")))
