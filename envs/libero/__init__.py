"""LIBERO on robosuite: environments, assets, stepping and the scene."""
