"""A world model as an Environment: whatever learns in an environment learns in imagination.

One example of this environment is one *belief* of the model, of shape S (see ``types.WorldModel``). Where S is () it is
an environment like any other. Where the belief is a cloud [M, P/M], it is as many rollouts side by side: observations
are [M, P/M, O], actions [M, P/M, A], rewards and ends [M, P/M]; an ensemble under ``ts1`` then takes a random member
for each step of each rollout, and no weights are copied.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import sharding
from jaxmbrl.envs.wrappers import check_count, strong_types
from jaxmbrl.types import Array, Environment, Key, PyTree, Spec, TimeStep, Transition, WorldModel

LIMIT = 1e4  # in the units of the observation: far beyond any task's, well below where squares overflow
Policy = Callable[[Key, Array], Array]  # (key, obs [O]) -> action [A]


class Dream(NamedTuple):
    """The state of an imagined environment.

    Attributes:
        belief: the model's state.
        steps: int32 S, imagined since the start.
        broken: bool S, the model predicted something that is not finite or beyond the limit.
    """

    belief: PyTree
    steps: Array
    broken: Array


def make(
    spec: Spec,
    model: WorldModel,
    params: PyTree,
    begin: Callable[[Key], PyTree],
    *,
    horizon: int | Array,
    limit: float | Array = LIMIT,
) -> Environment:
    """Make an environment of a model and its parameters.

    - An episode *terminates* where the model's predicted chance to go on is below one half: no imagined step crosses
      that. (A game's discount of -1, which swaps players, is none of these chances and is not supported.)
    - It is *truncated* after ``horizon`` steps: value lies beyond.
    - It is truncated, and marked as ``broken``, where a prediction is not finite or an entry of the observation
      exceeds ``limit``. The step then keeps the belief and the observation of before and gives no reward, so that
      nothing wild reaches a learner.

    Args:
        spec: of the environment that is imagined; where the model's features are not its observations, the known
            reward, termination and angles are dropped.
        model: any world model; its features are what is observed.
        params: the model's, may be traced.
        begin: ``(key) -> belief`` to start from, such as a replayed observation (see `replayed`), or for the true
            simulator its ``reset``.
        horizon: steps of an episode, at least 1; int32 [] where it is scheduled.
        limit: [] or [O], the greatest absolute observation that is believed.

    Raises:
        ConfigError: ``horizon`` is below 1.
    """
    if not isinstance(horizon, jax.Array):
        check_count("horizon", horizon)
    belief = jax.eval_shape(begin, jax.random.key(0))
    features = jax.eval_shape(model.features, params, belief)

    def reset(key: Key) -> TimeStep:
        belief = strong_types(begin(key))
        obs = model.features(params, belief)
        shape = obs.shape[: obs.ndim - 1]
        no = jnp.zeros(shape, bool)
        return TimeStep(Dream(belief, jnp.zeros(shape, jnp.int32), no), obs, jnp.zeros(shape), no, no)

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        before = timestep.state
        belief, prediction = model.step(params, key, before.belief, action)
        obs = model.features(params, belief)
        sound = jnp.all(jnp.abs(obs) <= limit, axis=-1)  # what is not a number is not
        sound &= jnp.isfinite(prediction.reward) & jnp.isfinite(prediction.discount)
        terminated = sound & (prediction.discount < 0.5)
        steps = before.steps + 1
        return TimeStep(
            state=Dream(choose(sound, belief, before.belief), steps, ~sound),
            obs=choose(sound, obs, timestep.obs),
            reward=jnp.where(sound, prediction.reward, 0.0),
            terminated=terminated,
            truncated=(~sound | (steps >= horizon)) & ~terminated,
        )

    return Environment(_spec(spec, features, horizon), reset, step)


def replayed(obs: Array, shape: tuple[int, ...] = ()) -> Callable[[Key], Array]:
    """Starts that are drawn from observations [N, O], for models whose belief is an observation: ``key -> [*S, O]``."""
    return lambda key: obs[jax.random.randint(key, shape, 0, obs.shape[0])]


def gather(env: Environment, policy: Policy, key: Key, steps: int) -> Transition:
    """Let a policy act for ``steps`` steps, from fresh starts and with a fresh start after each end.

    Args:
        env: an imagined environment of beliefs of shape S.
        policy: acts on one observation.
        key: consumed.
        steps: T.

    Returns:
        Transitions with axes [B, T], where B is the size of S (1 for ()), oldest step first. Their ``extras`` are bool,
        where the model broke.
    """
    key_reset, key_steps = jax.random.split(key)
    first = env.reset(key_reset)
    shape = first.reward.shape
    act = policy
    for _ in shape:
        act = jax.vmap(act)

    def step(timestep: TimeStep, key: Key) -> tuple[TimeStep, Transition]:
        timestep = sharding.split(timestep, len(shape) - 1) if shape else timestep
        key_act, key_env, key_reset = jax.random.split(key, 3)
        action = act(jax.random.split(key_act, shape) if shape else key_act, timestep.obs)
        after = env.step(key_env, timestep, action)
        end = after.terminated, after.truncated
        transition = Transition(timestep.obs, action, after.reward, after.obs, *end, extras=after.state.broken)
        return choose(after.terminated | after.truncated, env.reset(key_reset), after), transition

    transitions = jax.lax.scan(step, first, jax.random.split(key_steps, steps))[1]
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf.reshape((steps, -1, *leaf.shape[1 + len(shape) :])), 0, 1), transitions
    )


def choose(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Choose between two trees by a boolean of shape S; every leaf is [*S, ...]."""

    def one(yes: Array, no: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - condition.ndim)), yes, no)

    return jax.tree.map(one, on_true, on_false)


def _spec(spec: Spec, features: jax.ShapeDtypeStruct, horizon: int | Array) -> Spec:
    seen = jax.ShapeDtypeStruct(features.shape[-1:], features.dtype)
    if isinstance(horizon, int):
        spec = spec._replace(episode_length=horizon)
    if seen == spec.observation:
        return spec
    return spec._replace(observation=seen, reward=None, termination=None, angles=())
