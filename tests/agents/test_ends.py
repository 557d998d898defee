"""Beyond its last step an episode is worth nothing after a termination, the next state's value after a time limit.

Whole runs in a world where taking the one for the other costs a known amount.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import agents, training
from jaxmbrl.agents import mve, sac
from jaxmbrl.envs import wrappers
from jaxmbrl.models import ensemble, fitting, one_step
from jaxmbrl.policies import sac as sac_policy
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Box, Environment, Spec, TimeStep

DISCOUNT = 0.5
BOX = Box(np.array([-1.0], np.float32), np.array([1.0], np.float32))
POLICY = sac_policy.Config(
    hidden=(32,), learning_rate=1e-2, discount=DISCOUNT, target_rate=0.1, initial_temperature=1e-4
)
BATCH = {"policy": POLICY, "batch_size": 32, "updates": 10}
CONFIGS = {
    "sac": sac.Config(**BATCH),
    "mve": mve.Config(
        horizon=2,
        model=ensemble.Members(member=one_step.Config(hidden=(16,), family="deterministic"), size=1, elites=1),
        fit=fitting.Config(learning_rate=1e-2, passes=30),
        **BATCH,
    ),
}
ENDLESS, ENDS = 0.0, 1.0


def corridors():
    """An episode is two steps, from place 0 to place 1 and on, in one of two corridors; each step is paid 1.

    In one of them it terminates, in a third place. In the other time is up, back in the first place, from where it
    might have gone on for ever. An observation is (corridor, place).
    """
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)

    def reset(key):
        no, corridor = jnp.zeros((), bool), jax.random.bernoulli(key).astype(jnp.float32)
        return TimeStep((), jnp.stack([corridor, 0.0]), jnp.zeros(()), no, no)

    def ends(obs, action, next_obs):
        return next_obs[1] > 1.5

    def step(key, timestep, action):
        corridor, place = timestep.obs
        obs = jnp.stack([corridor, jnp.where(corridor == ENDS, place + 1.0, (place + 1.0) % 2.0)])
        return timestep._replace(obs=obs, reward=jnp.ones(()), terminated=ends(None, None, obs))

    spec = Spec("corridors", shape, BOX, 2, reward=lambda obs, action, after: jnp.ones(()), termination=ends)
    return wrappers.time_limit(Environment(spec, reset, step), 2)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_only_a_termination_ends_what_there_is_to_gain(name):
    """Worth 1 + 1/2 and 1 where it terminates, 2 and 2 where time is up: the wrong kind of end is a half off or more.

    Planted bugs: time limits as terminations, and terminations as time limits, failed both systems.
    """
    env = corridors()
    loop = training.make_loop(
        env, agents.load(name).make(env.spec, CONFIGS[name]), Schedule(prefill=40, epoch_steps=80)
    )
    state = jax.jit(training.train(loop, 1))(jax.random.key(0))[0].agent
    critics = (state if name == "sac" else state.policy).critics
    learner = sac_policy.make(env.spec, POLICY)
    for corridor, worth in ((ENDS, (1.5, 1.0)), (ENDLESS, (2.0, 2.0))):
        for place, wanted in enumerate(worth):
            values = learner.values(critics, jnp.array([corridor, place]), jnp.zeros(1))
            np.testing.assert_allclose(values, wanted, atol=0.2, err_msg=f"{name} {corridor} {place}")
