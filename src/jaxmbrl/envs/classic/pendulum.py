"""Pendulum: swing a torque-limited pendulum up and hold it there, as Gymnasium's Pendulum-v1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.envs.classic.task import Task, box, wrap_angle
from jaxmbrl.types import Array, Key


class Params(NamedTuple):
    """Physical parameters.

    Attributes:
        gravity: m/s^2.
        mass: of the rod, kg.
        length: of the rod, m.
        max_speed: the angular velocity is clipped to it, rad/s.
        dt: time of a step, s.
    """

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    max_speed: float = 8.0
    dt: float = 0.05


def initial(params: Params, key: Key) -> Array:
    """Any angle, and an angular velocity within 1 rad/s. State: [2], angle from upright (rad) and its velocity."""
    del params
    bound = jnp.array([jnp.pi, 1.0])
    return jax.random.uniform(key, (2,), minval=-bound, maxval=bound)


def dynamics(params: Params, state: Array, action: Array) -> Array:
    """A rod that is hinged at its end, under a torque in N m; semi-implicit Euler."""
    angle, velocity = state
    inertia = params.mass * params.length**2 / 3.0
    torque = 0.5 * params.mass * params.gravity * params.length * jnp.sin(angle) + action[0]
    velocity = jnp.clip(velocity + torque / inertia * params.dt, -params.max_speed, params.max_speed)
    return jnp.stack([angle + velocity * params.dt, velocity])


def observe(params: Params, state: Array) -> Array:
    """Obs [3]: cosine and sine of the angle, angular velocity (rad/s)."""
    del params
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


def reward(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward of the state *before* the step: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2)."""
    del params, next_obs
    cosine, sine, velocity = obs
    return -(jnp.arctan2(sine, cosine) ** 2 + 0.1 * velocity**2 + 0.001 * action[0] ** 2)


def lean(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """As `reward`, but for an angle of 0.3 rad, which takes three quarters of the greatest torque to hold."""
    del params, next_obs
    cosine, sine, velocity = obs
    return -(wrap_angle(jnp.arctan2(sine, cosine) - 0.3) ** 2 + 0.1 * velocity**2 + 0.001 * action[0] ** 2)


def spin(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Turn at 6 rad/s: -(0.1 (velocity - 6)^2 + 0.001 torque^2), of the state before the step."""
    del params, next_obs
    return -(0.1 * (obs[2] - 6.0) ** 2 + 0.001 * action[0] ** 2)


TASK = Task(
    name="pendulum",
    parameters=Params(),
    positive=("mass", "length", "max_speed", "dt"),
    action=box(-2.0, 2.0),
    episode_length=200,
    initial=initial,
    dynamics=dynamics,
    observe=observe,
    reward=reward,
    others={"lean": lean, "spin": spin},
)
