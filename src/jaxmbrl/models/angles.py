"""Angles of an observation: seen by networks as sine and cosine, and changed by the shorter way round."""

import jax.numpy as jnp
import numpy as np

from jaxmbrl.types import Array


def encode(obs: Array, angles: tuple[int, ...]) -> Array:
    """Replace the angles of an observation [O] by their sines and cosines, [O + number of angles]."""
    if not angles:
        return obs
    others = np.setdiff1d(np.arange(obs.shape[-1]), angles)
    angle = obs[jnp.asarray(angles)]
    return jnp.concatenate([obs[others], jnp.sin(angle), jnp.cos(angle)])


def wrap(change: Array, angles: tuple[int, ...]) -> Array:
    """Wrap the entries of a change [O] that are angles to [-pi, pi)."""
    if not angles:
        return change
    index = jnp.asarray(angles)
    return change.at[index].set((change[index] + jnp.pi) % (2 * jnp.pi) - jnp.pi)
