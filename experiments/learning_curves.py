"""Learning curves of a system on one or more environments: median and interquartile range over seeds.

    python experiments/learning_curves.py pets cartpole_swingup pendulum --seeds 10 --out docs/figures/pets

All seeds of an environment are one vmapped program. Writes OUT.csv and OUT.png.
"""

import argparse
import csv
import itertools
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxmbrl import agents, envs, training

COLOURS = ("#1f6feb", "#d1495b", "#2e933c", "#7d5ba6")


def learn(system: str, name: str, seeds: int, preset: str) -> dict[str, np.ndarray]:
    """Environment steps [epochs] and mean episode returns [seeds, epochs]."""
    module = agents.load(system)
    env = envs.make(name)
    config, schedule = module.preset(preset, env.spec)
    loop = training.make_loop(env, module.make(env.spec, config, env=env), schedule)
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    _, metrics = jax.jit(jax.vmap(training.train(loop, schedule.epochs)))(keys)
    returns = np.where(metrics["episodes"] > 0, metrics["episode_return"], np.nan)
    return {"env_steps": np.asarray(metrics["env_steps"])[0], "returns": returns}


def write_csv(path: Path, curves: dict[str, dict[str, np.ndarray]]) -> None:
    """One row for each environment, seed and epoch."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env", "seed", "env_steps", "episode_return"])
        for name, curve in curves.items():
            for seed, returns in enumerate(curve["returns"]):
                writer.writerows((name, seed, *row) for row in zip(curve["env_steps"], returns, strict=True))


def plot(path: Path, title: str, curves: dict[str, dict[str, np.ndarray]]) -> None:
    """A panel for each environment: every seed thin, the median thick, the interquartile range shaded."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(curves), figsize=(1.2 + 3.4 * len(curves), 3.1), squeeze=False)
    for axis, colour, (name, curve) in zip(axes[0], itertools.cycle(COLOURS), curves.items(), strict=False):
        steps, returns = curve["env_steps"], curve["returns"]
        low, middle, high = np.nanpercentile(returns, [25, 50, 75], axis=0)
        axis.plot(steps, returns.T, color=colour, alpha=0.15, linewidth=0.8)
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(steps, middle, color=colour, linewidth=2.2)
        axis.set(title=name, xlabel="environment steps", xlim=(0, None))
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("return of the training episodes")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> None:
    """Run, write, plot."""
    parser: Any = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system")
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--out", type=Path, default=Path("learning_curves"))
    options = parser.parse_args(argv)
    curves = {name: learn(options.system, name, options.seeds, options.preset) for name in options.envs}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(options.out.with_suffix(".csv"), curves)
    title = f"{options.system} {options.preset}: median and interquartile range of {options.seeds} seeds"
    plot(options.out.with_suffix(".png"), title, curves)


if __name__ == "__main__":
    main()
