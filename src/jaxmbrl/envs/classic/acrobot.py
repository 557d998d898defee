"""Acrobot: swing the tip of a two-link chain above a line, as Gymnasium's Acrobot-v1, with a continuous torque."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.envs.classic.task import Task, box, runge_kutta, wrap_angle
from jaxmbrl.types import Array, Key


class Params(NamedTuple):
    """Physical parameters.

    Attributes:
        gravity: m/s^2.
        mass_1: of the inner link, kg.
        mass_2: of the outer link, kg.
        length_1: of the inner link, m.
        center_1: from the inner link's joint to its centre of mass, m.
        center_2: from the outer link's joint to its centre of mass, m.
        inertia: of each link about its centre of mass, kg m^2.
        torque: at action 1, on the joint between the links, N m.
        max_speed_1: of the inner link, rad/s.
        max_speed_2: of the outer link, rad/s.
        dt: time of a step, s.
    """

    gravity: float = 9.8
    mass_1: float = 1.0
    mass_2: float = 1.0
    length_1: float = 1.0
    center_1: float = 0.5
    center_2: float = 0.5
    inertia: float = 1.0
    torque: float = 1.0
    max_speed_1: float = 12.566371  # 4 pi
    max_speed_2: float = 28.274334  # 9 pi
    dt: float = 0.2


def initial(params: Params, key: Key) -> Array:
    """Hanging, almost at rest.

    State: [4], the inner link's angle from hanging, the outer link's angle from the inner one (rad), and their
    velocities (rad/s).
    """
    del params
    return jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)


def derivative(params: Params, torque: Array, state: Array) -> Array:
    """Time derivative of the state under a torque in N m.

    Source: Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, on the acrobot.
    """
    angle_1, angle_2, spin_1, spin_2 = state
    sine_2, cosine_2 = jnp.sin(angle_2), jnp.cos(angle_2)
    coupling = params.mass_2 * params.length_1 * params.center_2
    outer = params.mass_2 * params.center_2**2 + params.inertia
    inner = params.mass_1 * params.center_1**2 + params.mass_2 * params.length_1**2 + params.inertia
    mass_11 = inner + outer + 2.0 * coupling * cosine_2
    mass_12 = outer + coupling * cosine_2
    # Gravity and velocity terms, on the left of: masses x accelerations + terms = torques.
    weight_2 = params.mass_2 * params.center_2 * params.gravity * jnp.sin(angle_1 + angle_2)
    weight_1 = (params.mass_1 * params.center_1 + params.mass_2 * params.length_1) * params.gravity * jnp.sin(angle_1)
    term_1 = -coupling * sine_2 * spin_2 * (spin_2 + 2.0 * spin_1) + weight_1 + weight_2
    term_2 = coupling * sine_2 * spin_1**2 + weight_2
    rate_2 = (torque + mass_12 / mass_11 * term_1 - term_2) / (outer - mass_12**2 / mass_11)
    rate_1 = -(mass_12 * rate_2 + term_1) / mass_11
    return jnp.stack([spin_1, spin_2, rate_1, rate_2])


def dynamics(params: Params, state: Array, action: Array) -> Array:
    """One Runge-Kutta step under a constant torque; angles are wrapped and velocities clipped."""
    torque = params.torque * action[0]
    state = runge_kutta(lambda state: derivative(params, torque, state), state, jnp.asarray(params.dt))
    limit = jnp.stack([jnp.asarray(params.max_speed_1), jnp.asarray(params.max_speed_2)])
    return jnp.concatenate([wrap_angle(state[:2]), jnp.clip(state[2:], -limit, limit)])


def observe(params: Params, state: Array) -> Array:
    """Obs [6]: cosine and sine of the first angle, cosine and sine of the second, both velocities (rad/s)."""
    del params
    angles = state[:2]
    return jnp.concatenate([jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1).reshape(4), state[2:]])


def reward(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward -1 for every step that does not reach the line."""
    return jnp.where(termination(params, obs, action, next_obs), 0.0, -1.0)


def termination(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Whether the tip is more than 1 above the hinge, in units of a link's length."""
    del params, obs, action
    cosine_1, sine_1, cosine_2, sine_2, _, _ = next_obs
    height = -cosine_1 - (cosine_1 * cosine_2 - sine_1 * sine_2)
    return height > 1.0


TASK = Task(
    name="acrobot",
    parameters=Params(),
    positive=("mass_1", "mass_2", "length_1", "center_1", "center_2", "inertia", "max_speed_1", "max_speed_2", "dt"),
    action=box(-1.0, 1.0),
    episode_length=500,
    initial=initial,
    dynamics=dynamics,
    observe=observe,
    reward=reward,
    termination=termination,
)
