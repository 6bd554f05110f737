"""Times GR00T N1.5 by phase, as the policy runs it and as a plain loop does, against the roofline of this machine.

    python eval/bench/groot.py

Weights are random. The plain loop is NVIDIA's way: each denoising step computes anew what the time does to the blocks,
and keys and values of the features; nothing is recorded into a CUDA graph. Both take turns in this process; times are
medians. The roofline is what the phases' arithmetic and weights cost at the rates that a large product of matrices and
a large sum reach here.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.groot"))

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tformer.values import PositiveInt
from vla_harness.checkpoints import choose_device, choose_precision, parameters_on_meta
from vla_harness.command import DONE, parse_options, run_command
from vla_harness.eval.bench.roofline import milliseconds, rates
from vla_harness.policies.graphs import GraphedCall
from vla_harness.policies.groot.action_head import Sampler
from vla_harness.policies.groot.backbone import EAGLE
from vla_harness.policies.groot.model import Groot, GrootConfig

TEXT = 46
"""Tokens of a prompt without its images."""
SLOT = 31


@dataclass(frozen=True)
class GrootBench:
    """GR00T N1.5: milliseconds by phase, against a plain loop and the roofline."""

    size: Literal["auto", "3b", "tiny"] = "auto"
    """Sizes of the network; auto: 3b on CUDA, tiny elsewhere."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format; auto: bf16 on CUDA, fp32 elsewhere."""
    cameras: tuple[PositiveInt, ...] = (1, 2, 3)
    """Numbers of cameras, 256 tokens each."""
    batch: tuple[PositiveInt, ...] = (1, 16)
    """Numbers of rows."""
    repeats: PositiveInt = 20
    """Timed runs of each side."""


def sizes(size: str) -> GrootConfig:
    """Return the configuration of the 3B model, or one of the same shape in small."""
    wide = size == "3b"

    def transformer(layers: int, heads: int, width: int, **more: Any) -> dict[str, Any]:
        return {"num_layers": layers, "num_attention_heads": heads, "attention_head_dim": width, **more}

    features = 2048 if wide else 64
    head: dict[str, Any] = {
        "backbone_embedding_dim": features,
        "hidden_size": 1024 if wide else 40,
        "input_embedding_dim": 1536 if wide else 48,
        "diffusion_model_cfg": transformer(
            16 if wide else 4,
            32 if wide else 4,
            48 if wide else 12,
            cross_attention_dim=features,
            output_dim=1024 if wide else 40,
        ),
        "vl_self_attention_cfg": transformer(4, 32, 64) if wide else transformer(2, 4, 16),
    }
    stored = {"action_head_cfg": head, "backbone_cfg": {"select_layer": 12 if wide else 2}}
    if wide:
        return GrootConfig(stored)
    vision = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    words = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    small = {
        "image_token_index": 1989,
        "vision_config": EAGLE["vision_config"] | vision,
        "text_config": EAGLE["text_config"] | words | {"intermediate_size": 160, "vocab_size": 2000},
    }
    return GrootConfig(stored, small)


