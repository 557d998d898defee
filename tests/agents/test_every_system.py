"""No system without a learning test."""

import test_mpc
import test_policy_systems

from jaxmbrl import agents

ELSEWHERE = {
    "dqn": "test_dqn.py",
    "dreamer": "test_latent_systems.py",
    "ivg": "test_ivg.py",
    "nagabandi": "test_nagabandi.py",
    "planet": "test_latent_systems.py",
    "poplin": "test_poplin.py",
    "world_models": "test_world_models.py",
}


def test_every_system_has_a_learning_test():
    assert set(test_mpc.LEARNS) | set(test_policy_systems.CONFIGS) | set(ELSEWHERE) == set(agents.SYSTEMS)
