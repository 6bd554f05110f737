"""Playing episodes: a policy in this process, simulators in spawned workers, dynamic batches in between."""

from .engine import run_episodes
from .jobs import EnvironmentRecipe, EpisodeJob, RolloutSettings, VideoChoice

__all__ = ["EnvironmentRecipe", "EpisodeJob", "RolloutSettings", "VideoChoice", "run_episodes"]
