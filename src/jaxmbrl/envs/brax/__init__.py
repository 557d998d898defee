"""Brax environments, and any Brax ``Env`` of a user's own, as `Environment` records.

Brax takes 7 s to import, so that nothing here imports it before an environment is made. Actions are in [-1, 1]
throughout, Brax's convention: a task whose actuators have another range scales them itself.

Every task runs on ``mjx`` by default, MuJoCo's own physics. ``generalized`` works in joint coordinates, ``spring`` and
``positional`` on free bodies held together, with actuator strengths and time steps of their own (a step of
``inverted_pendulum`` is 0.02 s there, 0.04 s on mjx and generalized), so that an agent trained on one backend does not
fit another: a hopper on ``spring`` is upright after 100 random steps, on mjx and generalized it falls within 20.
``spring`` is the fast one, at two to three times mjx's rate in one environment; mjx gives no reverse-mode gradients
where its solver loops.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError, near
from jaxmbrl.envs.brax.known import TASKS, Task
from jaxmbrl.envs.quiet import quiet
from jaxmbrl.types import Array, Box, Environment, Key, PyTree, RewardFn, Spec, TimeStep

__all__ = [
    "BACKENDS",
    "EPISODE_LENGTH",
    "NAMES",
    "TASKS",
    "Task",
    "episode_length",
    "from_brax",
    "make",
    "options",
    "simulator",
]

BACKENDS: tuple[str, ...] = ("generalized", "mjx", "positional", "spring")
NAMES: tuple[str, ...] = tuple(f"brax/{name}" for name in TASKS)
EPISODE_LENGTH = 1000


def episode_length(name: str) -> int:
    """Steps of an episode by default: Gymnasium's of the same task."""
    return TASKS[name.removeprefix("brax/")].episode_length


def options(name: str) -> dict[str, Any]:
    """What `make` takes for a task besides its episode length, with the defaults; needs no Brax.

    Ranges (``healthy_z_range``) and the rest of what the Brax class takes may be given too, but only in Python.
    """
    task = TASKS[name.removeprefix("brax/")]
    own = {key: value for key, value in task.reward_settings.items() if key != "control_range"}
    return {"backend": task.backend, **({"forward_velocity": True} if task.forward else {}), **own}


def make(
    name: str,
    *,
    backend: str | None = None,
    episode_length: int | None = None,
    forward_velocity: bool = True,
    **options: Any,
) -> Environment:
    """Make a Brax environment, as yet without a time limit.

    Args:
        name: one of `NAMES`, with or without ``brax/``.
        backend: one of `BACKENDS`; None takes the task's default (see the module's docstring).
        episode_length: steps; None takes Gymnasium's length of the task.
        forward_velocity: observe the forward velocity of the running tasks, which makes their reward known.
            Without it observations are Brax's own and a model has to learn the reward.
        **options: what the Brax class takes, for instance ``ctrl_cost_weight``; known rewards follow suit.

    Raises:
        ConfigError: an unknown name, backend or option.
    """
    env = simulator(name, backend=backend, **options)
    name = name.removeprefix("brax/")
    task = TASKS[name]
    # A fall that does not end the episode is paid for inside Brax's reward, so that the known functions do not hold.
    known = options.get("terminate_when_unhealthy", True)
    forward = task.forward and forward_velocity
    return from_brax(
        env,
        name=f"brax/{name}",
        episode_length=task.episode_length if episode_length is None else episode_length,
        reward=_bind(task.reward, task.reward_settings, options) if known and forward == task.forward else None,
        termination=_bind(task.termination, task.termination_settings, options) if known else None,
        angles=task.angles,
        observe=_observe_forward if forward else _observe,
    )


def simulator(name: str, *, backend: str | None = None, **options: Any) -> Any:
    """The Brax ``Env`` itself, for its geometry and its own reward.

    Args:
        name: one of `NAMES`, with or without ``brax/``.
        backend: one of `BACKENDS`, or None.
        **options: what the Brax class takes.

    Raises:
        ConfigError: an unknown name, backend or option.
    """
    name = name.removeprefix("brax/")
    if name == "swimmer":
        raise ConfigError("env: got 'brax/swimmer', which does not run on current jax; needs another environment")
    if name not in TASKS:
        raise ConfigError(f"env: got 'brax/{name}', needs one of {', '.join(NAMES)}{near(name, TASKS)}")
    if backend is not None and backend not in BACKENDS:
        raise ConfigError(f"env.backend: got {backend!r}, needs one of {', '.join(BACKENDS)}{near(backend, BACKENDS)}")
    if not options.get("exclude_current_positions_from_observation", True):
        raise ConfigError(
            "env.exclude_current_positions_from_observation: got False, needs True (adapt such an Env with from_brax)"
        )
    with quiet():
        from brax import envs

        accepted = {**inspect.signature(envs._envs[name]).parameters, "n_frames": None}
        accepted = [option for option in accepted if option not in ("backend", "kwargs")]
        for option in options:
            if option not in accepted:
                raise ConfigError(
                    f"env.{option}: no such option{near(option, accepted)}; brax/{name} takes {', '.join(accepted)}"
                )
        return envs.get_environment(name, backend=backend or TASKS[name].backend, **options)


