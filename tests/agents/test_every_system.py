"""No system without a learning test."""

import test_mpc
import test_policy_systems

from jaxmbrl import agents

# test_latent_systems.py, test_nagabandi.py, test_poplin.py, test_world_models.py
ELSEWHERE = {"dreamer", "nagabandi", "planet", "poplin", "world_models"}


def test_every_system_has_a_learning_test():
    assert set(test_mpc.LEARNS) | set(test_policy_systems.CONFIGS) | ELSEWHERE == set(agents.SYSTEMS)
