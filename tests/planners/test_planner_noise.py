"""Correlated noise: its variance, its spectrum and its autocorrelation, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.planners import noise

# Tolerances: 4 standard errors of an estimate from the number of independent sequences drawn.


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("horizon", [1, 15, 64])
def test_power_law_has_unit_variance_and_its_slope(exponent, horizon):
    draw = jax.jit(noise.power_law, static_argnums=(1, 2))
    x = np.asarray(draw(jax.random.key(1), 2000, (horizon, 2), jnp.float32(exponent)), np.float64)
    assert x.shape == (2000, horizon, 2) and np.all(np.isfinite(x))
    np.testing.assert_allclose(x.var(axis=0), 1.0, atol=4 * np.sqrt(2 / 2000))
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=4 / np.sqrt(2000))
    if horizon == 64:
        power = np.mean(np.abs(np.fft.rfft(x, axis=1)) ** 2, axis=(0, 2))[1:]
        slope = np.polyfit(np.log(np.fft.rfftfreq(horizon)[1:]), np.log(power), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.05)
    between = np.mean(x[:, :, 0] * x[:, :, 1])  # the other axes are independent
    assert abs(between) < 4 / np.sqrt(2000)


@pytest.mark.parametrize("correlation", [0.0, 0.8, 1.0])
def test_autoregressive_has_unit_variance_and_its_correlation(correlation):
    draw = jax.jit(noise.autoregressive, static_argnums=(1, 2))
    x = np.asarray(draw(jax.random.key(2), 4000, (8, 3), jnp.float32(correlation)), np.float64)
    assert x.shape == (4000, 8, 3)
    np.testing.assert_allclose(x.var(axis=0), 1.0, atol=4.5 * np.sqrt(2 / 4000))
    for lag in (1, 3):
        measured = np.mean(x[:, lag:] * x[:, :-lag])
        assert measured == pytest.approx(correlation**lag, abs=4 * np.sqrt(2 / 4000))
