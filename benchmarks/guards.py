"""What it costs to look after a run: the search for values that are not finite, the seal of a checkpoint, its writing.

    python -m benchmarks.guards pets pendulum [--epochs 3] [--agent.FIELD ...]

Each is given as a share of the epoch that it follows. The search and the seal hold up the run; the writing does not.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax

from jaxmbrl import agents, envs
from jaxmbrl.cli.words import split_dotted
from jaxmbrl.config import override
from jaxmbrl.training import checkpoint, finite, manifest, memory, runner


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median wall-clock seconds of a call whose results are waited for."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return median(times)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system")
    parser.add_argument("env")
    parser.add_argument("--epochs", type=int, default=3)
    words, dotted = split_dotted(sys.argv[1:])
    arguments = parser.parse_args(words)
    options = envs.options(arguments.env)
    start = agents.load(arguments.system).preset("small", envs.make(arguments.env, **options).spec)
    agent = override(start.agent, dotted["agent"], "agent.")
    schedule = override(start.schedule, dotted["schedule"], "schedule.")
    run = manifest.Run(arguments.system, arguments.env, "small", options, agent, schedule)
    program = runner.build(run)
    epoch, watch = jax.jit(program.loop.epoch), finite.watch(schedule, batch_axes=0)
    state = jax.jit(program.loop.init)(program.keys)
    state, _ = epoch(state)  # compiles

    def one_epoch() -> Any:
        nonlocal state
        state, metrics = epoch(state)
        return state, metrics

    each = seconds(one_epoch, arguments.epochs)
    jax.device_get(watch(state))
    stored = checkpoint._stored(state)
    costs = {
        "search": seconds(lambda: jax.device_get(watch(state)), 51),
        "seal": seconds(lambda: checkpoint._seal(stored, 0), 51),
    }
    with tempfile.TemporaryDirectory() as place, checkpoint.manager(Path(place)) as opened:

        def save(number: int) -> None:
            checkpoint.save(opened, number, state)
            opened.wait_until_finished()

        numbers = iter(range(1, 10))
        costs["writing"] = seconds(lambda: save(next(numbers)), 5)
    size = memory.num_bytes(program.template) / 2**20
    print(f"{arguments.system} {arguments.env}: epoch {each:.3f} s, state {size:.1f} MiB")
    for name, cost in costs.items():
        print(f"  {name:8} {1e3 * cost:8.2f} ms  {100 * cost / each:6.3f} % of an epoch")


if __name__ == "__main__":
    main()
