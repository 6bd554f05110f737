"""Run vision-language-action policies on simulated robots and say how often each succeeds."""

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
