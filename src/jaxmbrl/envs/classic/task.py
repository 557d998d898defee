"""What the classic tasks share: a row of pure functions, its binding to parameters, and an integrator."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.envs.wrappers import strongly_typed
from jaxmbrl.types import Array, Box, Environment, Key, RewardFn, Spec, TimeStep

USUAL = "usual"  # the reward of a task where the user does not choose another


class Task(NamedTuple):
    """A classic control task: pure functions of physical parameters, which `bind` turns into an Environment.

    Attributes:
        name: as in ``envs.make(name)``.
        parameters: the default physical parameters, a NamedTuple of floats.
        positive: names of the parameters that must be above 0; the others may be any finite number.
        action: bounds of an action; fixed, so whatever scales an action is a parameter.
        episode_length: steps of an episode where the user does not say.
        initial: ``(params, key) -> state [S]``.
        dynamics: ``(params, state [S], action [A]) -> state [S]``.
        observe: ``(params, state [S]) -> obs [O]``.
        reward: ``(params, obs [O], action [A], next_obs [O]) -> []``.
        termination: ``(params, obs [O], action [A], next_obs [O]) -> bool []``, or None where episodes never
            terminate.
        angles: indices of the observation that are angles in radians.
        others: rewards of other tasks in the same world, by name; of the form of ``reward``.
    """

    name: str
    parameters: Any
    positive: tuple[str, ...]
    action: Box
    episode_length: int
    initial: Callable[[Any, Key], Array]
    dynamics: Callable[[Any, Array, Array], Array]
    observe: Callable[[Any, Array], Array]
    reward: Callable[[Any, Array, Array, Array], Array]
    termination: Callable[[Any, Array, Array, Array], Array] | None = None
    angles: tuple[int, ...] = ()
    others: Mapping[str, Callable[[Any, Array, Array, Array], Array]] = MappingProxyType({})

    @property
    def rewards(self) -> dict[str, Callable[[Any, Array, Array, Array], Array]]:
        """All rewards by name, the first one that of the task that names it."""
        return {USUAL: self.reward, **self.others}


def box(low: float, high: float, size: int = 1) -> Box:
    """The same bounds for each of ``size`` action dimensions."""
    return Box(np.full(size, low, np.float32), np.full(size, high, np.float32))


def bind(task: Task, params: Any, reward: str = USUAL) -> Environment:
    """Close a task over physical parameters, any of which may be a tracer, and give the reward of that name.

    `Environment.step` computes its reward and its termination by the very functions that `Spec` shows. Actions are
    clipped to their bounds, before the dynamics and in those functions alike.
    """
    rewards = {
        name: functools.partial(_clipped, function, params, task.action) for name, function in task.rewards.items()
    }
    termination = task.termination and functools.partial(_clipped, task.termination, params, task.action)
    observation = jax.eval_shape(lambda key: task.observe(params, task.initial(params, key)), jax.random.key(0))
    spec = Spec(
        name=task.name,
        observation=jax.ShapeDtypeStruct(observation.shape, observation.dtype),
        action=task.action,
        episode_length=task.episode_length,
        reward=rewards[reward],
        termination=termination,
        angles=task.angles,
        tasks=rewards,
    )
    reset = functools.partial(_reset, task, params)
    return strongly_typed(
        Environment(spec, reset, functools.partial(_step, task, params, rewards[reward], termination))
    )


def _reset(task: Task, params: Any, key: Key) -> TimeStep:
    state = task.initial(params, key)
    return TimeStep(state, task.observe(params, state), jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), bool))


def _step(
    task: Task,
    params: Any,
    reward: RewardFn,
    termination: RewardFn | None,
    key: Key,
    timestep: TimeStep,
    action: Array,
) -> TimeStep:
    del key  # every classic task is deterministic
    chex.assert_shape(action, (task.action.size,))
    state = task.dynamics(params, timestep.state, jnp.clip(action, task.action.low, task.action.high))
    next_obs = task.observe(params, state)
    return TimeStep(
        state=state,
        obs=next_obs,
        reward=reward(timestep.obs, action, next_obs),
        terminated=termination(timestep.obs, action, next_obs) if termination else jnp.zeros((), bool),
        truncated=jnp.zeros((), bool),
    )


def _clipped(
    function: Callable[..., Array], params: Any, box: Box, obs: Array, action: Array, next_obs: Array
) -> Array:
    return function(params, obs, jnp.clip(action, box.low, box.high), next_obs)


def wrap_angle(angle: Array) -> Array:
    """The same direction within [-pi, pi), in radians."""
    return (angle + jnp.pi) % (2.0 * jnp.pi) - jnp.pi


def runge_kutta(derivative: Callable[[Array], Array], state: Array, duration: Array, substeps: int = 1) -> Array:
    """Integrate ``d state / dt = derivative(state)`` with the classical fourth-order Runge-Kutta method.

    Args:
        derivative: ``(state [S]) -> [S]``.
        state: [S].
        duration: [], the time to integrate over, s.
        substeps: equal steps that ``duration`` is divided into.

    Returns:
        The state after ``duration``, [S].
    """
    dt = duration / substeps

    def advance(state: Array, _: None) -> tuple[Array, None]:
        slope_1 = derivative(state)
        slope_2 = derivative(state + 0.5 * dt * slope_1)
        slope_3 = derivative(state + 0.5 * dt * slope_2)
        slope_4 = derivative(state + dt * slope_3)
        return state + dt / 6.0 * (slope_1 + 2.0 * slope_2 + 2.0 * slope_3 + slope_4), None

    # Unrolled: a few small substeps cost less than the overhead of an inner loop.
    return jax.lax.scan(advance, state, None, length=substeps, unroll=True)[0]
