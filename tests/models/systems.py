"""A noisy linear system with a linear reward and a half-space where episodes end: what models are taught in tests."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.types import Box, Spec, Transition

A = np.array([[-0.5, 0.3], [0.2, -0.4]], np.float32)
B = np.array([[0.5], [-1.0]], np.float32)
NOISE = np.array([0.1, 0.3], np.float32)  # standard deviation of each observation's change
REWARD = np.array([2.0, -1.0, 0.5], np.float32)  # of (obs, action)
REWARD_NOISE = 0.2

UNKNOWN = Spec(
    name="noisy_linear",
    observation=jax.ShapeDtypeStruct((2,), jnp.float32),
    action=Box(np.array([-1.0], np.float32), np.array([1.0], np.float32)),
    episode_length=10,
)
KNOWN = UNKNOWN._replace(
    reward=lambda obs, action, next_obs: obs[0] + 10.0 * action[0] + 100.0 * next_obs[1],
    termination=lambda obs, action, next_obs: next_obs[0] > 0.0,
)


def expected_change(obs, action):
    return obs @ A.T + action @ B.T


def ends(next_obs):
    return next_obs[..., 0] > 0.4


def transitions(key, num):
    """``num`` transitions from states in [-1, 1]^2 under random actions."""
    key_obs, key_action, key_noise, key_reward = jax.random.split(key, 4)
    obs = jax.random.uniform(key_obs, (num, 2), minval=-1.0, maxval=1.0)
    action = jax.random.uniform(key_action, (num, 1), minval=-1.0, maxval=1.0)
    next_obs = obs + expected_change(obs, action) + NOISE * jax.random.normal(key_noise, (num, 2))
    mean_reward = jnp.concatenate([obs, action], axis=1) @ REWARD
    reward = mean_reward + REWARD_NOISE * jax.random.normal(key_reward, (num,))
    return Transition(obs, action, reward, next_obs, ends(next_obs), jnp.zeros(num, bool))
