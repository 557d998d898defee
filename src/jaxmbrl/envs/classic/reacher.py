"""Reacher: bring the tip of a two-link arm, which lies in a horizontal plane, to a random target."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.envs.classic.task import Task, box, runge_kutta
from jaxmbrl.types import Array, Key

SUBSTEPS = 2  # at 6 rad/s one Runge-Kutta step of 0.05 s errs by 1e-3 (median of random states), two by 1e-4


class Params(NamedTuple):
    """Physical parameters; the links are uniform rods.

    Attributes:
        mass_1: of the inner link, kg.
        mass_2: of the outer link, kg.
        length_1: of the inner link, m.
        length_2: of the outer link, m.
        damping: of each joint, N m s/rad.
        torque: at action 1, on each joint, N m.
        dt: time of a step, s.
    """

    mass_1: float = 0.5
    mass_2: float = 0.5
    length_1: float = 0.5
    length_2: float = 0.5
    damping: float = 0.1
    torque: float = 0.5
    dt: float = 0.05


def initial(params: Params, key: Key) -> Array:
    """Stretched along x and almost at rest; the target is uniform over the ring that the tip can reach.

    State: [6], the inner link's angle from the x axis, the outer link's angle from the inner one (rad), their
    velocities (rad/s), and the target's x and y (m).
    """
    key_joints, key_radius, key_direction = jax.random.split(key, 3)
    joints = jax.random.uniform(key_joints, (4,), minval=-0.1, maxval=0.1)
    nearest, farthest = abs(params.length_1 - params.length_2), params.length_1 + params.length_2
    radius = jnp.sqrt(jax.random.uniform(key_radius, minval=nearest**2, maxval=farthest**2))
    direction = jax.random.uniform(key_direction, minval=-jnp.pi, maxval=jnp.pi)
    return jnp.concatenate([joints, radius * jnp.stack([jnp.cos(direction), jnp.sin(direction)])])


def derivative(params: Params, torques: Array, state: Array) -> Array:
    """Time derivative of the state under torques [2] in N m.

    With the mass matrix M(angles) of two rods, the joints' accelerations solve
    ``M accelerations + coriolis(angles, velocities) + damping velocities = torques``.
    """
    _, angle, spin_1, spin_2, _, _ = state
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    coupling = 0.5 * params.mass_2 * params.length_1 * params.length_2
    outer = params.mass_2 * params.length_2**2 / 3.0
    inner = (params.mass_1 / 3.0 + params.mass_2) * params.length_1**2
    mass_11, mass_12, mass_22 = inner + outer + 2.0 * coupling * cosine, outer + coupling * cosine, outer
    force_1 = torques[0] - params.damping * spin_1 + coupling * sine * spin_2 * (2.0 * spin_1 + spin_2)
    force_2 = torques[1] - params.damping * spin_2 - coupling * sine * spin_1**2
    determinant = mass_11 * mass_22 - mass_12**2
    rate_1 = (mass_22 * force_1 - mass_12 * force_2) / determinant
    rate_2 = (mass_11 * force_2 - mass_12 * force_1) / determinant
    still = jnp.zeros_like(spin_1)
    return jnp.stack([spin_1, spin_2, rate_1, rate_2, still, still])


def dynamics(params: Params, state: Array, action: Array) -> Array:
    """One step under constant torques."""
    torques = params.torque * action
    return runge_kutta(lambda state: derivative(params, torques, state), state, jnp.asarray(params.dt), SUBSTEPS)


def observe(params: Params, state: Array) -> Array:
    """Obs [10].

    Cosines of both angles [2], their sines [2], both velocities (rad/s) [2], the target (m) [2], and the vector from
    the target to the tip (m) [2].
    """
    angles, spins, target = state[:2], state[2:4], state[4:]
    folded = angles[0] + angles[1]
    inner = params.length_1 * jnp.stack([jnp.cos(angles[0]), jnp.sin(angles[0])])
    tip = inner + params.length_2 * jnp.stack([jnp.cos(folded), jnp.sin(folded)])
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), spins, target, tip - target])


def reward(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward -distance - 0.1 |action|^2, with the distance of tip and target after the step in m."""
    del params, obs
    # 1e-12 keeps the gradient finite where the tip is exactly on the target.
    return -jnp.sqrt(jnp.sum(next_obs[8:] ** 2) + 1e-12) - 0.1 * jnp.sum(action**2)


TASK = Task(
    name="reacher",
    parameters=Params(),
    positive=("mass_1", "mass_2", "length_1", "length_2", "dt"),
    action=box(-1.0, 1.0, size=2),
    episode_length=100,
    initial=initial,
    dynamics=dynamics,
    observe=observe,
    reward=reward,
)
