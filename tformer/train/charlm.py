"""`python -m tformer.train charlm`: a GPT that writes any text character by character."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.train.__main__", arguments=["charlm", *sys.argv[1:]]))

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..bigram import Bigram
from ..command import parse_options, run_command
from ..data.text import read_text
from ..errors import UserError, refused_values
from ..generation import Sampling, generate
from ..gpt import GPT, GPTConfig
from ..layers import Activation, Norm, Positions
from ..tokenizers import CharTokenizer, save_tokenizer
from ..training import Loss, TrainOptions, Validation, leads, train
from ..values import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

STEPS_PER_EPOCH = 250


@dataclass(frozen=True, kw_only=True)
class CharlmOptions(TrainOptions):
    """Train a GPT on the characters of a text and compare it with the bigram model."""

    out: Path = Path("runs/charlm")
    """Folder for checkpoints, tokenizer, curve.json, result.json and TensorBoard events."""
    preset: Literal["laptop", "classic"] = "laptop"
    """laptop: 4 layers, 128 wide, block 64, batch 12, 2,000 steps, a few minutes on one core. classic: 6 layers,
    6 heads, 384 wide, block 256, batch 64, dropout 0.2, 5,000 steps, for a GPU. Other options change a preset."""
    data: Path | None = None
    """A text file in UTF-8; without it, the sources of the Python standard library."""
    block_size: PositiveInt = 64
    """Characters that the model reads at once."""
    batch_size: PositiveInt = 12
    """Blocks of a step, over all processes."""
    d_model: PositiveInt = 128
    """Width of the model."""
    layers: PositiveInt = 4
    """Blocks of attention and feed-forward."""
    heads: PositiveInt = 4
    """Attention heads."""
    dropout: Decay = 0.0
    """On the embeddings, each sublayer's output and the attention weights."""
    positions: Positions = "rotary"
    """How the model knows the order of characters."""
    norm: Norm = "rms"
    """LayerNorm or RMSNorm."""
    activation: Activation = "swiglu"
    """Non-linearity of the feed-forward layers."""
    estimate_on: PositiveInt = 20
    """Batches of train and of validation text whose mean loss each epoch reports."""
    sample: NonNegativeInt = 300
    """Characters to write after each epoch."""
    temperature: NonNegativeFloat = 0.8
    """Temperature of that sample; 0 always takes the likeliest character."""
    # The laptop preset's training; the fields are TrainOptions'. 8 epochs of 250 steps are nanoGPT's 2,000.
    epochs: PositiveInt = 8
    learning_rate: PositiveFloat = 3e-3
    min_learning_rate: NonNegativeFloat = 1e-4


PRESETS = {
    "laptop": CharlmOptions(),
    "classic": CharlmOptions(
        preset="classic", block_size=256, batch_size=64, d_model=384, layers=6, heads=6, dropout=0.2, epochs=20,
        learning_rate=1e-3, min_learning_rate=1e-4,
    ),
}  # fmt: skip