def random_model(config: GrootConfig, device: torch.device, dtype: torch.dtype) -> Groot:
    """Return the network with random weights, made where they stay."""
    with parameters_on_meta():
        model = Groot(config)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                weights = torch.randn(parameter.shape, device=device, dtype=dtype) * 0.02
                module._parameters[name] = nn.Parameter(weights, requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    return model.eval()


class Bench:
    """One network, with the inputs of one number of cameras and rows."""

    def __init__(self, model: Groot, cameras: int, batch: int) -> None:
        self.model, head = model, model.config.head
        weight = model.head.vlln.weight
        make: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        self.sampler = Sampler(model.head)
        patches = model.backbone.patches
        self.pixels = torch.rand(batch * cameras, 3, 224, 224, **make) * 2 - 1
        tokens = torch.ones(batch, TEXT + cameras * patches, dtype=torch.long, device=weight.device)
        tokens[:, 20 : 20 + cameras * patches] = model.backbone.image_token
        self.tokens = tokens
        self.state = torch.randn(batch, 1, head.max_state_dim, **make)
        self.noise = torch.randn(batch, head.action_horizon, head.action_dim, device=weight.device)
        self.inputs = (self.pixels, self.tokens, self.state, self.noise)
        self.seen = model.backbone.see(self.pixels)
        self.features = model.backbone(self.pixels, self.tokens)
        self.adapted = model.head.adapt(self.features)
        self.kept = model.head.model.keys_values(self.adapted)

    def phases(self) -> dict[str, tuple[Callable[[], Any], list[nn.Module], int]]:
        """Return phase -> what it runs, the modules whose weights it reads, and how often it reads them."""
        backbone, head = self.model.backbone, self.model.head
        once, each_step = list[nn.Module](), list[nn.Module]()
        for block in head.model.blocks():
            (once if block.cross else each_step).extend([block.attn1.to_k, block.attn1.to_v])
            each_step.extend([block.attn1.to_q, block.attn1.to_out, block.ff])
        return {
            "vision": (lambda: backbone.see(self.pixels), [backbone.vision, backbone.connector], 1),
            "language": (self._language, [backbone.language.layers], 1),
            "adapter": (lambda: head.adapt(self.features), [head.vl_self_attention], 1),
            "keys and values": (lambda: head.model.keys_values(self.adapted), once, 1),
            "denoising": (self._denoise, each_step, self.sampler.steps),
        }

    def ours(self, pixels: Tensor, tokens: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        return self.sampler(self.model.backbone(pixels, tokens), state, noise, SLOT)

    def plain(self, pixels: Tensor, tokens: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        """Compute the same without anything kept between the denoising steps."""
        head, steps = self.model.head, self.sampler.steps
        adapted = head.adapt(self.model.backbone(pixels, tokens))
        slots = torch.full((len(noise),), SLOT, device=noise.device)
        encoded, actions = head.state_encoder(state, slots), noise.to(state.dtype)
        for step in range(steps):
            bucket = torch.full((len(noise),), step * 1000 // steps, device=noise.device)
            rows = head.tokens(encoded, actions, bucket, slots)
            out = head.model(rows, head.model.modulations(bucket), head.model.keys_values(adapted))
            actions = actions + head.action_decoder(out, slots)[:, -actions.shape[1] :] / steps
        return actions

    def _language(self) -> Tensor:
        embedded = self.model.backbone.embed(self.tokens, self.seen)
        masks = {"full_attention": None}
        return self.model.backbone.language(inputs_embeds=embedded, attention_mask=masks).last_hidden_state

    def _denoise(self) -> Tensor:
        return self.sampler.denoise(self.kept, self.state, self.noise, SLOT)


@torch.inference_mode()
def bench(options: GrootBench) -> int:
    """Measure and print a Markdown table."""
    device = choose_device(options.device)
    precision = choose_precision(None if options.precision == "auto" else options.precision, device)
    size = ("3b" if device.type == "cuda" else "tiny") if options.size == "auto" else options.size
    speed = rates(device, precision.dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"GR00T N1.5, {size}, {precision.name}, {name}: {speed[0] / 1e12:.2f} TFLOP/s, {speed[1] / 1e9:.0f} GB/s\n")
    model = random_model(sizes(size), device, precision.dtype)
    print("| cameras | rows | phase | ms | roofline ms | ratio |\n|---:|---:|---|---:|---:|---:|")
    for cameras in options.cameras:
        for rows in options.batch:
            for line in measure(Bench(model, cameras, rows), speed, options.repeats, device):
                print(f"| {cameras} | {rows} | {line} |", flush=True)
    return DONE


def measure(one: Bench, speed: tuple[float, float], repeats: int, device: torch.device) -> Iterator[str]:
    """Yield the last columns of one row of the table after the other."""
    floor = 0.0
    for phase, (run, modules, reads) in one.phases().items():
        with FlopCounterMode(display=False) as counter:
            run()
        weights = reads * sum(p.nbytes for module in modules for p in module.parameters())
        least = 1e3 * max(counter.get_total_flops() / speed[0], weights / speed[1])
        floor += least
        took = median(milliseconds(run, device) for _ in range(repeats))
        yield f"{phase} | {took:.2f} | {least:.2f} | {took / least:.2f}"
    recorded = GraphedCall(one.ours) if device.type == "cuda" else one.ours
    difference = (recorded(*one.inputs) - one.plain(*one.inputs)).abs().max().item()
    ours, plain = [], []
    for _ in range(repeats):
        ours.append(milliseconds(lambda: recorded(*one.inputs), device))
        plain.append(milliseconds(lambda: one.plain(*one.inputs), device))
    for side, took in (("all, ours", median(ours)), ("all, plain loop", median(plain))):
        yield f"{side} | {took:.2f} | {floor:.2f} | {took / floor:.2f}"
    yield f"plain / ours | {median(plain) / median(ours):.2f}x | | actions differ by {difference:.0e}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: bench(parse_options(GrootBench, arguments, "groot.py")))
