r"""Evolution of a policy's parameters: what a planner needs to optimise them, in a dream or in the true environment.

A policy is a function of a world model's features, and its parameters are one vector [D], so that any `Planner` of
vectors (CMA-ES, ES, CEM, ...) evolves it:

    objective(theta) = mean over E episodes of  sum_t gamma^t (prod_{k<t} d_k) r_t,   a_t = policy(theta, features_t)

In a dream, the episodes are the model's own; in the environment, the same model only filters what is seen
(`filtered`), and the same function judges both. All candidates meet the same episodes and the same noise.

Source: Ha and Schmidhuber 2018, arXiv:1803.10122, App. A.3 and A.4 (a linear controller on [z, h], CMA-ES).
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmbrl import sharding
from jaxmbrl.models.actions import from_unit
from jaxmbrl.planners.candidates import Objective
from jaxmbrl.planners.receding import Steering, discounted_return
from jaxmbrl.types import Array, Box, Environment, Key, Metrics, Prediction, PyTree, Spec, TimeStep, WorldModel


class Controller(NamedTuple):
    """A policy whose parameters are one vector.

    Attributes:
        size: D, number of parameters.
        act: ``(theta [D], features [F]) -> action``, [A] within the bounds or int32 [].
    """

    size: int
    act: Callable[[Array, Array], Array]


class Seen(NamedTuple):
    """The true environment, and what a model believes of it."""

    timestep: TimeStep
    belief: PyTree


def controller(spec: Spec, network: nn.Module, num_features: int) -> Controller:
    r"""A network of features as a `Controller`; one without hidden layers is linear.

    Outputs become actions by tanh, :math:`low + (high - low)(1 + \tanh y) / 2`, or by the greatest of them.

    Args:
        spec: its actions are what the network's outputs are for, one output each.
        network: [F] -> [A], or [number of actions].
        num_features: F.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(num_features))
    vector, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))

    def act(theta: Array, features: Array) -> Array:
        outputs = jnp.asarray(network.apply(unravel(theta), features))
        if isinstance(spec.action, Box):
            return from_unit(jnp.tanh(outputs), spec.action)
        return jnp.argmax(outputs).astype(jnp.int32)

    return Controller(vector.size, act)


def objective(
    world: WorldModel,
    params: PyTree,
    begin: Callable[[Key], PyTree],
    act: Callable[[Array, Array], Array],
    *,
    horizon: int,
    episodes: int = 16,
    discount: float | Array = 1.0,
) -> Objective:
    """What a policy's parameters are worth in a world model, as a planner's objective.

    Args:
        world: a learned model, or the true one (`filtered`, `simulator.make`).
        params: its parameters.
        begin: ``(key) -> state`` of the model, drawn anew for each episode.
        act: ``(theta [D], features [F]) -> action``.
        horizon: steps of an episode (H).
        episodes: over which returns are averaged (E).
        discount: [], gamma.

    Returns:
        ``(key, candidates [N, D]) -> scores [N]``, not finite where any episode's return is not.
    """
    idle = jnp.zeros((horizon, 0))  # nothing but the policy steers
    many = side_by_side(world, episodes)

    def score(theta: Array, key: Key, states: PyTree) -> Array:
        steering = Steering(lambda _: idle, lambda features, _: jax.vmap(act, in_axes=(None, 0))(theta, features))
        return discounted_return(params, key, states, theta, model=many, discount=discount, steering=steering)

    def scores(key: Key, candidates: Array) -> Array:
        key_begin, key_episodes = jax.random.split(key)
        states = jax.vmap(begin)(jax.random.split(key_begin, episodes))
        return sharding.vmap(score, in_axes=(0, None, None))(candidates, key_episodes, states)

    return scores


def side_by_side(world: WorldModel, num: int) -> WorldModel:
    """``num`` copies of a model in one, whose belief has the shape S = [num]; changes only what imagination needs."""

    def step(params: PyTree, key: Key, state: PyTree, action: Array) -> tuple[PyTree, Prediction]:
        return jax.vmap(world.step, in_axes=(None, 0, 0, 0))(params, jax.random.split(key, num), state, action)

    return world._replace(step=step, features=jax.vmap(world.features, in_axes=(None, 0)))


def filtered(env: Environment, world: WorldModel) -> WorldModel:
    """The true environment as a WorldModel that a policy sees through a learned model's filter.

    Its state is `Seen`, its features are the learned model's, and its rewards are true. An episode ends where it is
    terminated or truncated. Parameters are the learned model's.
    """

    def loss(params: PyTree, key: Key, batch: PyTree) -> tuple[Array, Metrics]:
        return jnp.zeros(()), {}

    def start(params: PyTree, key: Key, timestep: TimeStep) -> Seen:
        return Seen(timestep, world.start(params, key, timestep))

    def observe(params: PyTree, key: Key, state: Seen, action: Array, timestep: TimeStep) -> Seen:
        return Seen(timestep, world.observe(params, key, state.belief, action, timestep))

    def step(params: PyTree, key: Key, state: Seen, action: Array) -> tuple[Seen, Prediction]:
        key_env, key_observe = jax.random.split(key)
        timestep = env.step(key_env, state.timestep, action)
        goes_on = ~(timestep.terminated | timestep.truncated)
        successor = observe(params, key_observe, state, action, timestep)
        return successor, Prediction(timestep.reward, goes_on.astype(jnp.float32))

    return WorldModel(
        world.init, loss, start, observe, step, lambda params, state: world.features(params, state.belief)
    )


def fresh(env: Environment, world: WorldModel, params: PyTree) -> Callable[[Key], PyTree]:
    """Where episodes in the environment begin: ``(key) -> state`` of a model of it, after a reset."""

    def begin(key: Key) -> PyTree:
        key_reset, key_start = jax.random.split(key)
        return world.start(params, key_start, env.reset(key_reset))

    return begin
