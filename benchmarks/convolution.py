"""Convolutions as matrix products (`models.convolution`) against XLA's own, forward and back, at one image size.

python -m benchmarks.convolution [--side 64] [--depth 32] [--batch 16] [--networks 1] [--repeats 5] [--threads N]
"""

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import timing


def main() -> None:
    """Time a gradient of encoder and decoder, each layer in either form, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="pixels, 32 or 64")
    parser.add_argument("--depth", type=int, default=32, help="channels of the first layer")
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--networks", type=int, default=1, help="networks under vmap, as seeds are")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    timing.use_threads(args.threads)
    layers = _layers(args.side, args.depth)
    runs = {name: _gradient(*functions, args.networks, args.batch) for name, functions in layers.items()}
    timings = timing.alternate({name: lambda run=run: timing.measure(run) for name, run in runs.items()}, args.repeats)
    medians = {name: timing.median(of) for name, of in timings.items()}
    figures = {name: {"ms": round(1e3 * of.wall, 2), "cpu_ms": round(1e3 * of.cpu, 2)} for name, of in medians.items()}
    timing.report("convolution", {"sizes": vars(args), **figures})


def _layers(side: int, depth: int) -> dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]]:
    """The middle layer of encoder and decoder, either way: function, shape of an image, shape of the kernel."""
    import jax

    from jaxmbrl.models import convolution

    def down(image: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(image, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def up(image: Any, kernel: Any) -> Any:
        return jax.lax.conv_transpose(
            image, kernel[::-1, ::-1], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    half = side // 2 - 1
    encode = (half, half, depth), (4, 4, depth, 2 * depth)
    decode = (half - 1, half - 1, depth), (6, 6, depth, 3)
    return {
        "down_product": (convolution.convolve, *encode),
        "down_xla": (down, *encode),
        "up_product": (convolution.convolve_transposed, *decode),
        "up_xla": (up, *decode),
    }


def _gradient(
    layer: Callable[..., Any], image: tuple[int, ...], kernel: tuple[int, ...], networks: int, batch: int
) -> Callable[[], Any]:
    """A compiled gradient of one layer with respect to image and kernel, for several networks at once."""
    import jax
    import jax.numpy as jnp

    key_image, key_kernel = jax.random.split(jax.random.key(0))
    images = jax.random.normal(key_image, (networks, batch, *image))
    kernels = jax.random.normal(key_kernel, (networks, *kernel))
    loss = jax.grad(lambda image, kernel: jnp.mean(layer(image, kernel) ** 2), argnums=(0, 1))
    gradient = jax.jit(jax.vmap(loss))
    return lambda: gradient(images, kernels)


if __name__ == "__main__":
    main()
