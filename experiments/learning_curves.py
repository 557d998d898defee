"""Learning curves of one or more systems on one or more environments: median and interquartile range over seeds.

    python experiments/learning_curves.py pets cartpole_swingup pendulum --seeds 10 --out docs/figures/pets
    python experiments/learning_curves.py sac,pets,mbpo pendulum --seeds 5 --eval-episodes 5 --out docs/figures/systems

All seeds of a system on an environment are one program, spread over the devices (on a CPU, one for each core). Writes
OUT.csv and OUT.png.
"""

import argparse
import csv
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxmbrl import agents, envs, training
from jaxmbrl.training import compiling, devices

COLOURS = ("#1f6feb", "#d1495b", "#2e933c", "#7d5ba6", "#e08e0b", "#3d5a6c", "#c2185b", "#00838f")

Curve = dict[str, np.ndarray]
Curves = dict[str, dict[str, Curve]]  # environment -> system -> curve


def learn(system: str, name: str, seeds: int, preset: str, eval_episodes: int) -> Curve:
    """Environment steps [epochs] and mean returns [seeds, epochs], of evaluation episodes if there are any."""
    module = agents.load(system)
    env = envs.make(name)
    config, schedule = module.preset(preset, env.spec)
    schedule = dataclasses.replace(schedule, eval_episodes=eval_episodes)
    loop = training.make_loop(env, module.make(env.spec, config, env=env), schedule)
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    train = training.over_seeds(training.train(loop, schedule.epochs), seeds)
    _, metrics = jax.device_get(jax.jit(train, compiler_options=compiling.options(env.spec))(keys))
    returns = np.where(metrics["episodes"] > 0, metrics["episode_return"], np.nan)
    returns = metrics.get("eval_return", returns)
    return {"env_steps": np.asarray(metrics["env_steps"])[0], "returns": returns}


def write_csv(path: Path, curves: Curves) -> None:
    """One row for each environment, system, seed and epoch."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env", "system", "seed", "env_steps", "episode_return"])
        for name, by_system in curves.items():
            for system, curve in by_system.items():
                for seed, returns in enumerate(curve["returns"]):
                    rows = zip(curve["env_steps"], returns, strict=True)
                    writer.writerows((name, system, seed, *row) for row in rows)


def plot(path: Path, title: str, curves: Curves, *, evaluated: int) -> None:
    """A panel for each environment: every seed thin, the median thick, the interquartile range shaded."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    several = max(map(len, curves.values())) > 1
    width = (2.2 if several else 1.2) + (5.2 if several else 3.4) * len(curves)
    figure, axes = plt.subplots(1, len(curves), figsize=(width, 3.6 if several else 3.1), squeeze=False)
    for axis, (name, by_system) in zip(axes[0], curves.items(), strict=True):
        for colour, (system, curve) in zip(itertools.cycle(COLOURS), by_system.items(), strict=False):
            steps, returns = curve["env_steps"], curve["returns"]
            low, middle, high = np.nanpercentile(returns, [25, 50, 75], axis=0)
            if not several:
                axis.plot(steps, returns.T, color=colour, alpha=0.15, linewidth=0.8)
            axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(steps, middle, color=colour, linewidth=2.0, label=system)
        axis.set(title=name, xlabel="environment steps", xlim=(0, None))
        axis.grid(alpha=0.25)
    of_training = "return of the training episodes"
    axes[0][0].set_ylabel(f"return, mean of {evaluated} episodes" if evaluated else of_training)
    if several:
        axes[0][-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> None:
    """Run, write, plot."""
    parser: Any = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", help="one, or several with commas between")
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--eval-episodes", type=int, default=0, help="without exploration; 0 shows training episodes")
    parser.add_argument("--out", type=Path, default=Path("learning_curves"))
    options = parser.parse_args(argv)
    devices.request(options.seeds)
    systems = options.systems.split(",")
    curves: Curves = {}
    for name in options.envs:
        curves[name] = {
            system: learn(system, name, options.seeds, options.preset, options.eval_episodes) for system in systems
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(options.out.with_suffix(".csv"), curves)
    what = systems[0] if len(systems) == 1 else "systems"
    title = f"{what} ({options.preset}): median and interquartile range of {options.seeds} seeds"
    plot(options.out.with_suffix(".png"), title, curves, evaluated=options.eval_episodes)


if __name__ == "__main__":
    main()
