"""Convolutions as matrix products against XLA's, and images through encoder and decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.config import ConfigError
from jaxmbrl.models import convolution
from jaxmbrl.models.convolution import Decoder, Encoder, convolve, convolve_transposed

NHWC = ("NHWC", "HWIO", "NHWC")


def loop_transposed(image, kernel):
    """The definition, in float64: each pixel stamps the kernel onto the result."""
    (height, width, _), size = image.shape, len(kernel)
    result = np.zeros((2 * (height - 1) + size, 2 * (width - 1) + size, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            result[2 * i : 2 * i + size, 2 * j : 2 * j + size] += np.einsum("c,abcf->abf", image[i, j], kernel)
    return result


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("size", [2, 4])
def test_convolution_is_xlas(key, side, size):
    image = jax.random.normal(key, (2, 3, side, side + 2, 3))
    kernel = jax.random.normal(key, (size, size, 3, 5))
    want = jax.lax.conv_general_dilated(
        image.reshape((6, side, side + 2, 3)), kernel, (2, 2), "VALID", dimension_numbers=NHWC
    )
    got = convolve(image, kernel)
    np.testing.assert_allclose(got, want.reshape(got.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [4, 5, 6])
def test_transposed_convolution_stamps_the_kernel(key, size):
    image = jax.random.normal(key, (2, 3, 4, 3))
    kernel = jax.random.normal(key, (size, size, 3, 5))
    want = [loop_transposed(np.asarray(one, np.float64), np.asarray(kernel, np.float64)) for one in image]
    np.testing.assert_allclose(convolve_transposed(image, kernel), want, rtol=1e-4, atol=1e-4)


def test_blocks_and_pixels_are_inverses():
    image = jnp.arange(2 * 6 * 4 * 3).reshape((2, 6, 4, 3))
    np.testing.assert_array_equal(convolution.depth_to_space(convolution.space_to_depth(image)), image)


def test_pixels_are_scaled_to_a_half_each_way():
    pixels = jnp.arange(256, dtype=jnp.uint8)
    floats = convolution.scaled(pixels)
    assert floats.dtype == jnp.float32 and floats.min() == -0.5 and floats.max() == 0.5
    np.testing.assert_allclose(floats, np.arange(256) / 255.0 - 0.5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("side", [32, 64])
def test_decoder_meets_the_encoders_image_and_axes_lead(key, side):
    encoder, decoder = Encoder(depth=2), Decoder((side, side, 3), depth=2, activation="elu")
    images = jax.random.uniform(key, (3, side, side, 3), minval=-0.5, maxval=0.5)
    params = jax.jit(encoder.init)(key, images[0])
    features = encoder.apply(params, images)
    assert features.shape == (3, 4 * 2 * 2 ** (convolution.NUM_LAYERS[side] - 1))
    np.testing.assert_allclose(features[1], encoder.apply(params, images[1]), atol=1e-6)
    decoded = decoder.apply(jax.jit(decoder.init)(key, features), features)
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32


def test_every_part_of_an_image_matters(key):
    """Two features a side see 2 -> 6 -> 14 -> 30 pixels of 32 through three layers of kernel 4 and stride 2."""
    encoder = Encoder(depth=4, activation="tanh")
    image = jax.random.uniform(key, (32, 32, 1), minval=-0.5, maxval=0.5)
    params = encoder.init(key, image)
    gradient = jax.jit(jax.grad(lambda image: jnp.sum(encoder.apply(params, image))))(image)
    assert np.all(gradient[:30, :30] != 0)
    assert np.all(gradient[30:] == 0) and np.all(gradient[:, 30:] == 0)


@pytest.mark.parametrize("shape", [(48, 48, 3), (32, 64, 3), (64, 64)])
def test_other_sizes_are_refused(key, shape):
    with pytest.raises(ConfigError, match=r"needs \(S, S, channels\)"):
        Encoder().init(key, jnp.zeros(shape))
