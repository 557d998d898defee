"""The true environment as a WorldModel: the yardstick that tells planner error from model error."""

import jax.numpy as jnp

from jaxmbrl.config import configurable
from jaxmbrl.types import Array, Environment, Key, Metrics, Prediction, PyTree, TimeStep, WorldModel


@configurable
class Config:
    """The true simulator; there is nothing to learn and nothing to choose."""


def make(env: Environment) -> WorldModel:
    """Wrap ``env``; the model's state is a TimeStep and its parameters are empty.

    Time limits do not end imagination: only a termination gives discount 0.
    """

    def loss(params: PyTree, key: Key, batch: PyTree) -> tuple[Array, Metrics]:
        return jnp.zeros(()), {}

    def start(params: PyTree, key: Key, timestep: TimeStep) -> TimeStep:
        return timestep

    def observe(params: PyTree, key: Key, state: TimeStep, action: Array, timestep: TimeStep) -> TimeStep:
        return timestep

    def step(params: PyTree, key: Key, state: TimeStep, action: Array) -> tuple[TimeStep, Prediction]:
        successor = env.step(key, state, action)
        return successor, Prediction(successor.reward, 1.0 - successor.terminated.astype(jnp.float32))

    def features(params: PyTree, state: TimeStep) -> Array:
        return state.obs

    return WorldModel(lambda key: (), loss, start, observe, step, features)
