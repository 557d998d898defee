"""Convolutional encoders and decoders of small images, and of grids (flax.linen).

An image's layers, kernels and strides are those of World Models (Ha and Schmidhuber 2018, arXiv:1803.10122, App. A.1)
and PlaNet (Hafner et al. 2019, arXiv:1811.04551, App. A): kernels of 4 with stride 2 down to 2 x 2, kernels of 5 and 6
back up, and no padding. So the decoder meets 32 x 32 and 64 x 64 exactly.

A convolution of stride 2 is computed as one matrix product over blocks of 2 x 2 pixels. On a CPU that is up to several
times faster than the convolutions of XLA, above all for several networks at once (seeds under ``vmap``).

A grid has few cells, and a channel for each kind of thing that may lie in one. It is read as MinAtar's baselines do
(Young and Tian 2019, arXiv:1903.03176): one convolution of kernel 3 without padding, and a dense layer. Of stride 1 and
few channels, that convolution is faster as XLA's.
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxmbrl.config import ConfigError
from jaxmbrl.models.networks import ACTIVATIONS, product_dtype
from jaxmbrl.types import Array

NUM_LAYERS = {32: 3, 64: 4}  # an image's size -> strided layers down to 2 x 2
UP_KERNELS = {32: (6, 6), 64: (5, 6, 6)}  # of the decoder's layers, after the first one from 1 x 1 to 5 x 5
STEM = 5  # side of the decoder's first map
GRID_KERNEL = (3, 3)
kernel_init = nn.initializers.lecun_normal()


def scaled(image: Array) -> Array:
    """Pixels, uint8 0 to 255, as float32 within [-0.5, 0.5]."""
    return image.astype(jnp.float32) / 255.0 - 0.5


def check_size(shape: tuple[int, ...]) -> int:
    """The side of an image [H, W, C]. Raises ConfigError unless it is a square of 32 or 64."""
    if len(shape) != 3 or shape[0] != shape[1] or shape[0] not in NUM_LAYERS:
        raise ConfigError(f"image: got shape {shape}, needs (S, S, channels) with S one of {tuple(NUM_LAYERS)}")
    return shape[0]


class Encoder(nn.Module):
    """Convolutions of kernel 4 and stride 2, [..., H, W, C] -> [..., F] with F = 4 depth 2^(layers - 1).

    Attributes:
        depth: channels of the first layer; each layer has twice those of the one before.
        activation: a name of `ACTIVATIONS`, after each layer.
        precision: of the matrix products, a name of `PRECISIONS`; parameters and outputs stay float32.
    """

    depth: int = 32
    activation: str = "relu"
    precision: str = "float32"

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """Features of images within [-0.5, 0.5]."""
        x = image
        for layer in range(NUM_LAYERS[check_size(image.shape[-3:])]):
            filters = self.depth * 2**layer
            kernel = self.param(f"kernel_{layer}", kernel_init, (4, 4, x.shape[-1], filters))
            bias = self.param(f"bias_{layer}", nn.initializers.zeros_init(), (filters,))
            x = ACTIVATIONS[self.activation](convolve(x, kernel, precision=self.precision) + bias)
        return x.reshape((*x.shape[:-3], -1)).astype(jnp.float32)


class Decoder(nn.Module):
    """Transposed convolutions of stride 2, [..., F] -> [..., H, W, C]; the last layer is linear.

    Attributes:
        shape: (H, W, C) of the image.
        depth: channels before the last layer; each layer further back has twice those.
        activation: a name of `ACTIVATIONS`, after each layer but the first linear one and the last.
        precision: like `Encoder`'s.
    """

    shape: tuple[int, ...]
    depth: int = 32
    activation: str = "relu"
    precision: str = "float32"

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """The image, not clipped, of a vector."""
        kernels = UP_KERNELS[check_size(self.shape)]
        activate = ACTIVATIONS[self.activation]
        width = self.depth * 2 ** (len(kernels) - 1)
        dtype, precision = product_dtype(self.precision)
        x = nn.Dense(8 * width, dtype=dtype, precision=precision, name="embed")(features)
        # A transposed convolution of a 1 x 1 map is a dense layer whose bias is shared by the pixels.
        x = nn.Dense(STEM * STEM * width, use_bias=False, dtype=dtype, precision=precision, name="stem")(x)
        bias = self.param("stem_bias", nn.initializers.zeros_init(), (width,))
        x = activate(x.reshape((*features.shape[:-1], STEM, STEM, width)) + bias)
        for layer, size in enumerate(kernels):
            last = layer == len(kernels) - 1
            filters = self.shape[-1] if last else x.shape[-1] // 2
            kernel = self.param(f"kernel_{layer}", kernel_init, (size, size, x.shape[-1], filters))
            bias = self.param(f"bias_{layer}", nn.initializers.zeros_init(), (filters,))
            x = convolve_transposed(x, kernel, precision=self.precision) + bias
            x = x if last else activate(x)
        return x.astype(jnp.float32)


class GridEncoder(nn.Module):
    """A convolution of kernel 3 and a dense layer, both activated, [..., H, W, C] -> [..., width].

    Attributes:
        width: units of the dense layer.
        depth: channels of the convolution.
        activation: a name of `ACTIVATIONS`.
    """

    width: int
    depth: int = 16
    activation: str = "relu"

    @nn.compact
    def __call__(self, grid: Array) -> Array:
        """Features of grids, bool."""
        activate = ACTIVATIONS[self.activation]
        x = activate(nn.Conv(self.depth, GRID_KERNEL, padding="VALID", name="convolution")(grid.astype(jnp.float32)))
        return activate(nn.Dense(self.width, name="dense")(x.reshape((*x.shape[:-3], -1))))


class GridDecoder(nn.Module):
    """`GridEncoder` the other way round, [..., F] -> [..., H, W, C]; the last layer is linear.

    Attributes:
        shape: (H, W, C) of the grid, with sides of at least 3.
        width: like `GridEncoder`'s, as are the others.
        depth: channels before the last layer.
        activation: of all layers but the last.
    """

    shape: tuple[int, ...]
    width: int
    depth: int = 16
    activation: str = "relu"

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """A logit for each cell and channel."""
        activate = ACTIVATIONS[self.activation]
        height, width = (side - kernel + 1 for side, kernel in zip(self.shape[:2], GRID_KERNEL, strict=True))
        x = activate(nn.Dense(self.width, name="dense")(features))
        x = activate(nn.Dense(height * width * self.depth, name="map")(x))
        x = x.reshape((*features.shape[:-1], height, width, self.depth))
        return nn.ConvTranspose(self.shape[2], GRID_KERNEL, padding="VALID", name="convolution")(x)


def convolve(image: Array, kernel: Array, *, precision: str = "float32") -> Array:
    r"""Convolution of stride 2 without padding: :math:`y_{ij} = \sum_{ab} x_{2i+a, 2j+b} W_{ab}`.

    Blocks of 2 x 2 pixels become channels, over which the kernel is one of half the size and stride 1.

    Args:
        image: [..., H, W, C].
        kernel: [k, k, C, F], k even.
        precision: a name of `PRECISIONS`.

    Returns:
        [..., (H - k) // 2 + 1, (W - k) // 2 + 1, F].
    """
    size, _, channels, filters = kernel.shape
    half = size // 2
    blocks = space_to_depth(image)
    taps = kernel.reshape((half, 2, half, 2, channels, filters)).transpose((0, 2, 1, 3, 4, 5))
    return _product(_neighbours(blocks, half), taps.reshape((-1, filters)), precision)


def convolve_transposed(image: Array, kernel: Array, *, precision: str = "float32") -> Array:
    r"""Transposed convolution of stride 2 without padding: :math:`y_{2i+a, 2j+b} \mathrel{+}= x_{ij} W_{ab}`.

    Each 2 x 2 block of the result depends on the same few pixels: their product with the kernel gives its four pixels.

    Args:
        image: [..., H, W, C].
        kernel: [k, k, C, F].
        precision: a name of `PRECISIONS`.

    Returns:
        [..., 2 (H - 1) + k, 2 (W - 1) + k, F].
    """
    size, _, channels, filters = kernel.shape
    half = -(-size // 2)
    even = jnp.pad(kernel, ((0, 2 * half - size), (0, 2 * half - size), (0, 0), (0, 0)))
    # The pixel i steps before a block's own reaches it with the kernel's rows 2 i and 2 i + 1.
    taps = even.reshape((half, 2, half, 2, channels, filters))[::-1, :, ::-1]
    taps = taps.transpose((0, 2, 4, 1, 3, 5)).reshape((-1, 4 * filters))
    margin = [(0, 0)] * (image.ndim - 3) + [(half - 1, half - 1)] * 2 + [(0, 0)]
    blocks = _product(_neighbours(jnp.pad(image, margin), half), taps, precision)
    height, width = (2 * (side - 1) + size for side in image.shape[-3:-1])
    return depth_to_space(blocks)[..., :height, :width, :]


def space_to_depth(image: Array) -> Array:
    """Blocks of 2 x 2 pixels as channels: [..., H, W, C] -> [..., H // 2, W // 2, 4 C]; an odd last row is left out."""
    *batch, height, width, channels = image.shape
    even = image[..., : height // 2 * 2, : width // 2 * 2, :]
    blocks = even.reshape((*batch, height // 2, 2, width // 2, 2, channels))
    return jnp.swapaxes(blocks, -4, -3).reshape((*batch, height // 2, width // 2, 4 * channels))


def depth_to_space(blocks: Array) -> Array:
    """The inverse of `space_to_depth`: [..., H, W, 4 C] -> [..., 2 H, 2 W, C]."""
    *batch, height, width, channels = blocks.shape
    pixels = blocks.reshape((*batch, height, width, 2, 2, channels // 4))
    return jnp.swapaxes(pixels, -4, -3).reshape((*batch, 2 * height, 2 * width, channels // 4))


def _neighbours(image: Array, size: int) -> Array:
    """The ``size`` x ``size`` pixels from each one on, row by row, as channels: [..., H - size + 1, .., size^2 C]."""
    height, width = (side - size + 1 for side in image.shape[-3:-1])
    shifted = [image[..., i : i + height, j : j + width, :] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1)


def _product(x: Array, weights: Array, precision: str) -> Array:
    dtype, product_precision = product_dtype(precision)
    return jnp.matmul(x.astype(dtype), weights.astype(dtype), precision=product_precision)
