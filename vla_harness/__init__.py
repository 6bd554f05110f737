"""Run vision-language-action policies on simulated robots and say how often each succeeds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import UserError
    from .registry import available_policies, load_policy
    from .types import ActionConvention, EnvironmentSpec, JointConvention, Observation, Policy, PolicySpec

__all__ = [
    "ActionConvention",
    "EnvironmentSpec",
    "JointConvention",
    "Observation",
    "Policy",
    "PolicySpec",
    "UserError",
    "available_policies",
    "load_policy",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: commands start, and Ctrl-C ends them, before numpy is there."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"UserError": "errors", "available_policies": "registry", "load_policy": "registry"}.get(name, "types")
    return getattr(import_module(f".{home}", __name__), name)
