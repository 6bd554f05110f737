"""What an image model is made of: a network, a process and the names of its contexts; and drawing pictures from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..training import list_checkpoints, read_checkpoint
from .dit import DiT, DiTConfig
from .process import ProcessConfig, SamplerConfig, build_process
from .samplers import Watch, guide
from .unet import ContextUnet, ContextUnetConfig


@dataclass(frozen=True)
class ImageModelConfig:
    """All that fixes a trained image model; a checkpoint's ``configuration`` is ``to_dict`` of it."""

    network: ContextUnetConfig | DiTConfig
    size: int
    """Height and width of the images in pixels."""
    names: tuple[str, ...]
    """Names of the contexts."""
    data: str
    """What it was trained on."""
    process: ProcessConfig = field(default_factory=ProcessConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        kind = "unet" if isinstance(self.network, ContextUnetConfig) else "dit"
        return asdict(self) | {"kind": kind, "names": list(self.names)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageModelConfig:
        """The reverse of ``to_dict``. Raises KeyError or TypeError for other values."""
        network = {"unet": ContextUnetConfig, "dit": DiTConfig}[values["kind"]](**values["network"])
        known = {item.name: values[item.name] for item in fields(cls)}
        known |= {"network": network, "names": tuple(values["names"]), "process": ProcessConfig(**values["process"])}
        return cls(**known)


class ImageModel(nn.Module):
    """A network with its process; ``network`` is what is trained."""

    def __init__(self, config: ImageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.process = build_process(config.process)
        network = config.network
        self.network = ContextUnet(network) if isinstance(network, ContextUnetConfig) else DiT(network)

    def forward(self, noisy: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """noisy: (B, C, S, S) at time (B,) in 0 … 1; context: (B, K). Returns the network's answer (B, C, S, S)."""
        return self.network(noisy, time, context)

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        sampler: SamplerConfig,
        generator: torch.Generator | None = None,
        guidance: float = 1.0,
        watch: Watch | None = None,
    ) -> Tensor:
        """Return one image (C, S, S) in about -1 … 1 per row of ``context`` (B, K) weights, together (B, C, S, S)."""
        shape = (len(context), self.config.network.channels, self.config.size, self.config.size)
        noise = torch.randn(shape, generator=generator, device=context.device)  # (B, C, S, S)
        return self.process.sample(guide(self, context, guidance), noise, sampler, generator, watch)


def load_image_model(path: str | Path, device: torch.device | str = "cpu") -> ImageModel:
    """Return the model of a checkpoint that `tformer.train diffusion` wrote, ready to sample.

    path: a checkpoint, or a training's folder for its newest. Raises UserError where it is none.
    """
    path = Path(path)
    if path.is_dir():
        path = next(reversed(list_checkpoints(path)), path / "checkpoints")
    content = read_checkpoint(path)
    try:
        model = ImageModel(ImageModelConfig.from_dict(content["configuration"]))
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(f"{path} is no checkpoint of `tformer.train diffusion`; name one of an image model.") from None
    return model.eval().to(device)
