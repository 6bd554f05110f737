"""Evaluate a policy on robosuite's tasks: ``python eval/run_robosuite.py --suite single-arm``, as ``vla-robosuite``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.run_robosuite"))

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from vla_harness.command import command_line, parse_options, run_command
from vla_harness.evaluate import RunOptions, Site, Suite, SuiteTask, announce, evaluate
from vla_harness.policy_flags import PolicyName
from vla_harness.protocols import PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class RunRobosuite(RunOptions):
    """Evaluate a policy on a suite of robosuite's tasks, and write a table of success rates with intervals.

    Exit codes: 0 done, 1 the run failed or episodes ended in errors, 2 something to put right in the command.
    """

    suite: Literal["single-arm", "two-arm"]
    """Suite of tasks."""

    robot: Annotated[str, arg(metavar="{Panda,Sawyer,IIWA,Jaco,Kinova3,UR5e}")] = "Panda"
    """Robot, or two with a comma between for the suite two-arm."""

    controller: Annotated[str, arg(metavar="{OSC_POSE,OSC_POSITION,JOINT_POSITION,JOINT_VELOCITY,JOINT_TORQUE}")] = (
        "OSC_POSE"
    )
    """What turns actions into torques, at robosuite's usual settings for it. The first two take motions of the hand, as
    most policies write them; the others take the joints' changes, velocities or torques."""

    policy: PolicyName = "scripted"
    """What acts; the policy that comes with the package has learned LIBERO's tasks and no others."""

    protocol: Annotated[str, arg(metavar=f"{{{','.join(PROTOCOLS)}}}")] = "robosuite"
    """Published evaluation whose settings are kept: trials, steps, settle phase, seeds, actions per inference."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    command = command_line("run_robosuite.py", arguments)
    return run_command(lambda: _evaluate(parse_options(RunRobosuite, arguments, "run_robosuite.py"), command))


def _evaluate(options: RunRobosuite, command: str) -> int:
    from vla_harness.envs.robosuite.benchmark import (
        DEFAULT_ROBOT,
        INITIAL_STATES,
        chosen_robots,
        interface,
        suite_tasks,
    )

    tasks = []
    for task in suite_tasks(options.suite):
        robots = chosen_robots(options.robot, task.arms)
        offered = interface(task, robots, options.controller)
        scripted = task.expert and robots == (DEFAULT_ROBOT,)
        tasks.append(SuiteTask(task.task_id, task.name, task.instruction, INITIAL_STATES, offered, scripted))
    environments = f"vla_harness.envs:robosuite/{options.suite}-v0"
    return evaluate(options, Suite("robosuite", options.suite, environments, tasks, lambda: _locate(options)), command)


def _locate(options: RunRobosuite) -> Site:
    from vla_harness.envs.compiling import choose_numba_cache
    from vla_harness.envs.gl import choose_gl_backend, gl_renderer
    from vla_harness.envs.libero.stock import check_version

    announce("robot", f"{options.robot} under {options.controller}")
    backend = choose_gl_backend()  # before the workers start: they find the answer in the environment
    announce("rendering", f"{backend}, {gl_renderer()}")
    if told := choose_numba_cache():
        announce("numba", told)
    models = {"kind": "robosuite", "digest": f"robosuite {check_version('robosuite')}"}  # they come with the package
    return Site(models, backend, {"robot": options.robot, "controller": options.controller})
