"""Diffusion and flow matching: schedules, samplers, image denoisers and a head that draws action chunks."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .action_head import ActionHead, ActionHeadConfig
    from .conditioning import drop_contexts
    from .dit import DiT, DiTConfig
    from .process import Process, ProcessConfig, SamplerConfig, build_process
    from .samplers import guide
    from .schedules import NoiseSchedule, cosine_schedule, linear_schedule
    from .unet import ContextUnet, ContextUnetConfig

__all__ = [
    "ActionHead",
    "ActionHeadConfig",
    "ContextUnet",
    "ContextUnetConfig",
    "DiT",
    "DiTConfig",
    "NoiseSchedule",
    "Process",
    "ProcessConfig",
    "SamplerConfig",
    "build_process",
    "cosine_schedule",
    "drop_contexts",
    "guide",
    "linear_schedule",
]
__getattr__ = lazy_names(
    __name__,
    {
        "action_head": ["ActionHead", "ActionHeadConfig"],
        "conditioning": ["drop_contexts"],
        "dit": ["DiT", "DiTConfig"],
        "process": ["Process", "ProcessConfig", "SamplerConfig", "build_process"],
        "samplers": ["guide"],
        "schedules": ["NoiseSchedule", "cosine_schedule", "linear_schedule"],
        "unet": ["ContextUnet", "ContextUnetConfig"],
    },
)
