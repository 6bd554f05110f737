"""A toy with two right answers: pass the obstacle on the left or on the right, but not through it.

`python -m tformer.diffusion.two_ways` trains the action head and a regression on it and compares them.

>>> head = ActionHead(head_config("ddim"))
>>> train_head(head, steps=1)
>>> condition, shown = draw_demonstrations(4, torch.Generator().manual_seed(0))
>>> tuple(head.sample(condition).shape) == tuple(shown.shape) == (4, 8, 2)
True
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.diffusion.two_ways"))

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..command import parse_options, run_command
from ..values import PositiveInt
from .action_head import ActionHead, ActionHeadConfig
from .process import ProcessConfig, SamplerConfig

HORIZON, ACTION_DIM, TOKENS, CONDITION_DIM = 8, 2, 2, 4
DIFFUSION, FLOW = ProcessConfig(schedule="cosine", steps=100), ProcessConfig(kind="flow")
Kind = Literal["ddpm", "ddim", "euler", "midpoint"]
KINDS: dict[Kind, tuple[ProcessConfig, SamplerConfig]] = {
    "ddpm": (DIFFUSION, SamplerConfig("ddpm")),
    "ddim": (DIFFUSION, SamplerConfig("ddim", steps=10)),
    "euler": (FLOW, SamplerConfig("euler", steps=10)),
    "midpoint": (FLOW, SamplerConfig("midpoint", steps=5)),
}


def head_config(kind: Kind) -> ActionHeadConfig:
    """Return a small head for this toy."""
    process, sampler = KINDS[kind]
    return ActionHeadConfig(ACTION_DIM, HORIZON, CONDITION_DIM, 32, 2, 2, process, sampler)


def draw_demonstrations(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return conditions (N, 2, 4), whose first entry is how far to swerve (0.4 … 0.8), and action chunks (N, 8, 2).

    Action 0 is an arc of that size to either side, as often left as right; action 1, the way forward, is 0.5.
    """
    swerve = 0.4 + 0.4 * torch.rand(count, generator=generator)  # (N,)
    side = torch.randint(0, 2, (count,), generator=generator) * 2 - 1  # (N,)
    condition = torch.zeros(count, TOKENS, CONDITION_DIM)
    condition[:, :, 0] = swerve[:, None]
    arc = torch.linspace(0, torch.pi, HORIZON + 2)[1:-1].sin()  # (T,)
    actions = torch.stack([(side * swerve)[:, None] * arc, torch.full((count, HORIZON), 0.5)], dim=-1)  # (N, T, A)
    return condition, actions


def train_head(head: ActionHead, steps: int = 600, batch: int = 64, rate: float = 3e-3, seed: int = 1) -> None:
    """Train ``head`` on fresh demonstrations: 20 steps of warm-up, then a rate that falls to 0. 15 s on one core."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), rate)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1, (i + 1) / 20) * (1 - i / steps))
    for _ in range(steps):
        condition, actions = draw_demonstrations(batch, generator)  # (B, S, 4), (B, T, A)
        optimizer.zero_grad()
        head.loss(condition, actions, generator=generator).backward()
        optimizer.step()
        falling.step()


class Verdict(NamedTuple):
    """right: share of chunks that pass on the right; straight: share that hold to less than half of their swerve and
    hit the obstacle; error: median distance to the nearer of the two ways, mean over the chunk."""

    right: float
    straight: float
    error: float


def judge(condition: Tensor, chunks: Tensor) -> Verdict:
    """Say what chunks (N, 8, 2) for conditions (N, 2, 4) do at the obstacle, halfway."""
    swerve = condition[:, 0, 0]  # (N,)
    halfway = chunks[:, HORIZON // 2 - 1 : HORIZON // 2 + 1, 0].mean(1)  # (N,)
    arc = torch.linspace(0, torch.pi, HORIZON + 2)[1:-1].sin()  # (T,)
    way = swerve[:, None] * arc  # (N, T)
    distance = torch.stack([chunks[..., 0] - way, chunks[..., 0] + way]).abs().mean(-1).amin(0)  # (N,)
    return Verdict(
        float((halfway > 0).float().mean()),
        float((halfway.abs() < 0.5 * swerve).float().mean()),
        float(distance.median()),
    )


def regress(condition: Tensor, steps: int = 600, seed: int = 1) -> Tensor:
    """Return what a network trained to the least squared error answers to conditions (N, 2, 4): chunks (N, 8, 2)."""
    generator = torch.Generator().manual_seed(seed)
    outputs = HORIZON * ACTION_DIM
    model = nn.Sequential(nn.Flatten(), nn.Linear(TOKENS * CONDITION_DIM, 64), nn.ReLU(), nn.Linear(64, outputs))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        seen, actions = draw_demonstrations(64, generator)  # (B, S, 4), (B, T, A)
        optimizer.zero_grad()
        (model(seen).view_as(actions) - actions).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return model(condition).view(-1, HORIZON, ACTION_DIM)


@dataclass(frozen=True)
class TwoWaysOptions:
    """Compare the action head's samplers and a regression on demonstrations that go left or right."""

    out: Path = Path("docs/tformer")
    """Folder for two_ways.md and diffusion_two_ways.png."""
    seeds: PositiveInt = 3
    """How many times all is trained, each from another seed."""
    count: PositiveInt = 2000
    """Chunks that each answer is judged by."""


