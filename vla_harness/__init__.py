"""Run vision-language-action policies on simulated robots and say how often each succeeds."""

from typing import TYPE_CHECKING

from tformer.lazy import lazy_names

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
__getattr__ = lazy_names(
    __name__,
    {
        "errors": ["UserError"],
        "registry": ["available_policies", "load_policy"],
        "types": ["ActionConvention", "EnvironmentSpec", "JointConvention", "Observation", "Policy", "PolicySpec"],
    },
)
