"""The simplest control task: a point that an action pushes, paid for being near 0. Two seeds of anything learn it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.envs import wrappers
from jaxmbrl.types import Box, Environment, Spec, TimeStep

LENGTH = 10


def make():
    """Obs x [1] within [-1, 1] at first; x' = x + a / 2 with |a| <= 1; reward -x'^2. Doing nothing gives -10/3."""
    box = Box(np.array([-1.0], np.float32), np.array([1.0], np.float32))
    shape = jax.ShapeDtypeStruct((1,), jnp.float32)
    spec = Spec("integrator", shape, box, LENGTH, reward=lambda obs, action, next_obs: -jnp.sum(next_obs**2))

    def reset(key):
        obs = jax.random.uniform(key, (1,), minval=-1.0)
        return TimeStep((), obs, jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    def step(key, timestep, action):
        obs = timestep.obs + 0.5 * action
        return timestep._replace(obs=obs, reward=-jnp.sum(obs**2))

    return wrappers.time_limit(Environment(spec, reset, step), LENGTH)
