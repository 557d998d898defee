"""Transformations of an Environment into an Environment, and the auto-reset step that gathers experience."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.types import Array, Environment, Key, PyTree, RewardFn, TimeStep, Transition


class Timed(NamedTuple):
    """The state of an environment with a time limit.

    Attributes:
        inner: the simulator's own state.
        steps: int32 [], taken since the reset.
    """

    inner: PyTree
    steps: Array


class Encoded(NamedTuple):
    """The state of an environment whose observation is shown in another form.

    Attributes:
        inner: the simulator's own state.
        obs: [O], the observation in its own form.
    """

    inner: PyTree
    obs: Array


def select(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Choose one of two trees of the same shapes by one boolean, both having been computed (``vmap`` would anyway)."""
    return jax.tree.map(functools.partial(jnp.where, condition), on_true, on_false)


def strong_types(tree: PyTree) -> PyTree:
    """The same values as arrays of strong types.

    A weakly typed leaf (a bare ``0.0``) in the first carry of a loop turns strong in the second, and the whole loop
    compiles again.
    """

    def strong(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)


def shapes(function: Callable[..., PyTree], *arguments: Any) -> PyTree:
    """Shape and dtype of what a function returns, as a ``Spec`` has them: without a mark of weak types."""
    traced = jax.eval_shape(function, *arguments)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), traced)


def strongly_typed(env: Environment) -> Environment:
    """Make an environment fit to be carried through a scan.

    Every leaf of a TimeStep gets a strong type: rewards float32, both ends bool, everything else the type that it
    has after a reset.
    """
    first = shapes(lambda key: _standard(env.reset(key)), jax.random.key(0))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        after = _standard(env.step(key, timestep, action))
        return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), after, first)

    return env._replace(reset=lambda key: _standard(env.reset(key)), step=step)


def _standard(timestep: TimeStep) -> TimeStep:
    return strong_types(timestep)._replace(
        reward=jnp.asarray(timestep.reward, jnp.float32),
        terminated=jnp.asarray(timestep.terminated, bool),
        truncated=jnp.asarray(timestep.truncated, bool),
    )


def time_limit(env: Environment, length: int) -> Environment:
    """Truncate episodes after ``length`` steps, except where they terminate at that very step.

    Args:
        env: an environment whose episodes may go on for longer.
        length: steps of an episode, at least 1.

    Raises:
        ConfigError: ``length`` is below 1.
    """
    check_count("episode_length", length)

    def reset(key: Key) -> TimeStep:
        timestep = env.reset(key)
        return timestep._replace(state=Timed(timestep.state, jnp.zeros((), jnp.int32)))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        steps = timestep.state.steps + 1
        after = env.step(key, timestep._replace(state=timestep.state.inner), action)
        truncated = (after.truncated | (steps >= length)) & ~after.terminated
        return after._replace(state=Timed(after.state, steps), truncated=truncated)

    return Environment(env.spec._replace(episode_length=length), reset, step)


def action_repeat(env: Environment, repeats: int) -> Environment:
    """Take every action ``repeats`` times, and sum the rewards up to the end of the episode.

    The sum of rewards is no function of the first and the last observation, so the known rewards are dropped (where
    ``repeats`` > 1). The known termination stays: it has to judge by ``next_obs`` alone, as all of this package's do.

    Args:
        env: an environment; put the time limit outside.
        repeats: at least 1.

    Raises:
        ConfigError: ``repeats`` is below 1.
    """
    check_count("action_repeat", repeats)
    if repeats == 1:
        return env

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        def again(before: TimeStep, key: Key) -> tuple[TimeStep, None]:
            after = env.step(key, before, action)
            after = after._replace(reward=before.reward + after.reward)
            return select(before.terminated | before.truncated, before, after), None

        first = timestep._replace(reward=jnp.zeros_like(timestep.reward))
        return jax.lax.scan(again, first, jax.random.split(key, repeats))[0]

    never_terminates = env.spec.reward is not None and env.spec.termination is None
    spec = env.spec._replace(
        episode_length=-(-env.spec.episode_length // repeats),
        reward=None,
        tasks={},
        termination=_never if never_terminates else env.spec.termination,
    )
    return Environment(spec, env.reset, step)


def _never(obs: Array, action: Array, next_obs: Array) -> Array:
    del obs, action, next_obs
    return jnp.zeros((), bool)


def frame_stack(env: Environment, frames: int) -> Environment:
    """Show the last observations together along the last axis, oldest first: [O] as [frames O], pictures as channels.

    After a reset all of them are the first one. Known reward and termination go on working: they see the latest.

    Args:
        env: an environment whose observations have axes (any tree of them).
        frames: at least 1.

    Raises:
        ConfigError: ``frames`` is below 1, or an observation is a scalar.
    """
    check_count("frame_stack", frames)
    if frames == 1:
        return env
    spec = env.spec
    if any(not leaf.shape for leaf in jax.tree.leaves(spec.observation)):
        raise ConfigError(f"frame_stack: got {frames}, needs 1 where an observation is a scalar")

    def latest(obs: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf, one: leaf[..., -one.shape[-1] :], obs, spec.observation)

    def push(obs: PyTree, new: PyTree) -> PyTree:
        return jax.tree.map(lambda old, leaf: jnp.concatenate([old[..., leaf.shape[-1] :], leaf], -1), obs, new)

    def known(function: RewardFn | None) -> RewardFn | None:
        return function and (lambda obs, action, next_obs: function(latest(obs), action, latest(next_obs)))

    def reset(key: Key) -> TimeStep:
        timestep = env.reset(key)
        return timestep._replace(obs=jax.tree.map(lambda leaf: jnp.concatenate([leaf] * frames, -1), timestep.obs))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        after = env.step(key, timestep._replace(obs=latest(timestep.obs)), action)
        return after._replace(obs=push(timestep.obs, after.obs))

    wide = spec._replace(
        observation=jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((*leaf.shape[:-1], frames * leaf.shape[-1]), leaf.dtype), spec.observation
        ),
        reward=known(spec.reward),
        termination=known(spec.termination),
        tasks={name: known(function) for name, function in spec.tasks.items()},
        angles=tuple(index + spec.obs_size * frame for frame in range(frames) for index in spec.angles),
    )
    return Environment(wide, reset, step)


