"""Pictures a second, drawn in one jitted and vmapped program, alone and with the simulator that moves what is drawn.

    python -m benchmarks.pixels [pendulum brax/halfcheetah car_racing ...] [--envs 64] [--size 64] [--threads N]

``draw`` is the picture alone, of random states; ``step`` is a whole step of the pixel environment (a reset's picture,
which `wrappers.auto_reset_step` adds, is not in it), and ``share`` what the picture takes of it. ``flops`` are XLA's
own count for one picture.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks import timing

STEPS = 20  # environment steps in one timed run
NEEDED = {"pendulum": 5_000, "brax/halfcheetah": 1_000}


def prepare(name: str, size: int) -> tuple[Any, Any, Any]:
    """The pixel environment, its scene, and the function from its TimeStep to the one that the scene is of."""
    from jaxmbrl import envs
    from jaxmbrl.envs import car_racing, pixels

    if name in car_racing.NAMES:
        params = car_racing.Params()
        inside = lambda timestep: timestep._replace(state=timestep.state.inner)  # noqa: E731
        return envs.make(name, size=size), lambda timestep: car_racing.scene(params, timestep.state), inside
    # The limit's state holds the picture's, which holds the simulator's and its own observation.
    inside = lambda timestep: timestep._replace(state=timestep.state.inner.inner, obs=timestep.state.inner.obs)  # noqa: E731
    return envs.make(pixels.PREFIX + name, size=size), pixels.scene(name), inside


def measure(name: str, num_envs: int, size: int, repeats: int) -> dict[str, Any]:
    """Pictures and environment steps a second of one task."""
    import jax

    from jaxmbrl.envs import pixels
    from jaxmbrl.training.loop import random_action

    env, scene, inside = prepare(name, size)
    keys = jax.random.split(jax.random.key(0), num_envs)
    timesteps = jax.jit(jax.vmap(env.reset))(keys)

    def step(timestep: Any, key: Any) -> tuple[Any, None]:
        actions = jax.vmap(lambda key: random_action(key, env.spec))(jax.random.split(key, num_envs))
        return jax.vmap(env.step)(keys, timestep, actions), None

    @jax.jit
    def run(timestep: Any) -> Any:
        return jax.lax.scan(step, timestep, jax.random.split(jax.random.key(1), STEPS))[0]

    timesteps = run(timesteps)
    states = inside(timesteps)
    draw = jax.jit(jax.vmap(lambda timestep: pixels.draw(scene(timestep), size)))
    one = jax.jit(lambda timestep: pixels.draw(scene(timestep), size))
    counted = one.lower(jax.tree.map(lambda leaf: leaf[0], states)).compile().cost_analysis() or {}
    runs = {
        "draw": lambda: timing.measure(lambda: draw(states), STEPS),
        "step": lambda: timing.measure(lambda: run(timesteps)),
    }
    timings = timing.alternate(runs, repeats)
    draw_seconds = timing.median(timings["draw"]).wall / num_envs
    step_seconds = timing.median(timings["step"]).wall / (num_envs * STEPS)
    draw_cpu = timing.median(timings["draw"]).cpu / num_envs
    return {
        "task": name,
        "draw_per_second": 1.0 / draw_seconds,
        "step_per_second": 1.0 / step_seconds,
        "share": draw_seconds / step_seconds,
        "draw_cpu_microseconds": 1e6 * draw_cpu,
        "flops": counted.get("flops"),
        "gflops_per_cpu_second": counted.get("flops", 0.0) / draw_cpu / 1e9,
        "needed": NEEDED.get(name),
    }


def compare(names: Sequence[str], num_envs: int, size: int, repeats: int) -> dict[str, Any]:
    """The figures of several tasks."""
    return {
        "envs": num_envs,
        "size": size,
        "repeats": repeats,
        "tasks": [measure(name, num_envs, size, repeats) for name in names],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", default=["pendulum", "brax/halfcheetah", "car_racing"], help="without pixels/"
    )
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    timing.report("pixels", compare(arguments.names, arguments.envs, arguments.size, arguments.repeats))


if __name__ == "__main__":
    main()
