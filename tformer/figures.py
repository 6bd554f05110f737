"""`python -m tformer.figures`: the figures of the README's transformer half."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys

    from tformer.launch import launch

    sys.exit(launch("tformer.figures"))

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from .attention import causal_mask
from .command import parse_options, run_command
from .errors import UserError
from .generation import translate
from .gpt import GPT, GPTConfig
from .layers import FeedForward, LayerNorm, Residual, RotaryPositions, sinusoids
from .tokenizers import END, PADDING, START, Tokenizer
from .translator import Translator

SENTENCE = "A young girl in a red coat is playing with two dogs on the beach."
WORDS = (
    "man woman boy girl dog horse cat red blue green white two three four runs walks jumps sits street beach park field"
)


@dataclass(frozen=True)
class FigureOptions:
    """Draw the figures about the transformer, from the embedding to the KV cache."""

    translator: Path = Path("runs/multi30k")
    """A finished English-German training of `python -m tformer.train translation`."""
    results: Path = Path("docs/tformer")
    """Folder with the committed curves, charlm_nanogpt.json and multi30k_curve.json."""
    out: Path = Path("docs/tformer")
    """Folder for the pictures."""


def embedding(translator: Translator) -> Figure:
    """The vectors of some words in the plane of their two largest variances: alike words lie together."""
    words = [word for word in WORDS.split() if len(translator.source.encode(word)) == 1]
    tokens = torch.tensor([translator.source.encode(word)[0] for word in words])
    with torch.no_grad():
        vectors = translator.model.src_embedding.tokens.table(tokens)  # (N, C)
    vectors = functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    plane = torch.pca_lowrank(vectors, q=2, niter=10)[2]  # (C, 2)
    x, y = (vectors @ plane).T.tolist()
    figure, axis = plt.subplots(figsize=(5, 4))
    axis.scatter(x, y, s=8)
    for word, a, b in zip(words, x, y, strict=True):
        axis.annotate(word, (a, b), fontsize=9, xytext=(3, 2), textcoords="offset points")
    axis.set_title("word vectors of the trained translator", fontsize=10)
    return figure


def positions() -> Figure:
    """The waves that are added, and how rotary scores fall with distance."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    left.imshow(sinusoids(torch.arange(64), 128).T.numpy(), aspect="auto", cmap="RdBu")
    left.set(xlabel="position", ylabel="entry of the vector", title="sinusoidal: added to the embedding")
    rotary = RotaryPositions(128, 64)
    ones = torch.ones(1, 1, 1, 64)  # (B, H, T, D)
    turned = rotary(ones.expand(1, 1, 128, 64), torch.arange(128))  # (1, 1, 128, D)
    for start in (0, 32):
        scores = (turned[0, 0, start] @ turned[0, 0].T) / 64  # (128,)
        right.plot(torch.arange(128) - start, scores, label=f"query at {start}", ls="-" if start else "--")
    right.set(xlabel="key's position minus query's", ylabel="score", title="rotary: the distance alone counts")
    right.legend()
    return figure


def attention(translator: Translator) -> Figure:
    """Where the decoder's last cross-attention looks while it writes each token."""
    model = translator.model
    source = [START, *translator.source.encode(SENTENCE), END]
    # The tokens as written: the text may be split into others, and into more of them than the model takes.
    written = translate(model, [source], START, END, PADDING, beams=5)[0]
    target = [START, *written, END]
    src, tgt = torch.tensor([source]), torch.tensor([target[:-1]])
    seen: list[tuple[Tensor, Tensor]] = []
    cross: Any = model.decoder[-1].cross_attention
    hook = cross.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], inputs[1])))
    with torch.no_grad():
        model.decode(model.encode(src), None, tgt)
        hook.remove()
        weights = cross.weights(*seen[0])[1][0].mean(dim=0)  # (H, T, S) to (T, S)
    names = [
        [_name(tokenizer, token) for token in row]
        for tokenizer, row in ((translator.source, source), (translator.target, target[1:]))
    ]
    figure, axis = plt.subplots(figsize=(6.5, 5.5))
    axis.imshow(weights.numpy(), cmap="Blues", vmin=0)
    plain: Any = {"fontsize": 8, "parse_math": False}  # a token may hold dollars
    axis.set_xticks(range(len(source)), names[0], rotation=60, ha="right", **plain)
    axis.set_yticks(range(len(target) - 1), names[1], **plain)
    axis.set_title("cross-attention, last layer, mean of the heads", fontsize=10)
    return figure


def add_and_norm() -> Figure:
    """How strongly the loss's gradient reaches each of 24 new layers."""
    torch.manual_seed(0)
    figure, axis = plt.subplots(figsize=(5, 3))
    for norm_first in (False, True):
        layers = [FeedForward(64, 256) for _ in range(24)]
        residuals = [Residual(LayerNorm(64), norm_first=norm_first) for _ in layers]
        x = torch.randn(8, 16, 64)
        for layer, residual in zip(layers, residuals, strict=True):
            x = residual(x, layer)
        functional.cross_entropy(nn.Linear(64, 100)(x).flatten(0, 1), torch.randint(100, (128,))).backward()
        norms = [float(layer.up.weight.grad.norm()) for layer in layers if layer.up.weight.grad is not None]
        axis.plot(range(1, 25), norms, label="pre-norm" if norm_first else "post-norm")
    axis.set(xlabel="layer", ylabel="norm of the gradient", yscale="log", title="at the start of training")
    axis.legend()
    return figure


