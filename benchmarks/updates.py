"""Gradient steps of SAC at half-cheetah's sizes: CPU seconds of one, against the floor that its matrix products set.

    python -m benchmarks.updates [--seeds 1] [--width 256] [--batch 256] [--steps 50] [--repeats 5] [--threads N]

A step draws a batch from a replay store and updates critics, actor, temperature and targets; ``steps`` of them are one
scan. With ``--seeds`` above 1, the seeds are one program: ``vmapped`` on one device, and ``sharded`` with a virtual
device for each core.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

from benchmarks import timing

OBS, ACTION = 17, 6
ROWS = 10_000  # transitions in the store


def flops(width: int, batch: int) -> int:
    """Floating-point operations of a step's matrix products.

    In units of a critic's forward pass: targets 2, critics' loss and gradient 6, the actor's 2 forward and 4 through
    its inputs; the actor's own network is of nearly the same size: 1 for targets, 3 for its loss and gradient.
    """
    critic = 2 * batch * ((OBS + ACTION) * width + width * width + width)
    actor = 2 * batch * (OBS * width + width * width + 2 * ACTION * width)
    return 12 * critic + 4 * actor


def make_steps(width: int, batch: int, steps: int, seeds: int, *, sharded: bool = False) -> Callable[[], Any]:
    """A compiled run of ``steps`` updates of each of ``seeds`` learners."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxmbrl import replay
    from jaxmbrl.agents import sac
    from jaxmbrl.policies import sac as sac_policy
    from jaxmbrl.types import Box, Spec, Transition

    one = np.ones(ACTION, np.float32)
    spec = Spec("cheetah", jax.ShapeDtypeStruct((OBS,), jnp.float32), Box(-one, one), 1000)
    config = sac.Config(policy=sac_policy.Config(hidden=(width, width)), batch_size=batch, updates=steps)
    agent = sac.make(spec, config)

    def begin(key: jax.Array) -> Any:
        keys = jax.random.split(key, 5)
        obs, next_obs = (jax.random.normal(k, (ROWS, 1, OBS)) for k in keys[:2])
        action = jax.random.uniform(keys[2], (ROWS, 1, ACTION), minval=-1.0)
        reward, false = jax.random.normal(keys[3], (ROWS, 1)), jnp.zeros((ROWS, 1), bool)
        store = replay.from_rows(Transition(obs, action, reward, next_obs, false, false), cursor=0, size=ROWS)
        return agent.init(keys[4]), store

    def run(state: Any, store: Any, key: jax.Array) -> Any:
        return agent.improve(state, key, store)[0]

    keys = jax.random.split(jax.random.key(0), seeds)
    if seeds == 1:
        state, store = jax.jit(begin)(keys[0])
        compiled = jax.jit(run)
        return lambda: compiled(state, store, keys[0])
    if sharded:
        mesh = jax.make_mesh((len(jax.devices()),), ("seeds",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.sharding.PartitionSpec("seeds")
        vmapped = jax.vmap(run)
        compiled = jax.jit(jax.shard_map(vmapped, mesh=mesh, in_specs=spread, out_specs=spread))
        keys = jax.device_put(keys, jax.sharding.NamedSharding(mesh, spread))
        begun = jax.jit(jax.shard_map(jax.vmap(begin), mesh=mesh, in_specs=spread, out_specs=spread))(keys)
    else:
        compiled, begun = jax.jit(jax.vmap(run)), jax.jit(jax.vmap(begin))(keys)
    return lambda: compiled(*begun, keys)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    timing.use_threads(arguments.threads)
    if arguments.seeds > 1:
        cores = len(os.sched_getaffinity(0))
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={cores}"
    sizes = (arguments.width, arguments.batch, arguments.steps, arguments.seeds)
    runs = {"vmapped" if arguments.seeds > 1 else "one": make_steps(*sizes)}
    if arguments.seeds > 1:
        runs["sharded"] = make_steps(*sizes, sharded=True)
    timed = {name: (lambda run=run: timing.measure(run)) for name, run in runs.items()}
    timings = timing.alternate(timed, arguments.repeats)
    count = arguments.steps * arguments.seeds
    figures: dict[str, Any] = {"width": arguments.width, "batch": arguments.batch, "seeds": arguments.seeds}
    figures["gflop"] = flops(arguments.width, arguments.batch) / 1e9
    for name, values in timings.items():
        middle = timing.median(values)
        figures[name] = {
            "milliseconds": middle.wall / count * 1e3,
            "cpu_milliseconds": middle.cpu / count * 1e3,
            "gflops": flops(arguments.width, arguments.batch) * count / middle.wall / 1e9,
        }
    timing.report("updates", figures)


if __name__ == "__main__":
    main()
