"""How fast PETS `small` learns: episodes until a threshold, over several seeds in one program.

    python -m benchmarks.learning [cartpole_swingup pendulum cartpole brax/inverted_pendulum] [--seeds 10]
        [--epochs N] [--csv runs/learning.csv]

Episodes are counted from the first random one on. Every episode goes to the CSV; the summary is printed as JSON.
"""

import argparse
import csv
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a task is held to: ``threshold`` (a return) reached within ``within`` episodes."""

    threshold: float
    within: int


GOALS = {
    "cartpole_swingup": Goal(150.0, 8),
    "pendulum": Goal(-250.0, 10),
    "cartpole": Goal(200.0, 8),
    "brax/inverted_pendulum": Goal(950.0, 10),  # 95% of 1,000 steps of reward 1
}


@dataclasses.dataclass(frozen=True)
class Episode:
    """A finished episode: its number from 1 on, the environment steps at its end, its return."""

    number: int
    env_steps: int
    episode_return: float


def episodes(reward: np.ndarray, ended: np.ndarray) -> list[Episode]:
    """The episodes of one environment's steps in order.

    Args:
        reward: [T].
        ended: bool [T], terminated or truncated.
    """
    ends = np.flatnonzero(ended) + 1
    totals = np.concatenate([[0.0], np.cumsum(reward, dtype=np.float64)])
    spans = zip([0, *ends[:-1]], ends, strict=True)
    return [Episode(n + 1, int(end), float(totals[end] - totals[begin])) for n, (begin, end) in enumerate(spans)]


def summarise(runs: Sequence[Sequence[Episode]], goal: Goal) -> dict[str, Any]:
    """Who reached the goal, when, and how the runs ended."""
    first = [next((e for e in run if e.episode_return >= goal.threshold), None) for run in runs]
    reached = [e is not None and e.number <= goal.within for e in first]
    last_three = [float(np.mean([e.episode_return for e in run[-3:]])) for run in runs]
    return {
        "threshold": goal.threshold,
        "within": goal.within,
        "reached": f"{sum(reached)} of {len(runs)}",
        "episodes_until": [e.number if e else None for e in first],
        "env_steps_until": [e.env_steps if e else None for e in first],
        "last_three_mean": last_three,
        "last_three_mean_over_seeds": float(np.mean(last_three)),
    }


def learn(env_name: str, seeds: int, epochs: int | None) -> tuple[list[list[Episode]], dict[str, float]]:
    """Run all seeds in one program; episodes of each seed, and seconds to compile and to run."""
    from jaxmbrl.training import devices

    devices.request(seeds)
    import jax

    from jaxmbrl import envs, replay, training
    from jaxmbrl.agents import pets

    env = envs.make(env_name)
    config, schedule = pets.preset("small", env.spec)
    schedule = dataclasses.replace(schedule, epochs=epochs or schedule.epochs)
    loop = training.make_loop(env, pets.make(env.spec, config), schedule)

    def run(key: jax.Array) -> Any:  # reward and end of each step, in order: one environment, a store that holds all
        state, _ = training.train(loop, schedule.epochs)(key)
        data = replay.transitions(state.replay)
        return data.reward[:, 0], (data.terminated | data.truncated)[:, 0]

    keys = jax.random.split(jax.random.key(0), seeds)
    begin = time.perf_counter()
    compiled = jax.jit(training.over_seeds(run, seeds)).lower(keys).compile()
    compile_seconds = time.perf_counter() - begin
    results: list[Any] = []
    seconds = timing.measure(lambda: results.append(jax.block_until_ready(compiled(keys))))
    reward, ended = jax.device_get(results[0])
    histories = [episodes(r, e) for r, e in zip(reward, ended, strict=True)]
    return histories, {"compile_seconds": compile_seconds, "run_seconds": seconds.wall, "run_cpu_seconds": seconds.cpu}


def main() -> None:
    """Run the tasks, write the CSV, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=list(GOALS), metavar="ENV", help=f"of {', '.join(GOALS)}")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=None, help="default: the preset's")
    parser.add_argument("--csv", type=Path, default=timing.ROOT / "runs" / "learning.csv")
    parser.add_argument("--threads", type=int, default=None, help="cores to use (default: all)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.envs if name not in GOALS]
    if unknown:
        parser.error(f"env: got {unknown[0]}, needs one of {', '.join(GOALS)}")
    timing.use_threads(arguments.threads)
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    figures = {}
    with arguments.csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env", "seed", "episode", "env_steps", "episode_return"])
        for name in arguments.envs:
            runs, seconds = learn(name, arguments.seeds, arguments.epochs)
            figures[name] = {**summarise(runs, GOALS[name]), **seconds, "seeds": arguments.seeds}
            timing.note(f"{name}: {figures[name]}")
            for seed, run in enumerate(runs):
                writer.writerows([name, seed, *dataclasses.astuple(episode)] for episode in run)
            file.flush()
    timing.report("learning", figures)


if __name__ == "__main__":
    main()
