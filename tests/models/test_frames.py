"""Frames against a loop that writes them down one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.models.frames import frames
from jaxmbrl.types import Transition

LENGTH = 12


def window(seed):
    """Transitions of episodes that end at random, each observation a number of its own."""
    rng = np.random.default_rng(seed)
    ended = rng.random(LENGTH) < 0.4
    terminated = ended & (rng.random(LENGTH) < 0.5)
    obs, next_obs, number = [], [], 0
    for end in ended:
        obs.append(number)
        next_obs.append(number := number + 1)
        number += int(end)
    columns = (np.array(obs), 100 + np.arange(LENGTH), rng.normal(size=LENGTH), np.array(next_obs))
    return Transition(*columns, terminated, ended & ~terminated)


def twin(window):
    """What is seen, one frame after another: (obs, action, reward, discount, first)."""
    rows = [(window.obs[0], None, 0.0, 1.0, True)]
    for step in range(LENGTH):
        if step and (window.terminated[step - 1] or window.truncated[step - 1]):
            rows.append((window.obs[step], None, 0.0, 1.0, True))
        discount = 0.0 if window.terminated[step] else 1.0
        rows.append((window.next_obs[step], window.action[step], window.reward[step], discount, False))
    return rows[: LENGTH + 1]


def test_frames_are_what_was_seen_in_order():
    """Ends in a row, at the first and at the last step included: 40 windows that end at random."""
    windows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(window, range(40)))
    result = jax.device_get(jax.jit(jax.vmap(frames))(windows))
    for seed in range(40):
        for place, (obs, action, reward, discount, first) in enumerate(twin(window(seed))):
            assert result.obs[seed, place] == obs
            assert result.first[seed, place] == first
            assert first or result.action[seed, place] == action
            np.testing.assert_allclose(result.reward[seed, place], reward, rtol=1e-6)
            assert result.discount[seed, place] == discount


def test_images_keep_their_type():
    image = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.uint8).reshape(2, 4, 4, 3)
    flags = jnp.zeros(2, bool)
    result = frames(Transition(image, jnp.zeros((2, 1)), jnp.zeros(2), image + 1, flags, flags))
    assert result.obs.dtype == jnp.uint8
    np.testing.assert_array_equal(result.obs, jnp.stack([image[0], image[0] + 1, image[1] + 1]))
