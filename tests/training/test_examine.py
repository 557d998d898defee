"""What `evaluate` draws an episode with."""

import pytest

from jaxmbrl import envs
from jaxmbrl.envs import brax
from jaxmbrl.training.examine import physics


@pytest.mark.parametrize("name", ["brax/hopper", "brax/inverted_pendulum"])
def test_a_brax_viewer_takes_a_runs_options(name):
    """A run keeps all of an environment's options; its picture is drawn from the bare simulator, which has fewer."""
    options = {**envs.options(name), "backend": "spring"}
    assert "episode_length" in options
    assert brax.simulator(name, **physics(options)).dt > 0
