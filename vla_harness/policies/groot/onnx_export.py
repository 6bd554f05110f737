"""Writes vision tower and action head as ONNX files, checks them, and writes the script that TensorRT begins with.

    python -m vla_harness.policies.groot.onnx_export --checkpoint DIR --data-config libero --out engines

The language model between the two stays in torch. TensorRT's own steps are in the script; nothing here needs a GPU.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.policies.groot.onnx_export"))

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import onnxruntime
import onnxscript  # noqa: F401 - torch's exporter needs it
import torch
from torch import Tensor, nn
from tyro.conf import arg

from tformer.values import PositiveInt

from ...command import DONE, parse_options, run_command
from ...errors import RunFailed
from ...results.files import check_new_folder
from .action_head import Sampler
from .assembly import GROOT_3B, GrootParts, open_groot
from .model import Groot

VISION, HEAD, SCRIPT = "vision.onnx", "action_head.onnx", "build_engines.sh"
TOLERANCE = 1e-4
"""Largest difference from torch, in fp32, that the check lets pass; features and actions are of the order of 1."""


@dataclass(frozen=True, kw_only=True)
class ExportOnnx:
    """Export the vision tower and the action head of GR00T N1.5 to ONNX.

    Exit codes: 0 done, 1 an exported file differs from torch, 2 something to put right in the command.
    """

    out: Path
    """Folder for vision.onnx, action_head.onnx and build_engines.sh."""

    checkpoint: Annotated[str, arg(metavar="C")] = GROOT_3B
    """Folder or hub id of the checkpoint."""

    tokenizer: Annotated[
        str | None, arg(metavar="DIR", help_behavior_hint="(default: the checkpoint's, or the hub's)")
    ] = None
    """Folder or hub id of Eagle's tokenizer."""

    embodiment: Annotated[str, arg(metavar="TAG")] = "new_embodiment"
    """Embodiment whose weights the action head is given."""

    data_config: Annotated[str, arg(metavar="NAME")] = "libero"
    """Data configuration, which says how many cameras there are."""

    denoising_steps: Annotated[
        PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: the checkpoint's)")
    ] = None
    """Denoising steps, which become a part of the action head's file."""


class Vision(nn.Module):
    """pixels (cameras, 3, 224, 224) -> seen (cameras, 256, C)."""

    def __init__(self, model: Groot) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, pixels: Tensor) -> Tensor:
        return self.backbone.see(pixels)


class Head(nn.Module):
    """features (B, N, C), state (B, 1, 64), noise (B, 16, 32) -> actions (B, 16, 32), all denoising steps in a row."""

    def __init__(self, model: Groot, slot: int, steps: int | None) -> None:
        super().__init__()
        self.head = model.head
        self._slot = slot
        self._sampler = Sampler(model.head, steps)

    def forward(self, features: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        return self._sampler(features, state, noise, self._slot)


def export(parts: GrootParts, folder: Path, steps: int | None = None) -> dict[str, float]:
    """Write both files and the script into ``folder``; return each file's largest difference from torch.

    parts: opened in fp32 on the CPU. The number of cameras, of rows and of tokens stay free in the files.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it counts the packages that nothing here needs
    folder.mkdir(parents=True, exist_ok=True)
    model, head = parts.model, parts.model.config.head
    cameras = len(parts.transforms.config.video)
    count = 46 + cameras * model.backbone.patches  # tokens of a short instruction; the file takes any number
    pixels = torch.rand(cameras + 1, 3, 224, 224) * 2 - 1
    inputs = (
        torch.randn(2, count, head.backbone_embedding_dim),
        torch.rand(2, 1, head.max_state_dim) * 2 - 1,
        torch.randn(2, head.action_horizon, head.action_dim),
    )
    differences = {}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("tokens")
    for file, module, given, free in (
        (VISION, Vision(model), (pixels,), {"pixels": {0: torch.export.Dim("cameras")}}),
        (
            HEAD,
            Head(model, parts.transforms.slot, steps),
            inputs,
            {"features": {0: batch, 1: length}, "state": {0: batch}, "noise": {0: batch}},
        ),
    ):
        names = list(free)
        with warnings.catch_warnings():  # about internals of torch and onnxscript
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                given,
                folder / file,
                input_names=names,
                output_names=["output"],
                dynamic_shapes=free,
                dynamo=True,
                external_data=True,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        # Other sizes than those of the export, so that a size which was fixed by mistake does not pass.
        probe = (
            [tensor[:1] if i else tensor[:1, :-7] for i, tensor in enumerate(given)] if len(given) > 1 else [pixels[:1]]
        )
        (output,) = session.run(None, {name: t.numpy() for name, t in zip(names, probe, strict=True)})
        with torch.no_grad():
            differences[file] = (torch.from_numpy(output) - module(*probe)).abs().max().item()
    (folder / SCRIPT).write_text(_script(cameras, count, parts), encoding="utf-8")
    return differences


def _script(cameras: int, count: int, parts: GrootParts) -> str:
    head = parts.model.config.head
    width, horizon, dim = head.backbone_embedding_dim, head.action_horizon, head.action_dim

    def shapes(batch: int, tokens: int) -> str:
        return f"features:{batch}x{tokens}x{width},state:{batch}x1x{head.max_state_dim},noise:{batch}x{horizon}x{dim}"

    return f"""#!/bin/sh
# Builds TensorRT engines from the ONNX files beside this script, for {cameras} camera(s) and 1 to 16 rows.
# In fp32 unless FLAGS says otherwise: FLAGS=--bf16 ./{SCRIPT}
set -e
cd "$(dirname "$0")"
trtexec --onnx={VISION} --saveEngine=vision.engine $FLAGS \\
    --minShapes=pixels:1x3x224x224 --optShapes=pixels:{cameras}x3x224x224 --maxShapes=pixels:{16 * cameras}x3x224x224
trtexec --onnx={HEAD} --saveEngine=action_head.engine $FLAGS \\
    --minShapes={shapes(1, cameras * parts.model.backbone.patches + 20)} \\
    --optShapes={shapes(1, count)} \\
    --maxShapes={shapes(16, count + 200)}
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: _export(parse_options(ExportOnnx, arguments, "onnx_export")))


def _export(options: ExportOnnx) -> int:
    if not (options.out / SCRIPT).exists():  # else an earlier export, which is replaced
        check_new_folder(options.out)
    parts = open_groot(options.checkpoint, options.tokenizer, options.embodiment, options.data_config, "fp32", "cpu")
    for file, difference in export(parts, options.out, options.denoising_steps).items():
        print(f"{options.out / file}: differs from torch by {difference:.1e}")
        if not difference <= TOLERANCE:
            raise RunFailed(f"{options.out / file} differs from torch by {difference:.1e}, more than {TOLERANCE:.0e}.")
    print(f"{options.out / SCRIPT}: run it where TensorRT is installed")
    return DONE
