"""Standard normal noise that is correlated over time, for smoother action sequences."""

import jax
import jax.numpy as jnp

from jaxmbrl.types import Array, Key


def power_law(key: Key, num: int, shape: tuple[int, ...], exponent: float | Array) -> Array:
    """Coloured noise: its power spectral density falls as frequency^-exponent along the first axis of ``shape``.

    White noise is filtered in the frequency domain. Exponent 0 is white noise, 1 pink, 2 red. The zero frequency
    has the power of the lowest one. Every entry has mean 0 and variance 1, at every exponent.

    Args:
        key: consumed.
        num: N, independent sequences.
        shape: (H, ...), the last axes are independent of each other.
        exponent: [], beta.

    Returns:
        [N, *shape], float32.

    Source: Timmer and Koenig 1995; for planning, Pinneri et al. 2020, section 3.1, arXiv:2008.06389.

    Differs from the paper: the zero frequency counts in the normalisation, so that the variance is exactly 1.
    """
    horizon = shape[0]
    frequency = jnp.maximum(jnp.abs(jnp.fft.fftfreq(horizon)), 1.0 / horizon)
    amplitude = frequency ** (-jnp.asarray(exponent, jnp.float32) / 2)
    amplitude /= jnp.sqrt(jnp.mean(amplitude**2))  # Parseval: the mean over all frequencies is the variance
    half = amplitude[: horizon // 2 + 1].reshape(-1, *(1,) * (len(shape) - 1))
    spectrum = jnp.fft.rfft(jax.random.normal(key, (num, *shape)), axis=1)
    return jnp.fft.irfft(spectrum * half, n=horizon, axis=1)


def autoregressive(key: Key, num: int, shape: tuple[int, ...], correlation: float | Array) -> Array:
    r"""First-order autoregressive noise along the first axis of ``shape``, with mean 0 and variance 1 everywhere.

    :math:`x_0 = n_0, \; x_t = \beta x_{t-1} + \sqrt{1 - \beta^2} \, n_t`

    Args:
        key: consumed.
        num: N, independent sequences.
        shape: (H, ...), the last axes are independent of each other.
        correlation: [], beta in [0, 1], between neighbours in time.

    Returns:
        [N, *shape], float32.
    """
    beta = jnp.asarray(correlation, jnp.float32)
    white = jax.random.normal(key, (shape[0], num, *shape[1:]))

    def step(previous: Array, fresh: Array) -> tuple[Array, Array]:
        value = beta * previous + jnp.sqrt(1 - beta**2) * fresh
        return value, value

    _, rest = jax.lax.scan(step, white[0], white[1:])
    return jnp.moveaxis(jnp.concatenate([white[:1], rest]), 0, 1)
