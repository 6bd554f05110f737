"""Simulated benchmarks as gymnasium environments, and the scripted experts that solve them.

Importing this package registers the ids ``libero/spatial-v0``, ``libero/object-v0``, ``libero/goal-v0``,
``libero/10-v0``, ``libero/90-v0``, ``robosuite/single-arm-v0`` and ``robosuite/two-arm-v0``,
each with its suite's step limit of the protocols openvla and robosuite. It stays light: a simulator is imported when an
environment is made.
"""

from gymnasium.envs.registration import register, registry

from vla_harness.protocols import PROTOCOLS

SUITES = ("spatial", "object", "goal", "10", "90")
ROBOSUITE_SUITES = ("single-arm", "two-arm")


def register_environments() -> None:
    """Register every environment id with gymnasium, once."""
    for benchmark, suites, entry_point, card in (
        ("libero", SUITES, "vla_harness.envs.libero.environment:LiberoEnv", "openvla"),
        ("robosuite", ROBOSUITE_SUITES, "vla_harness.envs.robosuite.environment:RobosuiteEnv", "robosuite"),
    ):
        for suite in suites:
            environment_id = f"{benchmark}/{suite}-v0"
            if environment_id not in registry:
                steps = PROTOCOLS[card].max_steps[suite]
                register(environment_id, entry_point=entry_point, kwargs={"suite": suite}, max_episode_steps=steps)


register_environments()