def sin_cos(env: Environment, indices: tuple[int, ...] | None = None) -> Environment:
    """Show the sine and the cosine of angles instead of the angles, each pair in the place of its angle.

    Known reward and termination go on working: they see the angle within [-pi, pi] that the pair stands for.

    Args:
        env: an environment whose observation is one vector, [O].
        indices: of the angles (rad) among O; by default all of ``env.spec.angles``.

    Returns:
        An environment with observations [O + len(indices)].

    Raises:
        ConfigError: an index is outside the observation.
    """
    spec, size = env.spec, env.spec.obs_size
    indices = tuple(sorted(set(spec.angles if indices is None else indices)))
    if any(index < 0 or index >= size for index in indices):
        raise ConfigError(f"indices: got {indices}, needs indices of an observation of {size} entries")
    is_angle = np.isin(np.arange(size), indices)
    starts = np.arange(size) + np.cumsum(is_angle) - is_angle  # where each old entry, or its sine, is now
    kept, sines = starts[~is_angle], starts[is_angle]
    # Gathers rather than scatters, which are slow on CPUs: lay out the parts, then put them in order.
    to_wide = np.argsort(np.concatenate([kept, sines, sines + 1]))
    to_narrow = np.argsort(np.concatenate([np.flatnonzero(~is_angle), np.flatnonzero(is_angle)]))

    def encode(obs: Array) -> Array:
        angles = obs[is_angle]
        return jnp.concatenate([obs[~is_angle], jnp.sin(angles), jnp.cos(angles)])[to_wide]

    def decode(wide: Array) -> Array:
        return jnp.concatenate([wide[kept], jnp.arctan2(wide[sines], wide[sines + 1])])[to_narrow]

    def known(function: RewardFn | None) -> RewardFn | None:
        return function and (lambda obs, action, next_obs: function(decode(obs), action, decode(next_obs)))

    def reset(key: Key) -> TimeStep:
        timestep = env.reset(key)
        return timestep._replace(state=Encoded(timestep.state, timestep.obs), obs=encode(timestep.obs))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        inside = timestep._replace(state=timestep.state.inner, obs=timestep.state.obs)
        after = env.step(key, inside, action)
        return after._replace(state=Encoded(after.state, after.obs), obs=encode(after.obs))

    spec = spec._replace(
        observation=jax.ShapeDtypeStruct((size + len(indices),), spec.observation.dtype),
        reward=known(spec.reward),
        termination=known(spec.termination),
        tasks={name: known(function) for name, function in spec.tasks.items()},
        angles=tuple(int(starts[index]) for index in spec.angles if index not in indices),
    )
    return Environment(spec, reset, step)


def auto_reset(env: Environment) -> Callable[[Key, TimeStep, Array], tuple[Transition, TimeStep]]:
    """Bind `auto_reset_step` to an environment."""
    return functools.partial(auto_reset_step, env)


def auto_reset_step(env: Environment, key: Key, timestep: TimeStep, action: Array) -> tuple[Transition, TimeStep]:
    """Step, and where that ended the episode, start another one from a fresh random state.

    The reset is computed at every step, since under ``vmap`` a conditional would compute it anyway.

    Args:
        env: the environment.
        key: for the step and the reset.
        timestep: of an episode that has not ended.
        action: [A].

    Returns:
        transition: what happened; its ``next_obs`` is the true next observation, also at the end of an episode.
        timestep: what to act on next: the step's, or a reset one. An episode's last state is never acted on.
    """
    key_step, key_reset = jax.random.split(key)
    after = env.step(key_step, timestep, action)
    transition = Transition(timestep.obs, action, after.reward, after.obs, after.terminated, after.truncated)
    return transition, select(after.terminated | after.truncated, env.reset(key_reset), after)


def check_count(field: str, value: Any) -> None:
    """Raise a ConfigError that names the field unless ``value`` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{field}: got {value!r}, needs a whole number of at least 1")
