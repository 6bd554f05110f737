"""Every command of the distribution by its module, with the extra it needs, and what installs it as a program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from tformer.launch import launch as launch_module

from .kernels import fixed_kernels

EXTRAS = {
    "vla_harness.eval.offline": "vla,data",
    "vla_harness.eval.bench.charlm_nanogpt": "tformer",
    "vla_harness.eval.bench.groot": "vla",
    "vla_harness.eval.bench.openvla": "vla",
    "vla_harness.eval.bench.server": "test",
    "vla_harness.eval.bench.tformer": "vla,tformer",
    "vla_harness.servers.action_server": "server",
    "vla_harness.servers.demo": "demo",
    "vla_harness.data.__main__": "data",
    "vla_harness.data.record": "data",
    "vla_harness.train.groot": "vla,tformer",
    "vla_harness.train.openvla": "vla,tformer",
    "vla_harness.train.tformer": "tformer",
    "vla_harness.policies.groot.onnx_export": "vla,onnx",
    "tformer.__main__": "tformer",
}
"""Module of a command -> extra that brings what it imports; the others need none."""


def launch(module: str, arguments: Sequence[str] | None = None) -> int:
    """Run the command ``module`` and return its exit code; see ``tformer.launch``."""
    os.environ.update(fixed_kernels())  # before anything imports numpy
    return launch_module(module, EXTRAS.get(module, ""), arguments)


# What the installed programs call.
libero = partial(launch, "vla_harness.eval.run_libero")
robosuite = partial(launch, "vla_harness.eval.run_robosuite")
compare = partial(launch, "vla_harness.eval.compare")
offline = partial(launch, "vla_harness.eval.offline")
server = partial(launch, "vla_harness.servers.action_server")
demo = partial(launch, "vla_harness.servers.demo")
data = partial(launch, "vla_harness.data.__main__")
record = partial(launch, "vla_harness.data.record")
train = partial(launch, "vla_harness.train.__main__")
onnx = partial(launch, "vla_harness.policies.groot.onnx_export")
harness = partial(launch, "vla_harness.__main__")
tformer = partial(launch, "tformer.__main__")