def from_brax(
    env: Any,
    *,
    name: str = "brax",
    episode_length: int = 1000,
    reward: RewardFn | None = None,
    termination: RewardFn | None = None,
    angles: tuple[int, ...] = (),
    observe: Callable[[Any], PyTree] | None = None,
) -> Environment:
    """Adapt any Brax ``Env``, as yet without a time limit.

    ``TimeStep.state`` is the Brax ``State``. Known functions are the one source of truth: where they are given, the
    environment's own reward and termination are computed by them.

    Args:
        env: a bare Brax ``Env``, whose actions are in [-1, 1].
        name: the name shown to users.
        episode_length: steps after which an episode is truncated.
        reward: known reward of (obs, action, next_obs), or None for the Env's own.
        termination: known termination, bool [], or None for the Env's ``done``.
        angles: indices of the observation that are unbounded angles, rad.
        observe: ``(brax State) -> observation``; None takes the State's ``obs``.

    Raises:
        ConfigError: ``env`` is wrapped for Brax's own training, or ``episode_length`` is not positive.
    """
    if episode_length < 1:
        raise ConfigError(f"env.episode_length: got {episode_length}, needs at least 1")
    with quiet():
        from brax.envs.wrappers import training
    if isinstance(env, training.AutoResetWrapper | training.EpisodeWrapper | training.VmapWrapper):
        raise ConfigError(f"env: got a Brax {type(env).__name__}, needs the Env inside it (its `unwrapped`)")
    observe = observe or _observe
    reset = functools.partial(_reset, env, observe)
    spec = Spec(
        name=name,
        observation=jax.eval_shape(lambda key: reset(key).obs, jax.random.key(0)),
        action=Box(np.full(env.action_size, -1.0, np.float32), np.full(env.action_size, 1.0, np.float32)),
        episode_length=episode_length,
        reward=reward,
        termination=termination,
        angles=angles,
    )
    return Environment(spec, reset, functools.partial(_step, env, observe, reward, termination))


def _reset(env: Any, observe: Callable[[Any], PyTree], key: Key) -> TimeStep:
    state = _strong(env.reset(key))
    never = jnp.zeros((), jnp.bool_)
    return TimeStep(state, _strong(observe(state)), jnp.zeros((), jnp.float32), never, never)


def _step(
    env: Any,
    observe: Callable[[Any], PyTree],
    reward: RewardFn | None,
    termination: RewardFn | None,
    key: Key,
    timestep: TimeStep,
    action: Array,
) -> TimeStep:
    del key  # Brax's physics is deterministic, or keeps a key in its state
    # Brax writes metrics into the dictionary it is given: mapping over the tree hands it a copy.
    before = jax.tree.map(lambda leaf: leaf, timestep.state)
    after = jax.tree.map(_cast, env.step(before, action), timestep.state)
    obs = _strong(observe(after))
    paid = reward(timestep.obs, action, obs) if reward else after.reward
    ended = termination(timestep.obs, action, obs) if termination else after.done != 0
    return TimeStep(after, obs, jnp.asarray(paid, jnp.float32), jnp.asarray(ended, jnp.bool_), timestep.truncated)


def _observe(state: Any) -> PyTree:
    return state.obs


def _observe_forward(state: Any) -> Array:
    """Brax's observation and the step's mean forward velocity, m/s; [O + 1]."""
    return jnp.append(state.obs, state.metrics["x_velocity"])


def _bind(function: Callable[..., Array] | None, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """The task's function under Brax's defaults and the user's options."""
    if function is None:
        return None
    chosen = {**settings, **{name: value for name, value in options.items() if name in settings}}
    return functools.partial(function, **chosen) if chosen else function


def _strong(tree: PyTree) -> PyTree:
    """Give each leaf a strong type: a weakly typed scan carry compiles twice."""
    return jax.tree.map(lambda leaf: _cast(leaf, leaf), tree)


def _cast(leaf: Any, like: Any) -> Array:
    """``leaf`` with the dtype of ``like``; typed keys stay as they are."""
    dtype = jnp.result_type(like)
    return leaf if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, dtype)
