"""The machine's float32 matrix-product rate at the shapes that a planner uses: the yardstick of `planning.py`.

    python -m benchmarks.gemm [--members 5] [--rows 2000] [--sizes 25,200,200,200,200,36] [--threads N]

A network of layer sizes s_0, ..., s_L is L products [rows, s_i] x [s_i, s_(i+1)] for each of E members. They are run
one after another inside a scan, with nothing between them, so that neither dispatch nor memory allocation counts.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import timing

STEPS = 30  # products of one network in a run; a fraction of a second at the default sizes


class Rate(NamedTuple):
    """The best rate over several runs, in GF/s (of wall seconds), and the layout that reached it."""

    gflops: float
    layout: str


def flops(sizes: Sequence[int], rows: int) -> int:
    """Floating-point operations of a network's matrix products: 2 rows sum_i s_i s_(i+1)."""
    return 2 * rows * sum(a * b for a, b in itertools.pairwise(sizes))


def chain(sizes: Sequence[int], members: int, rows: int, *, unrolled: bool) -> Callable[[], object]:
    """A compiled run of ``STEPS`` times the network's products.

    Args:
        sizes: widths s_0, ..., s_L.
        members: E, each with its own weights.
        rows: of each member.
        unrolled: one product a member instead of one batched product. Which of the two is faster depends on the
            machine; the yardstick is the better one.
    """
    import jax

    key_inputs, key_weights = jax.random.split(jax.random.key(0))
    inputs = jax.random.normal(key_inputs, (members, rows, sizes[0]))
    weights = [
        jax.random.normal(jax.random.fold_in(key_weights, i), (members, a, b)) / a**0.5  # keeps numbers near 1
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    parts = [(inputs, weights)]
    if unrolled:
        parts = [(inputs[i], [w[i] for w in weights]) for i in range(members)]

    def body(xs: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
        return [_as_wide(_network(x, w), sizes[0]) for x, (_, w) in zip(xs, parts, strict=True)], None

    run = jax.jit(lambda xs: jax.lax.scan(body, xs, length=STEPS)[0])
    return lambda: run([x for x, _ in parts])


def rate(sizes: Sequence[int], members: int, rows: int, *, repeats: int = 5) -> Rate:
    """The best of several runs in either layout."""
    results = []
    for layout in ("batched", "one member at a time"):
        run = chain(sizes, members, rows, unrolled=layout != "batched")
        timings = timing.alternate({layout: lambda run=run: timing.measure(run)}, repeats)[layout]
        results.append(Rate(STEPS * members * flops(sizes, rows) / timing.best(timings).wall / 1e9, layout))
    return max(results)


def _network(x: Any, weights: Sequence[Any]) -> Any:
    return functools.reduce(lambda x, w: x @ w, weights, x)


def _as_wide(y: Any, width: int) -> Any:
    """The outputs as the next inputs: cut, or repeated, to their width."""
    import jax.numpy as jnp

    return jnp.concatenate([y] * -(-width // y.shape[-1]), axis=-1)[..., :width]


def main() -> None:
    """Print the rates of a whole network and of its widest hidden layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000, help="particles of one member")
    parser.add_argument("--sizes", default="25,200,200,200,200,36", help="layer widths, input and output included")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    network = rate(sizes, arguments.members, arguments.rows, repeats=arguments.repeats)
    width = max(sizes)
    square = rate([width, width], arguments.members, arguments.rows, repeats=arguments.repeats)
    timing.report(
        "gemm",
        {
            "sizes": sizes,
            "members": arguments.members,
            "rows": arguments.rows,
            "network": network._asdict(),
            "widest_layer": square._asdict(),
        },
    )


if __name__ == "__main__":
    main()
