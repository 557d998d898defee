"""DQN as a system: it learns on vectors and on grids, and it carries the papers' numbers."""

import corridor
import jax
import jax.numpy as jnp
import pytest

from jaxmbrl import training
from jaxmbrl.agents import dqn
from jaxmbrl.policies import dqn as policy
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Discrete, Spec

POLICY = policy.Config(
    hidden=(32,), depth=4, optimiser="adam", learning_rate=3e-3, discount=0.9, target_every=20, decay=200
)
MINATAR = Spec("any", jax.ShapeDtypeStruct((10, 10, 4), jnp.bool_), Discrete(3), 1000)


@pytest.mark.parametrize("kind", ["grid", "vector"])
def test_learns_to_walk_to_the_flag(kind):
    """Standing still scores -0.6, the optimum 0.8; a pilot of four seeds, the test's own, had 0.77 to 0.81.

    Planted bugs: 0.57 without what lies beyond the next step, 0.41 where the target copy never moves, 0.49 where it
    values the state that was left, -0.31 where the loss is that of the best action rather than the one taken, -0.6 for
    a reward of the wrong sign and for the worst action. A value beyond terminations changes little here (0.76); the
    targets' twin in tests/policies sees it.
    """
    env = corridor.make(grid=kind == "grid")
    agent = dqn.make(env.spec, dqn.Config(policy=POLICY, batch_size=32))
    schedule = Schedule(epochs=1, prefill=100, epoch_steps=400, eval_episodes=30)
    program = training.train(training.make_loop(env, agent, schedule), schedule.epochs)
    returns = jax.jit(jax.vmap(program))(jax.random.split(jax.random.key(0), 4))[1]["eval_return"][:, -1]
    assert returns.mean() > 0.7, returns


def test_minatars_numbers():
    """Young and Tian 2019, and the code released with it: sizes of layers, steps, replay, epsilon."""
    agent, schedule = dqn.preset("paper", MINATAR)
    chosen = agent.policy
    assert (agent.batch_size, agent.updates, schedule.prefill, schedule.capacity) == (32, 1, 5000, 100_000)
    assert schedule.prefill + schedule.epochs * schedule.epoch_steps == 5_005_000
    assert (chosen.optimiser, chosen.learning_rate, chosen.discount) == ("rmsprop", 2.5e-4, 0.99)
    assert (chosen.target_every, chosen.target_rate) == (1000, 1.0)
    assert (chosen.first_epsilon, chosen.last_epsilon, chosen.decay) == (1.0, 0.1, 100_000)
    network = jax.eval_shape(policy.make(MINATAR, chosen).init, jax.random.key(0)).network["params"]
    assert [leaf.shape for leaf in jax.tree.leaves(network) if leaf.ndim > 1] == [
        (3, 3, 4, 16),
        (1024, 128),
        (128, 3),
    ]
