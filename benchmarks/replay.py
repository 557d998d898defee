"""One replay step (add a transition, sample a batch of 32) in a scan, at two capacities in turn.

    python -m benchmarks.replay [--capacities 10000 1000000] [--repeats 31] [--threads N]

The cost must not grow with the capacity. ``held_equal`` compares stores that hold the same number of transitions, as
the smallest one's capacity: what differs is the capacity alone. ``full`` compares full stores: a batch is then read
from all over a memory that does not fit into the processor's caches, and what that costs is in the figure.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import timing

STEPS = 2_000  # replay steps in one timed run
BATCH = 32
OBS, ACTION = 5, 1  # of the cart-pole swing-up


def make_run(capacity: int, held: int, steps: int = STEPS) -> Callable[[], Any]:
    """A compiled run of ``steps`` replay steps on a store that holds ``held`` transitions when it begins.

    The store is donated to each run, which hands it on to the next.
    """
    import jax
    import jax.numpy as jnp

    from jaxmbrl import replay
    from jaxmbrl.types import Transition

    obs, false = jnp.zeros(OBS), jnp.zeros((), bool)
    example = Transition(obs, jnp.zeros(ACTION), jnp.zeros(()), obs, false, false)
    ones = jax.tree.map(lambda leaf: jnp.ones((capacity, 1, *leaf.shape), leaf.dtype), example)  # touches all memory
    rows = ones._replace(reward=jnp.arange(capacity, dtype=jnp.float32)[:, None])
    store = replay.from_rows(rows, cursor=0, size=capacity)

    def step(carry: tuple[replay.Replay, jax.Array], key: jax.Array) -> tuple[tuple[replay.Replay, jax.Array], None]:
        store, total = carry
        reward = total * 1e-6  # depends on the last sample, so that no step can be skipped
        row = Transition(obs[None] + reward, jnp.zeros((1, ACTION)), reward[None], obs[None], false[None], false[None])
        store = replay.add(store, row)
        sums = [jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(replay.sample(key, store, BATCH))]
        return (store, sum(sums, jnp.zeros(()))), None

    def scan(store: replay.Replay, key: jax.Array) -> tuple[replay.Replay, jax.Array]:
        cursor, size = (jnp.full((), rows, jnp.int32) for rows in (held % capacity, held))
        start = (store.replace(cursor=cursor, size=size), jnp.zeros(()))
        return jax.lax.scan(step, start, jax.random.split(key, steps))[0]

    compiled = jax.jit(scan, donate_argnums=0)
    kept = [store]

    def run() -> jax.Array:
        kept[0], total = compiled(kept[0], jax.random.key(0))
        return total

    return run


def compare(capacities: Sequence[int], repeats: int) -> dict[str, Any]:
    """Microseconds of a step at each capacity, and their ratio to the first."""
    runs = {
        (case, capacity): make_run(capacity, held=capacity if case == "full" else min(capacities))
        for case in ("held_equal", "full")
        for capacity in capacities
    }
    timed = {f"{case} {capacity}": (lambda run=run: timing.measure(run)) for (case, capacity), run in runs.items()}
    timings = timing.alternate(timed, repeats)
    return {
        "batch": BATCH,
        "repeats": repeats,
        "cases": [
            {
                "case": case,
                "capacity": capacity,
                "microseconds": timing.median(timings[f"{case} {capacity}"]).wall / STEPS * 1e6,
                "ratio": timing.ratio(timings[f"{case} {capacity}"], timings[f"{case} {capacities[0]}"]).wall,
                "cpu_ratio": timing.ratio(timings[f"{case} {capacity}"], timings[f"{case} {capacities[0]}"]).cpu,
            }
            for case, capacity in runs
        ],
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacities", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    timing.report("replay", compare(arguments.capacities, arguments.repeats))


if __name__ == "__main__":
    main()
