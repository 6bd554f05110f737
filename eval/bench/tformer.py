"""Times tformer against the references that everybody knows, in one run; prints ratios.

    python eval/bench/tformer.py                # all of them
    python eval/bench/tformer.py --only decode  # one

The sides take turns, so a busy machine slows all alike. On the CPU a time is processor time on one thread, on a GPU
wall time after synchronising; each is the median over the turns. Models of one row have the same shapes; every
training step ends with the same fused AdamW and without dropout, so that it is the models that are compared.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.tformer"))

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from tformer import GPT, GPTConfig, Transformer, TransformerConfig
from tformer.attention import attention, attention_with_weights
from tformer.command import parse_options, run_command
from tformer.generation import generate
from tformer.gpt import gpt2_from_weights
from tformer.layers import sinusoids
from tformer.training.distributed import choose_device
from tformer.values import PositiveInt
from vla_harness.eval.bench.plain_gpt import PlainGPT

Row = dict[str, float]
"""Milliseconds by the name of the side; ours is called "tformer"."""


@dataclass(frozen=True)
class Options:
    """tformer against transformers, nanoGPT's module and torch.nn, as ratios."""

    only: Literal["gpt", "translation", "decode", "mask"] | None = None
    """Run one comparison alone."""
    turns: PositiveInt = 15
    """Turns of each side, of which the median counts."""
    device: str = "auto"
    """auto, cpu or cuda."""
    rows: PositiveInt = 4
    """Sequences of 256 tokens in a GPT training step; 64 is nanoGPT's batch, for a GPU."""
    out: Path | None = None
    """A file for the results as JSON."""


