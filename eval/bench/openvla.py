"""Times OpenVLA by phase, as the policy runs it and as a plain loop does, against the roofline of this machine.

    python eval/bench/openvla.py

Weights are random. The plain loop is transformers' LLaMA with its growing cache, eager, one token at a time with a look
at each on the host, as the reference generates. Both take turns in this process; times are medians. The roofline is
what the arithmetic and the weights of each phase cost at the rates that a large product of matrices and a large sum
reach here.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.openvla"))

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tformer.values import PositiveInt
from vla_harness.checkpoints import Precision, choose_device, choose_precision, module_bytes, parameters_on_meta
from vla_harness.checkpoints.precision import is_quantised, quantise_linears, quantised_parameter
from vla_harness.command import DONE, parse_options, run_command
from vla_harness.eval.bench.roofline import milliseconds, rates
from vla_harness.policies.graphs import GraphedCall
from vla_harness.policies.openvla.configuration import LanguageConfig, OpenVLAConfig, read_config
from vla_harness.policies.openvla.decoding import Decoder, padded_prompts
from vla_harness.policies.openvla.model import OpenVLA

PROMPT = 32
STEPS = 7
BACKBONE = "dinosiglip-vit-so-224px"


@dataclass(frozen=True)
class OpenVLABench:
    """OpenVLA: milliseconds by phase, against a plain loop and the roofline."""

    size: Literal["auto", "7b", "tiny"] = "auto"
    """Sizes of the network; auto: 7b on CUDA, tiny elsewhere."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: tuple[Literal["fp32", "bf16", "8bit", "4bit"], ...] = ()
    """Number formats; none given: bf16 and 4bit on CUDA, fp32 and 4bit elsewhere."""
    batch: tuple[PositiveInt, ...] = (1, 4, 16)
    """Numbers of rows."""
    repeats: PositiveInt = 10
    """Timed runs of each side."""


def sizes(size: str) -> OpenVLAConfig:
    """Return the configuration of the 7B model, or of one of the same shape in small."""
    full = read_config({"vision_backbone_id": BACKBONE, "text_config": {"vocab_size": 32064}}, "openvla-7b")
    if size == "7b":
        return full
    return replace(
        full,
        dino=replace(full.dino, width=128, depth=4, heads=2, mlp_width=512),
        siglip=replace(full.siglip, width=144, depth=3, heads=2, mlp_width=538),
        language=LanguageConfig(vocabulary=32064, width=128, depth=3, heads=4, mlp_width=352),
    )


def random_model(config: OpenVLAConfig, precision: Precision, device: torch.device) -> OpenVLA:
    """Return the network with random weights, quantised one after the other."""
    with parameters_on_meta():
        model = OpenVLA(config)
    quantise_linears(model, precision, device, only=lambda path: path != "language_model.lm_head")
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            weights = torch.randn(parameter.shape, dtype=precision.dtype, device=device) * 0.02
            quantised = name == "weight" and is_quantised(module)
            module._parameters[name] = (
                quantised_parameter(module, weights.cpu(), device)
                if quantised
                else nn.Parameter(weights, requires_grad=False)
            )
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    return model.eval()


class Bench:
    """One network with the inputs of one number of rows."""

    def __init__(self, model: OpenVLA, batch: int) -> None:
        device = model.device
        self.model = model
        self.decoder = Decoder(model, STEPS)
        self.pixels = torch.randn(batch, 6, 224, 224, device=device)
        words = torch.arange(1, PROMPT + 1).tolist()
        self.tokens, self.lengths = padded_prompts([words] * batch, device, fixed_shapes=False)
        self.cache = self.decoder.cache(self.tokens)
        self.patches = model.patches(self.pixels)
        self.embedded = torch.cat([self.patches, model.language_model.embed_tokens(self.tokens)], dim=1)
        self.places = torch.full((batch,), self.embedded.shape[1], device=device)

    def phases(self) -> dict[str, tuple[Callable[..., Any], list[nn.Module], int]]:
        """Return phase -> what it runs, the modules whose weights it reads, and how often it does all that."""
        model, language = self.model, self.model.language_model
        return {
            "vision": (lambda: model.patches(self.pixels), [model.vision_backbone, model.projector], 1),
            "prefill": (
                lambda: model.logits(language(self.embedded, cache=self.cache)[:, -1]),
                [language.layers, language.lm_head],
                1,
            ),
            "decode": (
                lambda: model.step(self.tokens[:, 0], self.places, self.cache),
                [language.layers, language.lm_head],
                STEPS - 1,
            ),
        }

    def ours(self) -> Callable[[], torch.Tensor]:
        """Return the policy's way: all phases, one CUDA graph where there is CUDA."""
        generate: Callable[..., torch.Tensor] = self.decoder.generate
        if self.model.device.type == "cuda":
            generate = GraphedCall(generate)
        return lambda: generate(self.pixels, self.tokens, self.lengths)