def compare(options: TwoWaysOptions) -> dict[str, list[Tensor]]:
    """Return each method's chunks (count, 8, 2), one tensor per seed, for the conditions of ``draw_demonstrations``."""
    condition, shown = draw_demonstrations(options.count, torch.Generator().manual_seed(0))
    chunks: dict[str, list[Tensor]] = {"demonstrations": [shown]}
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        chunks.setdefault("regression", []).append(regress(condition))
        pairs: list[tuple[Kind, Kind]] = [("ddpm", "ddim"), ("euler", "midpoint")]
        for trained, also in pairs:
            head = ActionHead(head_config(trained))
            train_head(head, seed=seed)
            for kind in (trained, also):
                other = ActionHead(head_config(kind))
                other.load_state_dict(head.state_dict())
                chunks.setdefault(f"ActionHead, {kind}", []).append(other.sample(condition))
    return chunks


def table(condition: Tensor, chunks: dict[str, list[Tensor]]) -> str:
    """Return the verdicts as a Markdown table, lowest to highest over the seeds."""
    lines = ["| method | to the right | into the obstacle | error of the path |", "|---|---|---|---|"]
    for name, parts in chunks.items():
        verdicts = [judge(condition, part) for part in parts]
        right, straight, error = (sorted(column) for column in zip(*verdicts, strict=True))
        lines.append(
            f"| {name} | {right[0]:.0%} … {right[-1]:.0%} | {straight[0]:.1%} … {straight[-1]:.1%} | "
            f"{error[0]:.3f} … {error[-1]:.3f} |"
        )
    return "\n".join(lines)


def draw_paths(chunks: dict[str, list[Tensor]], path: Path) -> None:
    """Draw forty of each method's chunks, from the first seed, as paths round the obstacle."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(chunks), figsize=(2.2 * len(chunks), 2.6), sharex=True, sharey=True)
    for axis, (name, parts) in zip(axes, chunks.items(), strict=True):
        shown = parts[0][:40]  # (40, T, A)
        ahead = shown[..., 1].cumsum(1)  # (40, T): the way forward adds up
        axis.plot(shown[..., 0].T.numpy(), ahead.T.numpy(), color="tab:blue", alpha=0.35, linewidth=1)
        axis.plot(0, 0.5 * (HORIZON + 1) / 2, "o", color="tab:red", markersize=9)
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    program = "python -m tformer.diffusion.two_ways"

    def command() -> None:
        options = parse_options(TwoWaysOptions, arguments, program)
        chunks = compare(options)
        condition, _ = draw_demonstrations(options.count, torch.Generator().manual_seed(0))
        text = table(condition, chunks)
        print(text)
        options.out.mkdir(parents=True, exist_ok=True)
        draw_paths(chunks, options.out / "diffusion_two_ways.png")
        line = shlex.join([*program.split(), *(sys.argv[1:] if arguments is None else arguments)])
        heading = f"`{line}`, {date.today().isoformat()}, {options.seeds} seeds, {options.count} chunks each"
        (options.out / "two_ways.md").write_text(f"{heading}\n\n{text}\n")

    return run_command(command)
