"""Evaluate a policy on a LIBERO suite: ``python eval/run_libero.py --suite spatial``, installed as ``vla-libero``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.run_libero"))

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from vla_harness.command import command_line, parse_options, run_command
from vla_harness.evaluate import RunOptions, Site, Suite, SuiteTask, announce, evaluate


@dataclass(frozen=True, kw_only=True)
class RunLibero(RunOptions):
    """Evaluate a policy on a LIBERO suite, and write a table of success rates with intervals.

    Exit codes: 0 done, 1 the run failed or episodes ended in errors, 2 something to put right in the command.
    """

    suite: Literal["spatial", "object", "goal", "10", "90"]
    """Suite of tasks."""

    assets: Annotated[str, arg(metavar="auto|hub|primitive|PATH")] = "auto"
    """Meshes and textures: a folder, the hub's, or generated stand-ins. auto: $LIBERO_ASSETS, else the hub's cache,
    else a download from the hub, else the stand-ins."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    command = command_line("run_libero.py", arguments)
    return run_command(lambda: _evaluate(parse_options(RunLibero, arguments, "run_libero.py"), command))


def _evaluate(options: RunLibero, command: str) -> int:
    from vla_harness.envs.libero.benchmark import initial_states, suite_tasks
    from vla_harness.envs.libero.environment import INTERFACE

    tasks = [
        SuiteTask(task.task_id, task.name, task.instruction, len(initial_states(task)), INTERFACE)
        for task in suite_tasks(options.suite)
    ]
    environments = f"vla_harness.envs:libero/{options.suite}-v0"
    return evaluate(
        options, Suite("libero", options.suite, environments, tasks, lambda: _locate(options.assets)), command
    )


def _locate(choice: str) -> Site:
    from vla_harness.envs.assets import resolve_assets
    from vla_harness.envs.compiling import choose_numba_cache
    from vla_harness.envs.gl import choose_gl_backend, gl_renderer

    source = resolve_assets(choice)
    announce("assets", str(source))
    backend = choose_gl_backend()  # before the workers start: they find the answer in the environment
    announce("rendering", f"{backend}, {gl_renderer()}")
    if told := choose_numba_cache():
        announce("numba", told)
    return Site(source.provenance, backend, {"assets": str(source.path)})
