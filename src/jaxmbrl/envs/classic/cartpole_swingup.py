"""Cart-pole swing-up: bring a hanging pole upright above the middle of the track, and hold it there.

The masses, the length and the friction are those of Deisenroth 2010 ("Efficient Reinforcement Learning using Gaussian
Processes", appendix C), which PETS and its successors took over; the reward is that of PETS (Chua et al. 2018,
arXiv:1805.12114). Differs from the paper: 0.04 s a step rather than 0.1 s, so that 200 steps are 8 s of which a good
controller spends less than 1 s swinging up; actions in [-1, 1] are scaled to newtons by ``force``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.envs.classic.task import Task, box, runge_kutta
from jaxmbrl.types import Array, Key

SUBSTEPS = 2  # at 7 rad/s one Runge-Kutta step of 0.04 s errs by up to 3e-3, two by 2e-4


class Params(NamedTuple):
    """Physical parameters.

    Attributes:
        gravity: m/s^2.
        mass_cart: kg.
        mass_pole: kg, uniform along the pole.
        pole_length: from the hinge to the tip, m.
        force: at action 1, N.
        friction: between cart and track, N s/m.
        dt: time of a step, s.
    """

    gravity: float = 9.82
    mass_cart: float = 0.5
    mass_pole: float = 0.5
    pole_length: float = 0.6
    force: float = 10.0
    friction: float = 0.1
    dt: float = 0.04


def initial(params: Params, key: Key) -> Array:
    """Hanging, almost at rest. State: [4], position (m), velocity, angle from upright (rad), angular velocity."""
    del params
    return jnp.array([0.0, 0.0, jnp.pi, 0.0]) + 0.1 * jax.random.normal(key, (4,))


def derivative(params: Params, force: Array, state: Array) -> Array:
    """Time derivative of the state under a force in N, by the Lagrangian of a cart and a uniform rod.

    With the rod's centre of mass half-way (l / 2) and angle a from upright, positive towards +x:

        (M + m) x'' + (m l / 2) (a'' cos a - a'^2 sin a) = force - friction x'
        (m l^2 / 3) a'' + (m l / 2) (x'' cos a - g sin a) = 0
    """
    _, velocity, angle, spin = state
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass = params.mass_cart + params.mass_pole
    net_force = force - params.friction * velocity + 0.5 * params.mass_pole * params.pole_length * spin**2 * sine
    acceleration = (net_force - 0.75 * params.mass_pole * params.gravity * sine * cosine) / (
        mass - 0.75 * params.mass_pole * cosine**2
    )
    spin_rate = 1.5 / params.pole_length * (params.gravity * sine - acceleration * cosine)
    return jnp.stack([velocity, acceleration, spin, spin_rate])


def dynamics(params: Params, state: Array, action: Array) -> Array:
    """One step under a constant force."""
    force = params.force * action[0]
    return runge_kutta(lambda state: derivative(params, force, state), state, jnp.asarray(params.dt), SUBSTEPS)


def observe(params: Params, state: Array) -> Array:
    """Obs [5]: position (m), velocity (m/s), sine and cosine of the angle, angular velocity (rad/s)."""
    del params
    position, velocity, angle, spin = state
    return jnp.stack([position, velocity, jnp.sin(angle), jnp.cos(angle), spin])


def reward(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward exp(-distance^2 / pole_length^2) - 0.01 action^2.

    The distance is from the pole's tip after the step to the point one pole length above the middle of the track.
    """
    del obs
    return _near(params, jnp.zeros(()), action, next_obs)


def right(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """As `reward`, above the point of the track that is 1 m right of its middle."""
    del obs
    return _near(params, jnp.ones(()), action, next_obs)


def _near(params: Params, place: Array, action: Array, next_obs: Array) -> Array:
    position, _, sine, cosine, _ = next_obs
    square = (position - place + params.pole_length * sine) ** 2 + (params.pole_length * (cosine - 1.0)) ** 2
    return jnp.exp(-square / params.pole_length**2) - 0.01 * action[0] ** 2


TASK = Task(
    name="cartpole_swingup",
    parameters=Params(),
    positive=("mass_cart", "mass_pole", "pole_length", "dt"),
    action=box(-1.0, 1.0),
    episode_length=200,
    initial=initial,
    dynamics=dynamics,
    observe=observe,
    reward=reward,
    others={"right": right},
)