def milliseconds(sides: Mapping[str, Callable[[], object]], turns: int, device: torch.device) -> Row:
    """Return the median time of a call of each side, after two calls that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(turns + 2):
        order = order[1:] + order[:1]  # none always follows the same other
        for name in order:
            began = _clock(device)
            sides[name]()
            if turn >= 2:
                taken[name].append(1e3 * (_clock(device) - began))
    return {name: median(times) for name, times in taken.items()}


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def training_step(model: nn.Module, loss_of: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a whole step: forward, backward, clipping, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def bench_gpt(options: Options, device: torch.device) -> Row:
    """A training step of the classic GPT: 6 layers, 6 heads, 384 wide, 256 tokens, 65 characters."""
    tokens = torch.randint(65, (options.rows, 257), device=device)
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()  # (B, T)
    config = GPTConfig(65, 256, 384, layers=6, heads=6, bias=False, activation="gelu")
    ours = GPT(config).to(device)
    plain = PlainGPT(65, 256, 384, 6, 6).to(device)
    theirs_config = GPT2Config(
        vocab_size=65, n_positions=256, n_embd=384, n_layer=6, n_head=6, activation_function="gelu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    theirs: Any = GPT2LMHeadModel(theirs_config)
    theirs.to(device)
    return milliseconds(
        {
            "tformer": training_step(ours, lambda: functional.cross_entropy(ours(x).flatten(0, 1), y.flatten())),
            "nanoGPT's module": training_step(plain, lambda: plain(x, y)[1]),
            "transformers": training_step(theirs, lambda: theirs(x, labels=x).loss),
        },
        options.turns,
        device,
    )


def bench_translation(options: Options, device: torch.device) -> Row:
    """A training step of an encoder-decoder: 3+3 layers, 256 wide, 32 pairs of 24 tokens, 8,000 tokens."""
    config = TransformerConfig(8000, 8000, 64, 64, 256, layers=3, heads=4, d_ff=1024, dropout=0.0)
    ours = Transformer(config).to(device)
    layers = nn.Transformer(256, 4, 3, 3, 1024, 0.0, batch_first=True).to(device)
    theirs = nn.ModuleDict(
        {"layers": layers, "src": nn.Embedding(8000, 256), "tgt": nn.Embedding(8000, 256), "out": nn.Linear(256, 8000)}
    ).to(device)
    waves = sinusoids(torch.arange(24, device=device), 256)  # (T, C)
    src = torch.randint(4, 8000, (32, 24), device=device)
    tgt = torch.randint(4, 8000, (32, 25), device=device)
    src[::2, 18:] = 1  # padding
    keep, hide = (src != 1)[:, None, None], src == 1
    causal = nn.Transformer.generate_square_subsequent_mask(24, device=device)

    def torch_loss() -> Tensor:
        hidden = layers(
            theirs["src"](src) * 16 + waves,
            theirs["tgt"](tgt[:, :-1]) * 16 + waves,
            tgt_mask=causal,
            src_key_padding_mask=hide,
            memory_key_padding_mask=hide,
            tgt_is_causal=True,
        )
        return functional.cross_entropy(theirs["out"](hidden).flatten(0, 1), tgt[:, 1:].flatten())

    def our_loss() -> Tensor:
        return functional.cross_entropy(ours(src, keep, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten())

    sides = {"tformer": training_step(ours, our_loss), "nn.Transformer": training_step(theirs, torch_loss)}
    return milliseconds(sides, options.turns, device)


@torch.no_grad()
def bench_decode(options: Options, device: torch.device) -> Row:
    """Writing 200 tokens after a prompt of 32 with a GPT of 6 layers, 384 wide, 8 rows: cached, greedy, same tokens."""
    config = GPT2Config(vocab_size=2000, n_positions=256, n_embd=384, n_layer=6, n_head=6)
    theirs: Any = GPT2LMHeadModel(config).eval()
    theirs.to(device)
    shape = GPTConfig(2000, 256, 384, layers=6, heads=6)
    ours = gpt2_from_weights(shape, theirs.state_dict()).to(device).eval()
    prompts = torch.randint(2000, (8, 32), device=device)

    def transformers_generate() -> Tensor:
        return theirs.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=200, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip

    rows = prompts.tolist()
    same = torch.tensor(generate(ours, rows, 200)) == transformers_generate()[:, 32:].cpu()
    print(f"decode: {same.float().mean():.1%} of the tokens are the same on both sides")
    sides = {"tformer": lambda: generate(ours, rows, 200), "transformers' generate": transformers_generate}
    return milliseconds(sides, max(3, options.turns // 5), device)


def bench_mask(options: Options, device: torch.device) -> Row:
    """Causal attention forward and backward, 4 rows, 6 heads of 64, 1,024 tokens: does masking cost compute?

    With a mask by masked_fill all scores are computed and half are thrown away: a little more than attending to
    everything costs. A kernel that knows that the mask is causal skips the blocks above the diagonal: it costs less.
    """
    q, k, v = (torch.randn(4, 6, 1024, 64, device=device, requires_grad=True) for _ in range(3))
    allowed = torch.ones(1024, 1024, dtype=torch.bool, device=device).tril()

    def run(attend: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: attend().sum().backward()

    return milliseconds(
        {
            "tformer": run(lambda: attention(q, k, v, causal=True)),
            "fused, no mask": run(lambda: attention(q, k, v)),
            "fused, mask as a tensor": run(lambda: attention(q, k, v, mask=allowed)),
            "formula, no mask": run(lambda: attention_with_weights(q, k, v)[0]),
            "formula, masked_fill": run(lambda: attention_with_weights(q, k, v, mask=allowed)[0]),
        },
        options.turns,
        device,
    )


BENCHES = {"gpt": bench_gpt, "translation": bench_translation, "decode": bench_decode, "mask": bench_mask}


def bench(options: Options) -> None:
    """Run the comparisons and print a Markdown table each."""
    device = choose_device(options.device)
    torch.set_num_threads(1)
    results = {}
    for name, function in BENCHES.items():
        if options.only not in (None, name):
            continue
        row = results[name] = function(options, device)
        first_line = (function.__doc__ or "").splitlines()[0]
        print(f"\n{first_line}\n\n| | ms | times tformer's |\n|---|---:|---:|")
        for side, value in row.items():
            print(f"| {side} | {value:.1f} | {value / row['tformer']:.2f} |", flush=True)
    if options.out is not None:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
        options.out.write_text(
            json.dumps({"torch": torch.__version__, "device": where, "ms": results}, indent=1) + "\n"
        )


def main() -> int:
    """Run the bench. Returns its exit code."""
    return run_command(lambda: bench(parse_options(Options, None, "tformer.py")))
