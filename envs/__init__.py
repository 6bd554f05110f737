"""Simulated benchmarks as gymnasium environments, and the scripted experts that solve them.

Importing this package registers the ids ``libero/spatial-v0``, ``libero/object-v0``, ``libero/goal-v0``,
``libero/10-v0`` and ``libero/90-v0``. It stays light: a simulator is imported when an environment is made.
"""

from gymnasium.envs.registration import register, registry

SUITES = ("spatial", "object", "goal", "10", "90")


def register_environments() -> None:
    """Register every environment id with gymnasium, once."""
    for suite in SUITES:
        environment_id = f"libero/{suite}-v0"
        if environment_id not in registry:
            register(
                environment_id,
                entry_point="vla_harness.envs.libero.environment:LiberoEnv",
                kwargs={"suite": suite},
            )


register_environments()
