"""A page to try a policy, one action of an image or a LIBERO rollout live: ``python servers/demo.py --policy NAME``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.servers.demo"))

import hmac
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gradio
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tyro.conf import arg

from tformer.values import Port
from vla_harness.command import DONE, parse_options, run_command
from vla_harness.errors import UserError
from vla_harness.evaluate import announce
from vla_harness.policy_flags import PolicyOrServerFlags
from vla_harness.registry import load_policy
from vla_harness.servers.core.images import fit
from vla_harness.servers.core.questions import RawActions, blank_observation
from vla_harness.servers.core.refusal import Refusal
from vla_harness.servers.core.security import GuessLimiter
from vla_harness.servers.core.startup import check_access, listen, read_token
from vla_harness.servers.live_rollout import LiveRollout
from vla_harness.types import Observation, Policy

SUITES = ("spatial", "object", "goal", "10", "90")
ENTRIES = ("x", "y", "z", "rotation x", "rotation y", "rotation z", "gripper")
STYLE = "#frame img { width: 100%; height: 100%; object-fit: contain }"
_NOT_LOOKED_FOR = "LIBERO's assets are looked for when the first rollout starts."
_ASSETS = {
    False: "Drawn with LIBERO's own assets.",
    True: "**Stand-in assets**: the pictures are generated and not the benchmark's own; the physics is.",
}


@dataclass(frozen=True, kw_only=True)
class Demo(PolicyOrServerFlags):
    """Serve a web page that shows what a policy does."""

    assets: Annotated[str, arg(metavar="auto|hub|primitive|PATH")] = "auto"
    """LIBERO's meshes and textures, as in run_libero.py."""

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine (0.0.0.0) a token is required."""

    port: Port = 7860
    """Port to listen at; 0 for any free one, which is printed."""

    token_file: Annotated[Path | None, arg(metavar="F", help_behavior_hint="(default: none)")] = None
    """File with the token that the page asks for as its password."""

    insecure: bool = False
    """Listen beyond this machine without a token: whoever reaches the port can use the policy."""


def chunk_figure(actions: np.ndarray) -> Figure:
    """Return a plot of (n, D) actions, a line for each entry."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    names = ENTRIES if actions.shape[1:] == (len(ENTRIES),) else range(actions.shape[-1])
    for name, line in zip(names, actions.T, strict=True):
        axes.plot(line, label=str(name), marker="." if len(actions) < 30 else "")
    axes.set(xlabel="action", ylabel="value", xlim=(-0.5, max(len(actions), 8) - 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.lines) <= 2 * len(ENTRIES):
        figure.legend(fontsize="small", ncols=4, loc="outside lower center")
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

    def rollout(suite: str, task: int, state: float, name: str) -> Iterator[tuple[Any, Any, str, str]]:
        live = LiveRollout(policies[name], suite, int(task), int(state), assets, steps)
        with closing(live.moments()) as moments:
            for moment in moments:
                drawn = _NOT_LOOKED_FOR if moment.stand_ins is None else _ASSETS[moment.stand_ins]
                yield moment.frame, chunk_figure(moment.actions), moment.sentence, f"The camera agentview. {drawn}"

    spec = policy.spec
    sees = f"Sees {', '.join(spec.cameras) or 'no camera'}" + (
        "; reads the simulator's state." * spec.reads_scene or "."
    )
    with gradio.Blocks(title="VLA harness", analytics_enabled=False) as page:
        gradio.Markdown(f"# {spec.name}\n{sees}")
        with gradio.Tab("LIBERO rollout"):
            with gradio.Row():
                suite = gradio.Dropdown(SUITES, value="spatial", label="Suite", min_width=100)
                task = gradio.Dropdown(task_choices("spatial"), label="Task", value=0, scale=6, min_width=600)
                state = gradio.Number(0, minimum=0, maximum=49, precision=0, label="Initial state", min_width=100)
            with gradio.Row(equal_height=True):
                chosen = gradio.Dropdown(
                    list(policies), value=spec.name, label="Policy", show_label=False, scale=2, min_width=160
                )
                start = gradio.Button("Play", variant="primary", min_width=80)
                stop = gradio.Button("Stop", min_width=80)
                status = gradio.Textbox(
                    show_label=False, placeholder="Status", elem_id="status", scale=5, min_width=300
                )
            with gradio.Row():
                with gradio.Column():
                    drawn = gradio.Markdown(f"The camera agentview. {_NOT_LOOKED_FOR}", elem_id="assets")
                    frame = gradio.Image(
                        show_label=False,
                        elem_id="frame",
                        interactive=False,
                        height=400,
                        buttons=["fullscreen", "download"],
                    )
                with gradio.Column():
                    gradio.Markdown("The policy's actions so far")
                    actions = gradio.Plot(show_label=False, elem_id="actions")
        with gradio.Tab("One action"), gradio.Row():
            with gradio.Column():
                gradio.Markdown("Every camera of the policy sees this image; the robot's state is all zeros.")
                image = gradio.Image(
                    show_label=False, type="numpy", height=320, sources=["upload", "clipboard"], buttons=[]
                )
                words = gradio.Textbox("pick up the black bowl", label="Instruction")
                key = gradio.Dropdown(keys, value=keys[0] if keys else None, label="unnorm_key", visible=bool(keys))
                ask = gradio.Button("Ask", variant="primary")
            with gradio.Column():
                gradio.Markdown("The policy's chunk of actions")
                plot = gradio.Plot(show_label=False, elem_id="chunk")
                numbers = gradio.Textbox(
                    label=f"A row for each action: {', '.join(ENTRIES)}", elem_id="action", lines=4
                )
        suite.change(lambda name: gradio.Dropdown(task_choices(name), value=0), suite, task)
        playing = start.click(
            rollout, [suite, task, state, chosen], [frame, actions, status, drawn], concurrency_limit=1
        )
        stop.click(lambda: "stopped", None, status, cancels=[playing])
        ask.click(lambda *given: one_action(policy, *given), [image, words, key], [numbers, plot])
    return page


def open_page(page: gradio.Blocks, host: str, port: int, token: str | None) -> None:
    """Serve the page in threads of its own; raises UserError where the port is taken.

    token: what the page asks for as its password, whatever the name; None lets everybody in.
    """

    guesses = GuessLimiter()

    def knows(_: str, password: str) -> bool:
        """Compare in constant time, a wrong one every two seconds: Gradio does not say who asks."""
        try:
            time.sleep(guesses.reserve(""))
        except Refusal:
            return False
        right = token is not None and hmac.compare_digest(password.encode("utf-8", "surrogatepass"), token.encode())
        if right:
            guesses.forgive("")
        return right

    try:
        page.queue().launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            auth=None if token is None else knows,
            auth_message="Any name, and as the password the token that the demo was started with.",
            max_file_size="32mb",
            css=STYLE,
            prevent_thread_lock=True,
        )
    except OSError:
        raise UserError(f"Port {port} of {host} is in use: give another --port.") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: _serve(parse_options(Demo, arguments, "demo.py")))


def _serve(options: Demo) -> int:
    token = None if options.token_file is None else read_token(options.token_file)
    check_access(options.host, token, options.insecure, "--token-file")
    with listen(options.host, options.port) as listener:  # found before the policy loads; Gradio binds its own socket
        port: int = listener.getsockname()[1]
    name, arguments = options.chosen_policy()
    page = make_page(load_policy(name, **arguments), options.assets)
    open_page(page, options.host, port, token)
    host = f"[{options.host}]" if ":" in options.host else options.host
    announce("page", f"http://{host}:{port}")
    announce("token", "required, as the password" if token else "none")
    page.block_thread()
    return DONE
