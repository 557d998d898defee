"""The simplest control task: a point that an action pushes, paid for being near 0. Two seeds of anything learn it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.envs import wrappers
from jaxmbrl.types import Box, Discrete, Environment, Spec, TimeStep

LENGTH = 10


def make(*, late=False, discrete=False):
    """Obs x [1] within [-1, 1] at first; x' = x + a / 2 with |a| <= 1; reward -x'^2. Doing nothing gives -10/3.

    With ``late`` the reward is -x^2: what an action does is paid for in the next step, beyond a horizon of one. With
    ``discrete`` an action is one of three: a = -1, 0 or 1.
    """
    box = Box(np.array([-1.0], np.float32), np.array([1.0], np.float32))
    shape = jax.ShapeDtypeStruct((1,), jnp.float32)

    def reward(obs, action, next_obs):
        return -jnp.sum((obs if late else next_obs) ** 2)

    spec = Spec("integrator", shape, Discrete(3) if discrete else box, LENGTH, reward=reward)

    def reset(key):
        obs = jax.random.uniform(key, (1,), minval=-1.0)
        return TimeStep((), obs, jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    def step(key, timestep, action):
        obs = timestep.obs + 0.5 * (action - 1.0 if discrete else action)
        return timestep._replace(obs=obs, reward=reward(timestep.obs, action, obs))

    return wrappers.time_limit(Environment(spec, reset, step), LENGTH)
