"""Pictures a second, drawn in one jitted and vmapped program, alone and with the simulator that moves what is drawn.

    python -m benchmarks.pixels [pendulum brax/halfcheetah ...] [--envs 64] [--size 64] [--repeats 5] [--threads N]

``draw`` is the picture alone, of random states; ``step`` is a whole step of the pixel environment, and ``share`` what
the picture takes of it. ``flops`` are XLA's own count for one picture.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks import timing

STEPS = 20  # environment steps in one timed run
NEEDED = {"pendulum": 5_000, "brax/halfcheetah": 1_000}


def measure(name: str, num_envs: int, size: int, repeats: int) -> dict[str, Any]:
    """Pictures and environment steps a second of one task."""
    import jax

    from jaxmbrl import envs
    from jaxmbrl.envs import pixels
    from jaxmbrl.training.loop import random_action

    env, scene = envs.make(pixels.PREFIX + name, size=size), pixels.scene(name)
    keys = jax.random.split(jax.random.key(0), num_envs)
    timesteps = jax.jit(jax.vmap(env.reset))(keys)

    def step(timestep: Any, key: Any) -> tuple[Any, None]:
        actions = jax.vmap(lambda key: random_action(key, env.spec))(jax.random.split(key, num_envs))
        return jax.vmap(env.step)(keys, timestep, actions), None

    @jax.jit
    def run(timestep: Any) -> Any:
        return jax.lax.scan(step, timestep, jax.random.split(jax.random.key(1), STEPS))[0]

    timesteps = run(timesteps)
    # The limit's state holds the picture's, which holds the simulator's and its own observation.
    states = timesteps._replace(state=timesteps.state.inner.inner, obs=timesteps.state.inner.obs)
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
    return {
        "task": name,
        "draw_per_second": 1.0 / draw_seconds,
        "step_per_second": 1.0 / step_seconds,
        "share": draw_seconds / step_seconds,
        "flops": counted.get("flops"),
        "gflops_per_second": counted.get("flops", 0.0) / draw_seconds / 1e9,
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
    parser.add_argument("names", nargs="*", default=["pendulum", "brax/halfcheetah"], help="without pixels/")
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    timing.report("pixels", compare(arguments.names, arguments.envs, arguments.size, arguments.repeats))


if __name__ == "__main__":
    main()
