"""A robot policy from scratch: camera images, the robot's state and an instruction to chunks of actions."""

from .model import HeadConfig, HeadKind, PolicyConfig, VisuomotorPolicy
from .regression import RegressionHead
from .vision import CameraEncoder

__all__ = ["CameraEncoder", "HeadConfig", "HeadKind", "PolicyConfig", "RegressionHead", "VisuomotorPolicy"]
