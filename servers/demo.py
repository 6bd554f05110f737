"""A page to try a policy, one action of an image or a LIBERO rollout live: ``python servers/demo.py --policy NAME``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.servers.demo"))

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

import gradio
import numpy as np
from matplotlib.figure import Figure
from tyro.conf import arg

from vla_harness.command import DONE, parse_options, run_command
from vla_harness.errors import UserError
from vla_harness.evaluate import announce
from vla_harness.policy_flags import PolicyOrServerFlags
from vla_harness.registry import load_policy
from vla_harness.servers.core.images import fit
from vla_harness.servers.core.questions import RawActions, blank_observation
from vla_harness.servers.live_rollout import LiveRollout
from vla_harness.types import Observation, Policy

SUITES = ("spatial", "object", "goal", "10", "90")
ENTRIES = ("x", "y", "z", "rotation x", "rotation y", "rotation z", "gripper")


@dataclass(frozen=True, kw_only=True)
class Demo(PolicyOrServerFlags):
    """Serve a web page that shows what a policy does."""

    assets: Annotated[str, arg(metavar="auto|hub|primitive|PATH")] = "auto"
    """LIBERO's meshes and textures, as in run_libero.py."""

    host: str = "127.0.0.1"
    """Address to listen at."""

    port: int = 7860
    """Port to listen at."""


def chunk_figure(actions: np.ndarray) -> Figure:
    """Return a plot of (n, D) actions, a line for each entry."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    names = ENTRIES if actions.shape[1:] == (len(ENTRIES),) else range(actions.shape[-1])
    for name, line in zip(names, actions.T, strict=True):
        axes.plot(line, label=str(name), marker="." if len(actions) < 30 else "")
    axes.set(xlabel="action", ylabel="value")
    axes.legend(fontsize="small", ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def one_action(policy: Policy, image: np.ndarray | None, instruction: str, key: str | None) -> tuple[str, Figure]:
    """Return the actions as text and as a plot; every camera of the policy sees ``image``, its state is zero."""
    if image is None or not instruction.strip():
        raise gradio.Error("Give an image and an instruction.")
    try:
        if key and isinstance(policy, RawActions):
            chunk = policy.predict_action(image, instruction, unnorm_key=key)[None]
        else:
            blank = blank_observation(policy.spec)
            if blank is None or policy.spec.reads_scene:
                raise UserError(f"The policy {policy.spec.name!r} needs more than an image: try it on LIBERO.")
            images = {camera: fit(image, policy.spec.image_size) for camera in policy.spec.cameras}
            seen = Observation(images, blank.state, instruction, "demo", 0)
            chunk = policy.act([seen])[0]
            policy.forget("demo")
    except UserError as error:
        raise gradio.Error(str(error)) from None
    return np.array2string(chunk, precision=4, suppress_small=True), chunk_figure(chunk)


def task_choices(suite: str) -> list[tuple[str, int]]:
    """Return what the list of tasks shows, and each task's number."""
    from vla_harness.envs.libero.benchmark import suite_tasks

    return [(f"{task.task_id}: {task.instruction}", task.task_id) for task in suite_tasks(suite)]


def make_page(policy: Policy, assets: str = "auto", steps: int | None = None) -> gradio.Blocks:
    """Return the page. steps: most steps of a rollout; None for the protocol's."""
    others = {name: load_policy(name) for name in ("scripted", "noop", "random")}
    policies = {policy.spec.name: policy} | others
    keys = list(getattr(policy, "unnorm_keys", ()))

    def rollout(suite: str, task: int, state: float, name: str) -> Iterator[tuple[Any, Any, str]]:
        live = LiveRollout(policies[name], suite, int(task), int(state), assets, steps)
        with closing(live.moments()) as moments:
            for moment in moments:
                yield moment.frame, chunk_figure(moment.actions), moment.sentence

    with gradio.Blocks(title="VLA harness", analytics_enabled=False) as page:
        gradio.Markdown(f"# {policy.spec.name}\nsees {', '.join(policy.spec.cameras) or 'no camera'}")
        with gradio.Tab("LIBERO rollout"), gradio.Row():
            with gradio.Column():
                suite = gradio.Dropdown(SUITES, value="spatial", label="Suite")
                task = gradio.Dropdown(task_choices("spatial"), label="Task", value=0)
                state = gradio.Number(0, minimum=0, maximum=49, precision=0, label="Initial state")
                chosen = gradio.Dropdown(list(policies), value=policy.spec.name, label="Policy")
                start, stop = gradio.Button("Play", variant="primary"), gradio.Button("Stop")
                status = gradio.Textbox(label="Status", elem_id="status")
            frame = gradio.Image(label="agentview", elem_id="frame", interactive=False)
            actions = gradio.Plot(label="Actions")
        with gradio.Tab("One action"), gradio.Row():
            with gradio.Column():
                image = gradio.Image(label="Image", type="numpy")
                words = gradio.Textbox("pick up the black bowl", label="Instruction")
                key = gradio.Dropdown(keys, value=keys[0] if keys else None, label="unnorm_key", visible=bool(keys))
                ask = gradio.Button("Ask", variant="primary")
            with gradio.Column():
                numbers = gradio.Textbox(label="Action", elem_id="action", lines=4)
                plot = gradio.Plot(label="Chunk")
        suite.change(lambda name: gradio.Dropdown(task_choices(name), value=0), suite, task)
        playing = start.click(rollout, [suite, task, state, chosen], [frame, actions, status], concurrency_limit=1)
        stop.click(None, cancels=[playing])
        ask.click(lambda *given: one_action(policy, *given), [image, words, key], [numbers, plot])
    return page


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: _serve(parse_options(Demo, arguments, "demo.py")))


def _serve(options: Demo) -> int:
    name, arguments = options.chosen_policy()
    policy = load_policy(name, **arguments)
    announce("page", f"http://{options.host}:{options.port}")
    page = make_page(policy, options.assets)
    try:
        page.queue().launch(server_name=options.host, server_port=options.port, share=False, quiet=True)
    except OSError:
        raise UserError(f"Port {options.port} of {options.host} is in use: give another --port.") from None
    return DONE
