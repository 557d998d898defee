"""Mountain car: rock an underpowered car out of a valley, as Gymnasium's MountainCarContinuous-v0."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.envs.classic.task import Task, box
from jaxmbrl.types import Array, Key

MIN_POSITION, MAX_POSITION = -1.2, 0.6  # the track is the height sin(3 x) between these; a wall at the left


class Params(NamedTuple):
    """Physical parameters; lengths are in the task's own unit, times in steps.

    Attributes:
        gravity: acceleration down the steepest slope, 1/step^2.
        power: acceleration at action 1, 1/step^2.
        max_speed: the velocity is clipped to it, 1/step.
        goal_position: where the episode terminates.
        goal_velocity: that it needs at least there, 1/step.
    """

    gravity: float = 0.0025
    power: float = 0.0015
    max_speed: float = 0.07
    goal_position: float = 0.45
    goal_velocity: float = 0.0


def initial(params: Params, key: Key) -> Array:
    """At rest near the bottom. State: [2], position and velocity."""
    del params
    return jnp.stack([jax.random.uniform(key, minval=-0.6, maxval=-0.4), jnp.zeros(())])


def dynamics(params: Params, state: Array, action: Array) -> Array:
    """Semi-implicit Euler, with speed and position clipped; the left wall stops the car."""
    position, velocity = state
    velocity = velocity + params.power * action[0] - params.gravity * jnp.cos(3.0 * position)
    velocity = jnp.clip(velocity, -params.max_speed, params.max_speed)
    position = jnp.clip(position + velocity, MIN_POSITION, MAX_POSITION)
    velocity = jnp.where(position <= MIN_POSITION, jnp.maximum(velocity, 0.0), velocity)
    return jnp.stack([position, velocity])


def observe(params: Params, state: Array) -> Array:
    """Obs [2]: the state itself."""
    del params
    return state


def reward(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward 100 at the goal, less 0.1 action^2."""
    return jnp.where(termination(params, obs, action, next_obs), 100.0, 0.0) - 0.1 * action[0] ** 2


def termination(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Whether the car is at the goal, fast enough."""
    del obs, action
    return (next_obs[0] >= params.goal_position) & (next_obs[1] >= params.goal_velocity)


TASK = Task(
    name="mountain_car",
    parameters=Params(),
    positive=("max_speed",),
    action=box(-1.0, 1.0),
    episode_length=999,
    initial=initial,
    dynamics=dynamics,
    observe=observe,
    reward=reward,
    termination=termination,
)