class CharlmTask:
    """A GPT and a text as numbers: the first nine tenths to learn, the last to validate, as in nanoGPT."""

    def __init__(self, options: CharlmOptions, text: str, name: str) -> None:
        self.options = options
        self.tokenizer = CharTokenizer(text)
        tokens = torch.tensor(self.tokenizer.encode(text))
        self.train, self.held_out = tokens[: len(tokens) * 9 // 10], tokens[len(tokens) * 9 // 10 :]
        if len(self.held_out) <= options.block_size:
            raise UserError(
                f"{name} has {len(text)} characters, too few for --block-size {options.block_size}; give a longer text."
            )
        config = GPTConfig(
            vocab_size=self.tokenizer.vocab_size,
            block_size=options.block_size,
            d_model=options.d_model,
            layers=options.layers,
            heads=options.heads,
            dropout=options.dropout,
            bias=False,
            positions=options.positions,
            norm=options.norm,
            activation=options.activation,
        )
        torch.manual_seed(options.seed)
        with refused_values():
            Sampling(options.temperature)
            self.model: GPT = GPT(config)
        data = {"text": name, "characters": len(text), "batch_size": options.batch_size, "seed": options.seed}
        self.configuration: Mapping[str, Any] = asdict(config) | data

    def batches(self, epoch: int) -> Sequence[Sequence[int]]:
        draw = torch.Generator().manual_seed(self.options.seed * 1000 + epoch)
        shape = (STEPS_PER_EPOCH, self.options.batch_size)
        return torch.randint(len(self.train) - self.options.block_size, shape, generator=draw).tolist()

    def collate(self, indices: Sequence[int]) -> Batch:
        return self.blocks(self.train, torch.tensor(indices))

    def blocks(self, tokens: Tensor, starts: Tensor) -> Batch:
        """Return the blocks of ``tokens`` (N,) that begin at ``starts`` (B,)."""
        block = tokens[starts[:, None] + torch.arange(self.options.block_size + 1)]  # (B, T + 1)
        return Batch(block[:, :-1], block[:, 1:])

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch.inputs)  # (B, T, V)
        total = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
        return Loss(total, batch.targets.numel())

    def estimate_loss(self, model: nn.Module, tokens: Tensor) -> float:
        """Return the mean loss per character on ``estimate_on`` batches of blocks, always the same ones."""
        draw = torch.Generator().manual_seed(0)
        shape = (self.options.estimate_on, self.options.batch_size)
        starts = torch.randint(len(tokens) - self.options.block_size, shape, generator=draw)
        return self.mean_loss(model, tokens, starts.unbind())

    def whole_loss(self, model: nn.Module) -> float:
        """Return the mean loss per character on the whole validation text, in blocks that do not overlap."""
        starts = torch.arange(0, len(self.held_out) - self.options.block_size, self.options.block_size)
        return self.mean_loss(model, self.held_out, starts.split(self.options.batch_size * 4))

    @torch.no_grad()
    def mean_loss(self, model: nn.Module, tokens: Tensor, batches: Sequence[Tensor]) -> float:
        """Return the mean loss on blocks of ``tokens`` (N,); each of ``batches`` (B,) says where its blocks begin."""
        device, total, items = next(model.parameters()).device, 0.0, 0
        model.eval()
        for starts in batches:
            loss = self.loss(model, self.blocks(tokens, starts).to(device))
            total, items = total + float(loss.total), items + int(loss.items)
        return total / items

    def validate(self, model: nn.Module, epoch: int) -> Validation:
        losses = {
            "loss": self.estimate_loss(model, self.held_out),
            "loss_on_train": self.estimate_loss(model, self.train),
        }
        return Validation(losses, self.write(self.options.sample))

    def write(self, length: int) -> str:
        """Return ``length`` characters after a line break; the model reads on from half a block when one is full."""
        block, draw = self.options.block_size, torch.Generator(self.model.embedding.table.weight.device).manual_seed(0)
        text = self.tokenizer.encode("\n") if "\n" in self.tokenizer.index else [0]
        sampling = Sampling(self.options.temperature)
        while len(text) <= length:
            seen = text[-max(1, block // 2) :]
            text += generate(self.model, [seen], min(block - len(seen), length + 1 - len(text)), (), sampling, draw)[0]
        return self.tokenizer.decode(text[1:])

    def report(self) -> dict[str, float]:
        """Return the losses and bits per character of the GPT and of the bigram model on the whole validation text."""
        bigram = Bigram(self.tokenizer.vocab_size)
        bigram.fit(self.train)
        gpt_loss, bigram_loss = self.whole_loss(self.model), self.whole_loss(bigram)
        return {
            "gpt_loss": gpt_loss,
            "gpt_bits_per_character": gpt_loss / math.log(2),
            "bigram_loss": bigram_loss,
            "bigram_bits_per_character": bigram_loss / math.log(2),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""

    def command() -> None:
        program = "python -m tformer.train charlm"
        preset = parse_options(CharlmOptions, arguments, program).preset
        options = parse_options(CharlmOptions, arguments, program, PRESETS[preset])
        text, name = read_text(options.data)
        task = CharlmTask(options, text, name)
        print(f"{name}: {len(text)} characters, {task.tokenizer.vocab_size} different ones")
        state = train(task, options)
        if not leads():
            return
        save_tokenizer(task.tokenizer, options.out / "tokenizer.json")
        result = task.report() | {"training_seconds": round(state.seconds, 1)}
        (options.out / "result.json").write_text(json.dumps({"text": name} | result, indent=1) + "\n")
        print(
            f"bits per character on the whole validation text: bigram {result['bigram_bits_per_character']:.3f}, "
            f"GPT {result['gpt_bits_per_character']:.3f} (loss {result['gpt_loss']:.4f}), "
            f"trained for {state.seconds:.0f} seconds"
        )

    return run_command(command)
