"""Trains the laptop preset and nanoGPT's settings for it side by side: loss and time.

    python eval/bench/charlm_nanogpt.py --data tinyshakespeare.txt

nanoGPT's README gives these settings for a CPU: 4 layers, 128 wide, block 64, batch 12, 2,000 steps. The two take turns
of 50 steps in one process on one thread, so a busy machine slows both alike. Times are of the steps alone, in seconds
of the processor; losses are means over the whole validation text.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.charlm_nanogpt"))

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tformer.command import parse_options, run_command
from tformer.data.text import read_text
from tformer.train.charlm import PRESETS, STEPS_PER_EPOCH, CharlmTask
from tformer.training.distributed import Place
from tformer.training.trainer import Trainer
from vla_harness.eval.bench.plain_gpt import PlainGPT, plain_batch, plain_optimizer, plain_rate, plain_step

TURN = 50  # steps


@dataclass(frozen=True)
class Options:
    """The laptop preset against nanoGPT's settings in a plain loop."""

    data: Path
    """A text file, such as tinyshakespeare.txt."""
    out: Path = Path("charlm_nanogpt.json")
    """File for the curve of both."""


class Logits(nn.Module):
    """The plain model as one that returns logits alone."""

    def __init__(self, model: PlainGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, tokens)[0]


def bench(options: Options) -> None:
    """Train both, print a table and write the curve."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    preset = replace(PRESETS["laptop"], out=Path("unused"), device="cpu")
    text, name = read_text(options.data)
    task = CharlmTask(preset, text, name)
    trainer = Trainer(task, preset, Place(0, 1, device))
    steps = preset.epochs * STEPS_PER_EPOCH
    batches = [indices for epoch in range(preset.epochs) for indices in task.batches(epoch)]

    torch.manual_seed(preset.seed)
    plain = PlainGPT(task.tokenizer.vocab_size, preset.block_size, preset.d_model, preset.layers, preset.heads)
    optimizer = plain_optimizer(plain, 1e-3)

    seconds = {"ours": 0.0, "nanoGPT": 0.0}
    curve = []
    for start in range(0, steps, TURN):
        trainer.model.train()
        began = time.process_time()
        for i in range(start, start + TURN):
            trainer.step(batches[i]).item()  # as nanoGPT with log_interval 1
            trainer.state.step += 1
        seconds["ours"] += time.process_time() - began
        plain.train()
        began = time.process_time()
        for i in range(start, start + TURN):
            x, y = plain_batch(task.train, preset.block_size, preset.batch_size, device)
            plain_step(plain, optimizer, x, y, plain_rate(i, steps))
        seconds["nanoGPT"] += time.process_time() - began
        if (start + TURN) % STEPS_PER_EPOCH == 0:
            point: dict[str, float] = {"step": start + TURN}
            point |= {"ours_loss": round(task.whole_loss(task.model), 4), "ours_seconds": round(seconds["ours"], 1)}
            point |= {"nanogpt_loss": round(task.whole_loss(Logits(plain)), 4)}
            point |= {"nanogpt_seconds": round(seconds["nanoGPT"], 1)}
            curve.append(point)
            print(" | ".join(str(value) for value in point.values()), flush=True)
    sizes = {
        "ours": sum(p.numel() for p in task.model.parameters()),
        "nanoGPT": sum(p.numel() for p in plain.parameters()),
    }
    options.out.write_text(json.dumps({"text": name, "parameters": sizes, "curve": curve}, indent=1) + "\n")


def main() -> int:
    """Run the bench. Returns its exit code."""
    return run_command(lambda: bench(parse_options(Options, None, "charlm_nanogpt.py")))
