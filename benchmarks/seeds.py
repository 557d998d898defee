"""Several seeds as one vmapped program against as many runs one after another, in turn: time, and the same numbers.

    python -m benchmarks.seeds [--env cartpole_swingup] [--seeds 8] [--epochs 3] [--repeats 3] [--threads N]

A run is PETS `small`: one episode of random actions, then epochs of fitting the model and acting for one episode. Both
programs are compiled before they are timed. Rounding differs between the two, and plans amplify it: the differences
are given for each epoch.
"""

import argparse
from typing import Any

from benchmarks import timing


def compare(env_name: str, seeds: int, epochs: int, repeats: int) -> dict[str, Any]:
    """Seconds either way, their ratio, and the largest differences of the metrics."""
    import jax
    import numpy as np

    from jaxmbrl import envs, training
    from jaxmbrl.agents import pets

    env = envs.make(env_name)
    config, schedule = pets.preset("small", env.spec)
    loop = training.make_loop(env, pets.make(env.spec, config), schedule)
    keys = jax.random.split(jax.random.key(0), seeds)

    def run(key: jax.Array) -> Any:
        return training.train(loop, epochs)(key)[1]

    single = jax.jit(run).lower(keys[0]).compile()
    together = jax.jit(jax.vmap(run)).lower(keys).compile()
    seen: dict[str, Any] = {}

    def one_by_one() -> timing.Timing:
        results: list[Any] = []
        seconds = timing.measure(lambda: results.append(jax.block_until_ready([single(key) for key in keys])))
        seen["one_by_one"] = jax.tree.map(lambda *leaves: np.stack(leaves), *results[0])
        return seconds

    def vmapped() -> timing.Timing:
        results: list[Any] = []
        seconds = timing.measure(lambda: results.append(jax.block_until_ready(together(keys))))
        seen["vmapped"] = jax.tree.map(np.asarray, results[0])
        return seconds

    timings = timing.alternate({"vmapped": vmapped, "one_by_one": one_by_one}, repeats)
    return {
        "env": env_name,
        "seeds": seeds,
        "epochs": epochs,
        "repeats": repeats,
        "vmapped_seconds": timing.median(timings["vmapped"]).wall,
        "one_by_one_seconds": timing.median(timings["one_by_one"]).wall,
        "times_faster": timing.ratio(timings["one_by_one"], timings["vmapped"]).wall,
        "times_faster_cpu": timing.ratio(timings["one_by_one"], timings["vmapped"]).cpu,
        "largest_relative_difference_by_epoch": {
            name: np.max(_difference(seen["vmapped"][name], seen["one_by_one"][name]), axis=0).tolist()
            for name in seen["vmapped"]
        },
    }


def _difference(a: Any, b: Any) -> Any:
    """|a - b| as a share of the larger of the two, 0 where both are 0."""
    import numpy as np

    scale = np.maximum(np.abs(a), np.abs(b))
    return np.abs(a - b) / np.where(scale == 0, 1, scale)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="cartpole_swingup")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    timing.report("seeds", compare(arguments.env, arguments.seeds, arguments.epochs, arguments.repeats))


if __name__ == "__main__":
    main()
