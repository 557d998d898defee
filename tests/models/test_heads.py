"""Scalar heads: their means, and that their losses are least where the mean is the target's."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.models import heads

NUMBERS = np.array([0.0, -1e-3, 0.3, -1.0, 7.5, -123.4, 9876.5])


def test_symlog_and_symexp_are_inverse():
    np.testing.assert_allclose(heads.symexp(heads.symlog(jnp.asarray(NUMBERS))), NUMBERS, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(heads.symlog(jnp.asarray(NUMBERS)), np.sign(NUMBERS) * np.log1p(np.abs(NUMBERS)), 1e-6)


def test_two_hot_has_the_mean_and_two_neighbours():
    bins = jnp.asarray(np.array([-10.0, -1.0, 0.0, 0.5, 20.0]))
    for number in (-10.0, -3.7, -1.0, 0.2, 0.5, 19.0, 20.0):
        weights = np.asarray(heads.two_hot(jnp.asarray(number), bins))
        np.testing.assert_allclose(weights @ np.asarray(bins), number, rtol=1e-6)
        np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
        used = np.flatnonzero(weights)
        assert weights.min() >= 0.0
        assert used[-1] - used[0] <= 1
    np.testing.assert_array_equal(heads.two_hot(jnp.asarray(99.0), bins), [0, 0, 0, 0, 1])


def test_twohot_mean_is_exactly_zero_at_first_and_finds_large_numbers():
    head = heads.symexp_twohot(255)
    assert head.mean(jnp.zeros(255)) == 0.0  # what silent networks begin with; bins reach to half a billion
    bins = heads.symexp(np.linspace(-heads.LARGEST, heads.LARGEST, 255))
    for number in NUMBERS:
        weights = heads.two_hot(jnp.asarray(number), jnp.asarray(bins, jnp.float32))
        outputs = jnp.log(weights + 1e-30)
        np.testing.assert_allclose(head.mean(outputs), number, rtol=2e-3, atol=1e-6)


def test_losses_are_least_at_the_target():
    """Gradient descent on the loss alone brings the mean to the target."""
    for name, make in heads.HEADS.items():
        head = make()
        for target in (-2.5, 0.7, 31.0):
            outputs = jnp.zeros(head.num_outputs)
            slope = jax.jit(jax.grad(lambda outputs, head=head, target=target: head.loss(outputs, jnp.asarray(target))))
            for _ in range(400):
                outputs -= 0.5 * slope(outputs)
            assert abs(head.mean(outputs) - target) < 0.05 * abs(target), (name, target)
