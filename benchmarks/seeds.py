"""Several seeds as one program against as many runs one after another, in turn: time, and the same numbers.

    python -m benchmarks.seeds [--system pets] [--env cartpole_swingup] [--seeds 8] [--epochs 3] [--repeats 3] [--vmap]
        [--threads N]

``together`` is what `jaxmbrl train --seeds` does: the seeds spread over the devices, on a CPU one for each core. With
``--vmap``, plain ``vmap`` on one device is measured too. A run is the system's preset `small`, random actions first.
All programs are compiled before they are timed. Rounding differs between them, and plans amplify it: the differences
are given for each epoch.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import timing


def compare(system: str, env_name: str, seeds: int, epochs: int, repeats: int, *, vmap: bool = False) -> dict[str, Any]:
    """Seconds either way, their ratio, and the largest differences of the metrics."""
    from jaxmbrl.training import devices

    devices.request(seeds)
    import jax
    import numpy as np

    from jaxmbrl import agents, envs, training

    env = envs.make(env_name)
    module = agents.load(system)
    config, schedule = module.preset("small", env.spec)
    loop = training.make_loop(env, module.make(env.spec, config, env=env), schedule)
    keys = jax.random.split(jax.random.key(0), seeds)

    def run(key: jax.Array) -> Any:
        return training.train(loop, epochs)(key)[1]

    single = jax.jit(run).lower(keys[0]).compile()
    together = jax.jit(training.over_seeds(run, seeds))
    vmapped = jax.jit(jax.vmap(run))
    seen: dict[str, Any] = {}

    def one_by_one() -> timing.Timing:
        results: list[Any] = []
        seconds = timing.measure(lambda: results.append(jax.block_until_ready([single(key) for key in keys])))
        seen["one_by_one"] = jax.tree.map(lambda *leaves: np.stack(leaves), *results[0])
        return seconds

    def at_once(name: str, program: Callable[..., Any]) -> timing.Timing:
        results: list[Any] = []
        seconds = timing.measure(lambda: results.append(jax.block_until_ready(program(keys))))
        seen[name] = jax.tree.map(np.asarray, results[0])
        return seconds

    runs = {"together": partial(at_once, "together", together), "one_by_one": one_by_one}
    if vmap:
        runs["vmapped"] = partial(at_once, "vmapped", vmapped)
    timings = timing.alternate(runs, repeats)  # compiles in a first round, untimed
    return {
        "system": system,
        "env": env_name,
        "seeds": seeds,
        "epochs": epochs,
        "repeats": repeats,
        "devices": devices.sharding(seeds).num_devices,
        **{f"{name}_seconds": timing.median(values).wall for name, values in timings.items()},
        "times_faster": timing.ratio(timings["one_by_one"], timings["together"]).wall,
        "times_faster_cpu": timing.ratio(timings["one_by_one"], timings["together"]).cpu,
        "largest_relative_difference_by_epoch": {
            name: np.max(_difference(seen["together"][name], seen["one_by_one"][name]), axis=0).tolist()
            for name in seen["together"]
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
    parser.add_argument("--system", default="pets")
    parser.add_argument("--env", default="cartpole_swingup")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vmap", action="store_true", help="measure plain vmap on one device as well")
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    sizes = arguments.seeds, arguments.epochs, arguments.repeats
    timing.report("seeds", compare(arguments.system, arguments.env, *sizes, vmap=arguments.vmap))


if __name__ == "__main__":
    main()
