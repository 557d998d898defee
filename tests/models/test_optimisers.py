"""LaProp with adaptive clipping against a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.models import optimisers


def test_laprop_is_the_papers():
    """Ziyin et al. 2020, Alg. 1, on gradients clipped to a share of each array of weights; epsilon outside the root."""
    config = optimisers.Config("laprop", learning_rate=0.1, epsilon=1e-2, max_ratio=0.3)
    rule = optimisers.make(config)
    weights = np.random.default_rng(0).normal(size=(3, 2))
    params, state = jnp.float32(weights), rule.init(jnp.float32(weights))
    second, first = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, 6):
        gradient = np.random.default_rng(step).normal(size=(3, 2)) * 10.0 ** (step - 3)
        updates, state = rule.update(jnp.float32(gradient), state, params)
        params = params + updates
        gradient = gradient * min(1.0, 0.3 * np.linalg.norm(weights) / np.linalg.norm(gradient))
        second = 0.999 * second + 0.001 * gradient**2
        first = 0.9 * first + 0.1 * gradient / (np.sqrt(second / (1 - 0.999**step)) + 1e-2)
        weights = weights - 0.1 * first / (1 - 0.9**step)
        np.testing.assert_allclose(params, weights, rtol=1e-4, atol=1e-5)


def test_weights_that_are_nothing_still_move():
    """A share of a norm of 0 would hold an array that begins at 0 there for good: the norm counts as 1e-3 at least."""
    rule = optimisers.make(optimisers.Config("laprop", learning_rate=0.1, epsilon=1.0, max_ratio=0.3))
    updates, _ = rule.update(jnp.full(4, 2.0), rule.init(jnp.zeros(4)), jnp.zeros(4))
    np.testing.assert_allclose(updates, -0.1 * 1.5e-4 / (1.0 + 1.5e-4), rtol=1e-4)  # 3e-4 of norm over 4 entries


def test_warm_up_begins_at_nothing():
    rule = optimisers.make(optimisers.Config(learning_rate=1.0, warmup=4))
    state, sizes = rule.init(jnp.zeros(1)), []
    for _ in range(6):
        updates, state = jax.jit(rule.update)(jnp.ones(1), state, jnp.zeros(1))
        sizes.append(-float(updates[0]))
    np.testing.assert_allclose(sizes, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-3)
