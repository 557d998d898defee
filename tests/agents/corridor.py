"""The simplest task on a grid: walk to the flag before time is up. Its vector twin shows the same as two numbers."""

import jax
import jax.numpy as jnp

from jaxmbrl.envs import wrappers
from jaxmbrl.types import Discrete, Environment, Spec, TimeStep

WIDTH, LENGTH = 5, 6


def make(*, grid=True):
    """A walker and a flag at two different places of five; actions are left, stay and right.

    A step gives -0.1, the one that meets the flag 0.9, and the episode ends there. Standing still gives -0.6, the
    optimum 0.8 on average, as the flag is 2 steps away on average.
    """
    shape, dtype = ((3, WIDTH, 2), jnp.bool_) if grid else ((2,), jnp.float32)

    def seen(places):
        if not grid:
            return places / WIDTH
        return jnp.zeros(shape, bool).at[1, places, jnp.arange(2)].set(True)

    def reset(key):
        key_walker, key_ahead = jax.random.split(key)
        walker = jax.random.randint(key_walker, (), 0, WIDTH)
        places = jnp.stack([walker, (walker + jax.random.randint(key_ahead, (), 1, WIDTH)) % WIDTH])
        return TimeStep(places, seen(places), jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))

    def step(key, timestep, action):
        del key
        walker = jnp.clip(timestep.state[0] + action - 1, 0, WIDTH - 1)
        places = timestep.state.at[0].set(walker)
        met = places[0] == places[1]
        return timestep._replace(state=places, obs=seen(places), reward=jnp.where(met, 0.9, -0.1), terminated=met)

    spec = Spec("corridor", jax.ShapeDtypeStruct(shape, dtype), Discrete(3), LENGTH)
    return wrappers.time_limit(Environment(spec, reset, step), LENGTH)