def plain_language(model: OpenVLA) -> nn.Module:
    """Return transformers' LLaMA with the weights of ``model``, shared and not copied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = model.config.language
    config: dict[str, Any] = {
        "vocab_size": ours.vocabulary,
        "hidden_size": ours.width,
        "intermediate_size": ours.mlp_width,
        "num_hidden_layers": ours.depth,
        "num_attention_heads": ours.heads,
        "attn_implementation": "eager",
    }
    with parameters_on_meta():
        theirs = LlamaForCausalLM(LlamaConfig(**config))
    for path, module in model.language_model.named_modules():
        target = theirs if path == "lm_head" or not path else theirs.model
        for name, parameter in module._parameters.items():
            (target.get_submodule(path) if path else target)._parameters[name] = parameter
        if is_quantised(module):
            target.set_submodule(path, module)
    theirs.model.rotary_emb.to(model.device)
    return theirs.eval()


def plain_loop(one: Bench, language: nn.Module) -> torch.Tensor:
    """Generate as the reference does: eager attention, a cache that grows, the host looks at every token for EOS."""
    model = one.model
    patches = model.patches(one.pixels)
    words = model.language_model.embed_tokens(one.tokens)
    embedded = torch.cat([words[:, :1], patches, words[:, 1:]], dim=1)
    out = language(inputs_embeds=embedded, use_cache=True)
    answer = [out.logits[:, -1].float().argmax(dim=1)]
    for _ in range(STEPS - 1):
        if (answer[-1] == 2).all().item():
            break
        out = language(input_ids=answer[-1][:, None], past_key_values=out.past_key_values, use_cache=True)
        answer.append(out.logits[:, -1].float().argmax(dim=1))
    return torch.stack(answer, dim=1)


@torch.inference_mode()
def bench(options: OpenVLABench) -> int:
    """Measure and print a Markdown table for each number format."""
    device = choose_device(options.device)
    cuda = device.type == "cuda"
    size = ("7b" if cuda else "tiny") if options.size == "auto" else options.size
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    for wanted in options.precision or (("bf16", "4bit") if cuda else ("fp32", "4bit")):
        precision = choose_precision(wanted, device)
        speed = rates(device, precision.dtype)
        model = random_model(sizes(size), precision, device)
        with parameters_on_meta():
            halves = 2 * sum(parameter.numel() for parameter in OpenVLA(sizes(size)).parameters())
        print(
            f"\nOpenVLA {size}, {wanted}, {name}: {speed[0] / 1e12:.3f} TFLOP/s, {speed[1] / 1e9:.1f} GB/s,"
            f" weights {module_bytes(model) / 1e9:.3f} GB, {module_bytes(model) / halves:.2f} of bf16\n"
        )
        print("| rows | phase | ms | roofline ms | ratio |\n|---:|---|---:|---:|---:|")
        for rows in options.batch:
            for line in measure(Bench(model, rows), speed, options.repeats, device):
                print(f"| {rows} | {line} |", flush=True)
        if cuda:
            print(f"\nPeak memory {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB.")
    return DONE


def measure(one: Bench, speed: tuple[float, float], repeats: int, device: torch.device) -> Iterator[str]:
    """Yield the last columns of one row of the table after the other."""
    floor = 0.0
    for phase, (run, modules, times) in one.phases().items():
        with FlopCounterMode(display=False) as counter:
            run()
        weights = sum(module_bytes(module) for module in modules)
        least = times * 1e3 * max(counter.get_total_flops() / speed[0], weights / speed[1])
        floor += least
        quick = GraphedCall(run) if device.type == "cuda" else run
        quick()
        took = times * median(milliseconds(quick, device) for _ in range(repeats))
        yield f"{phase} | {took:.2f} | {least:.2f} | {took / least:.2f}"
    ours, language = one.ours(), plain_language(one.model)
    same = torch.equal(ours(), plain_loop(one, language))
    fast, slow = [], []
    for _ in range(repeats):
        fast.append(milliseconds(ours, device))
        slow.append(milliseconds(lambda: plain_loop(one, language), device))
    tokens = STEPS * len(one.tokens)
    for side, took in (("all, ours", median(fast)), ("all, plain loop", median(slow))):
        yield f"{side}: {1e3 * tokens / took:.0f} tokens/s | {took:.2f} | {floor:.2f} | {took / floor:.2f}"
    yield f"plain / ours | {median(slow) / median(fast):.2f}x | | tokens {'agree' if same else 'differ'}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: bench(parse_options(OpenVLABench, arguments, "openvla.py")))
