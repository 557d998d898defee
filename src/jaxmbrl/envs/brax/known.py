"""What is known of Brax's tasks beforehand: rewards and terminations as functions of (obs, action, next_obs).

They are those of ``brax.envs`` 0.14, written on what the environment shows
(after the step, unless said otherwise):

    task                reward reads                                          episodes end at
    inverted_pendulum   nothing: 1 a step                                     |angle, obs[1]| > 0.2 rad
    reacher             tip to target, obs[8:11]                              never
    pusher              wrist, object, goal before the step, obs[14:23]       never
    halfcheetah         forward velocity, obs[-1]                             never
    hopper, walker2d    forward velocity, obs[-1]                             unhealthy height obs[0] or pitch obs[1]
    ant, humanoid       forward velocity, obs[-1]                             unhealthy height obs[0]

Brax pays the five running tasks for the distance covered in a step, which its observation leaves out. As PETS does
for its half-cheetah (Chua et al. 2018, arXiv:1805.12114), we observe the mean forward velocity of the last step (m/s,
0 after a reset) as one more entry behind Brax's own: the torso's, or for humanoid the centre of mass's.

Differs from Brax: hopper goes on where a velocity passes 100, as its observation clips them at 10; ant and humanoid on
mjx test the observed height, Brax the one a physics step (10 ms at most) before; and a height that is not a number
counts as unhealthy everywhere, because a model may imagine one.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmbrl.types import Array


class Task(NamedTuple):
    """One Brax environment as we run it.

    Attributes:
        backend: the physics, unless the user says otherwise.
        episode_length: steps, as in Gymnasium's version of the task.
        forward: whether the forward velocity is observed, for the reward's sake.
        reward: ``(obs, action, next_obs, **settings) -> []``, or None.
        termination: ``(obs, action, next_obs, **settings) -> bool []``, or None.
        reward_settings: keyword arguments of ``reward``: Brax's defaults under Brax's names.
        termination_settings: likewise of ``termination``.
        angles: observed joint angles that neither a joint limit nor a termination bounds.
    """

    backend: str
    episode_length: int = 1000
    forward: bool = False
    reward: Callable[..., Array] | None = None
    termination: Callable[..., Array] | None = None
    reward_settings: Mapping[str, Any] = MappingProxyType({})
    termination_settings: Mapping[str, Any] = MappingProxyType({})
    angles: tuple[int, ...] = ()


def alive_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """1 for every step: the end of the episode is the only penalty."""
    return jnp.ones((), jnp.float32)


def tilt_termination(obs: Array, action: Array, next_obs: Array) -> Array:
    """Whether the pole leans by more than 0.2 rad; bool []."""
    return jnp.abs(next_obs[1]) > 0.2


def reacher_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """- |tip - target| - |action|^2, lengths in m."""
    return -_length(next_obs[8:11]) - jnp.sum(action**2)


def pusher_reward(obs: Array, action: Array, next_obs: Array) -> Array:
    """- |object - goal| - |object - wrist| / 2 - |2 action|^2 / 10, lengths in m; 2 is the actuators' range.

    Brax measures the lengths before the step, hence on ``obs``.
    """
    wrist, thing, goal = obs[14:17], obs[17:20], obs[20:23]
    return -_length(thing - goal) - 0.5 * _length(thing - wrist) - 0.1 * jnp.sum((2.0 * action) ** 2)


def running_reward(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 0.1,
    healthy_reward: float = 0.0,
    control_range: float = 1.0,
) -> Array:
    """``forward_reward_weight velocity + healthy_reward - ctrl_cost_weight |control_range action|^2``.

    Args:
        obs: [O].
        action: [A], in [-1, 1].
        next_obs: [O]; the last entry is the mean forward velocity of the step, m/s.
        forward_reward_weight: reward for 1 m/s.
        ctrl_cost_weight: cost of one unit of squared control.
        healthy_reward: bonus of every step; a fall shows as the episode's end.
        control_range: the actuators' control at action 1.
    """
    cost = ctrl_cost_weight * jnp.sum((control_range * action) ** 2)
    return forward_reward_weight * next_obs[-1] + healthy_reward - cost


def fall_termination(
    obs: Array,
    action: Array,
    next_obs: Array,
    *,
    healthy_z_range: tuple[float, float],
    healthy_angle_range: tuple[float, float] = (-jnp.inf, jnp.inf),
    healthy_state_range: tuple[float, float] = (-jnp.inf, jnp.inf),
) -> Array:
    """Whether the torso is too low, too high, or leans too far; bool [].

    Args:
        obs: [O].
        action: [A].
        next_obs: [O]; entry 0 is the torso's height, m, and entry 1 its pitch, rad, where an angle range is given.
        healthy_z_range: heights between which the episode goes on, m.
        healthy_angle_range: likewise for the pitch, rad.
        healthy_state_range: likewise for entries 1 to 10, joint angles and clipped velocities.
    """
    return ~(
        _between(next_obs[0], healthy_z_range)
        & _between(next_obs[1], healthy_angle_range)
        & jnp.all(_between(next_obs[1:11], healthy_state_range))
    )


def _between(value: Array, bounds: tuple[float, float]) -> Array:
    return (bounds[0] <= value) & (value <= bounds[1])


def _length(vector: Array) -> Array:
    """Euclidean norm whose gradient at the origin is 0 and not NaN."""
    square = jnp.sum(vector**2)
    return jnp.where(square > 0.0, jnp.sqrt(jnp.where(square > 0.0, square, 1.0)), 0.0)


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "ant": Task(
            backend="mjx",
            forward=True,
            reward=running_reward,
            termination=fall_termination,
            reward_settings={"ctrl_cost_weight": 0.5, "healthy_reward": 1.0},
            termination_settings={"healthy_z_range": (0.2, 1.0)},
        ),
        "halfcheetah": Task(
            backend="mjx",
            forward=True,
            reward=running_reward,
            reward_settings={"forward_reward_weight": 1.0, "ctrl_cost_weight": 0.1},
            angles=(1,),
        ),
        "hopper": Task(
            backend="mjx",
            forward=True,
            reward=running_reward,
            termination=fall_termination,
            reward_settings={"forward_reward_weight": 1.0, "ctrl_cost_weight": 1e-3, "healthy_reward": 1.0},
            termination_settings={
                "healthy_z_range": (0.7, jnp.inf),
                "healthy_angle_range": (-0.2, 0.2),
                "healthy_state_range": (-100.0, 100.0),
            },
        ),
        "humanoid": Task(
            backend="mjx",
            forward=True,
            reward=running_reward,
            termination=fall_termination,
            reward_settings={
                "forward_reward_weight": 1.25,
                "ctrl_cost_weight": 0.1,
                "healthy_reward": 5.0,
                "control_range": 0.4,
            },
            termination_settings={"healthy_z_range": (1.0, 2.0)},
        ),
        "humanoidstandup": Task(backend="mjx"),
        "inverted_double_pendulum": Task(backend="mjx"),
        "inverted_pendulum": Task(backend="mjx", reward=alive_reward, termination=tilt_termination),
        "pusher": Task(backend="mjx", episode_length=100, reward=pusher_reward),
        "reacher": Task(backend="mjx", episode_length=50, reward=reacher_reward),
        "walker2d": Task(
            backend="mjx",
            forward=True,
            reward=running_reward,
            termination=fall_termination,
            reward_settings={"forward_reward_weight": 1.0, "ctrl_cost_weight": 1e-3, "healthy_reward": 1.0},
            termination_settings={"healthy_z_range": (0.8, 2.0), "healthy_angle_range": (-1.0, 1.0)},
        ),
    }
)