def feed_forward() -> Figure:
    """The non-linearities."""
    x = torch.linspace(-4, 4, 200)
    figure, axis = plt.subplots(figsize=(5, 3))
    axis.plot(x, functional.relu(x), label="ReLU")
    axis.plot(x, functional.gelu(x), label="GELU")
    axis.plot(x, functional.silu(x), label="SiLU, SwiGLU's gate")
    axis.legend()
    return figure


def mask() -> Figure:
    """What may be attended to: all at once in training, one query at a time with a cache."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3))
    padded = causal_mask(8)[0].clone()
    padded[:, :2] = False
    step = torch.zeros(8, 8)
    step[5, :6] = 1
    titles = ["training: causal", "reading a prompt padded by 2", "a cached step: one query, no causal mask"]
    for axis, allowed, title in zip(axes, (causal_mask(8)[0], padded, step), titles, strict=True):
        axis.imshow(allowed.float().numpy(), cmap="Blues", vmin=0, vmax=1.6)
        axis.set(xlabel="key", ylabel="query")
        axis.set_title(title, fontsize=9)
    return figure


@torch.no_grad()
def kv_cache() -> Figure:
    """The time of each token, with the cache and with all tokens computed anew."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=100, block_size=256, d_model=128, layers=4, heads=4)).eval()
    figure, axis = plt.subplots(figsize=(5, 3))
    for cached in (False, True):
        cache = model.make_cache() if cached else None
        tokens = torch.zeros(1, 1, dtype=torch.long)
        taken = []
        for _ in range(255):
            began = time.process_time()
            following = model(tokens[:, -1:] if cached else tokens, cache)[:, -1].argmax(-1, keepdim=True)
            taken.append(1e3 * (time.process_time() - began))
            tokens = torch.cat([tokens, following], dim=1)
        axis.plot(_smooth(taken), label="with the cache" if cached else "all tokens anew")
    axis.set(xlabel="token", ylabel="ms of processor time", ylim=(0, None))
    axis.legend()
    return figure


def charlm(results: Path) -> Figure:
    """The laptop preset against nanoGPT's settings, over processor time."""
    curve = json.loads((results / "charlm_nanogpt.json").read_text())["curve"]
    figure, axis = plt.subplots(figsize=(5, 3))
    for name, side in (("laptop preset", "ours"), ("nanoGPT's settings", "nanogpt")):
        seconds, losses = ([point[f"{side}_{what}"] for point in curve] for what in ("seconds", "loss"))
        axis.plot(seconds, losses, marker=".", label=name)
    axis.axhline(1.88, color="gray", lw=0.8, ls=":")
    axis.set(xlabel="seconds of one core", ylabel="validation loss")
    axis.legend()
    return figure


def translation(results: Path) -> Figure:
    """Loss and BLEU of the translation training."""
    curve = json.loads((results / "multi30k_curve.json").read_text())
    epochs = [point["epoch"] for point in curve]
    figure, axis = plt.subplots(figsize=(5, 3))
    axis.plot(epochs, [point["train_loss"] for point in curve], label="training loss, smoothed labels")
    axis.plot(epochs, [point["loss"] for point in curve], label="validation loss")
    axis.set(xlabel="epoch", ylabel="loss")
    axis.legend(loc="upper center", fontsize=8)
    other: Axes = axis.twinx()
    other.plot(epochs, [point["bleu"] for point in curve], color="green", marker=".")
    other.set_ylabel("BLEU, greedy, 256 validation sentences", color="green", fontsize=8)
    return figure


def _name(tokenizer: Tokenizer, token: int) -> str:
    """Return what to write beside a token's row or column."""
    if token in (START, END):
        return "start" if token == START else "end"
    return "".join(letter if letter.isprintable() else "?" for letter in tokenizer.decode([token]))


def _smooth(values: Sequence[float], width: int = 9) -> list[float]:
    """Return running medians, which leave out what else the machine did."""
    return [median(values[max(0, i - width // 2) : i + width // 2 + 1]) for i in range(len(values))]


def draw(options: FigureOptions) -> None:
    """Draw all figures."""
    translator = Translator.load(options.translator)
    for name in ("charlm_nanogpt.json", "multi30k_curve.json"):
        if not (options.results / name).is_file():
            raise UserError(f"{options.results} lacks {name}; name the folder with the committed curves as --results.")
    options.out.mkdir(parents=True, exist_ok=True)
    figures = {
        "embedding": embedding(translator),
        "positions": positions(),
        "attention": attention(translator),
        "add_and_norm": add_and_norm(),
        "feed_forward": feed_forward(),
        "mask": mask(),
        "kv_cache": kv_cache(),
        "charlm": charlm(options.results),
        "translation": translation(options.results),
    }
    for name, figure in figures.items():
        figure.savefig(options.out / f"{name}.png", dpi=110, bbox_inches="tight")
        print(options.out / f"{name}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    return run_command(lambda: draw(parse_options(FigureOptions, arguments, "python -m tformer.figures")))
