"""Cart-pole: keep a pole upright on a cart, as Gymnasium's CartPole-v1, but with a continuous force."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.envs.classic.task import Task, box
from jaxmbrl.types import Array, Key


class Params(NamedTuple):
    """Physical parameters.

    Attributes:
        gravity: m/s^2.
        mass_cart: kg.
        mass_pole: kg.
        half_length: from the hinge to the pole's centre of mass, m.
        force: at action 1, N.
        max_position: the episode terminates beyond it, m.
        max_angle: the episode terminates beyond it, rad.
        dt: time of a step, s.
    """

    gravity: float = 9.8
    mass_cart: float = 1.0
    mass_pole: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    max_position: float = 2.4
    max_angle: float = 0.20943951  # 12 degrees
    dt: float = 0.02


def initial(params: Params, key: Key) -> Array:
    """Near rest. State: [4], position (m), velocity, angle from upright (rad), angular velocity."""
    del params
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def dynamics(params: Params, state: Array, action: Array) -> Array:
    """A uniform pole on a frictionless cart; explicit Euler.

    Source: Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control
    problems", appendix, without friction.
    """
    _, velocity, angle, spin = state
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass = params.mass_cart + params.mass_pole
    moment = params.mass_pole * params.half_length
    push = (params.force * action[0] + moment * spin**2 * sine) / mass
    spin_rate = (params.gravity * sine - cosine * push) / (
        params.half_length * (4.0 / 3.0 - params.mass_pole * cosine**2 / mass)
    )
    acceleration = push - moment * spin_rate * cosine / mass
    return state + params.dt * jnp.stack([velocity, acceleration, spin, spin_rate])


def observe(params: Params, state: Array) -> Array:
    """Obs [4]: the state itself."""
    del params
    return state


def reward(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Reward 1 for every step, the terminating one included."""
    del params, obs, action, next_obs
    return jnp.ones(())


def termination(params: Params, obs: Array, action: Array, next_obs: Array) -> Array:
    """Whether the cart left its track or the pole fell."""
    del obs, action
    return (jnp.abs(next_obs[0]) > params.max_position) | (jnp.abs(next_obs[2]) > params.max_angle)


TASK = Task(
    name="cartpole",
    parameters=Params(),
    positive=("mass_cart", "mass_pole", "half_length", "max_position", "max_angle", "dt"),
    action=box(-1.0, 1.0),
    episode_length=200,
    initial=initial,
    dynamics=dynamics,
    observe=observe,
    reward=reward,
    termination=termination,
    angles=(2,),
)
