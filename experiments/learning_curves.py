"""Learning curves of one or more systems on one or more environments: median and interquartile range over seeds.

    python experiments/learning_curves.py pets cartpole_swingup pendulum --seeds 10 --out docs/figures/pets
    python experiments/learning_curves.py sac,pets,mbpo pendulum --seeds 5 --eval-episodes 5 --out docs/figures/systems
    python experiments/learning_curves.py sac,sac:agent.updates=2,mve pendulum --eval-episodes 10 --out sac_and_mve

A system may be followed by fields in which it differs from its preset, each after a colon:
``sac:agent.updates=2:agent.policy.hidden=(32,32)``. All seeds of a system on an environment are one program, spread
over the devices (on a CPU, one for each core). Writes OUT.csv and OUT.png, anew after each of them.
"""

import csv
import dataclasses
import itertools
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxmbrl import agents, envs, training
from jaxmbrl.cli.words import Parser, exit_code, split_dotted, whole_number
from jaxmbrl.config import ConfigError, override, override_table
from jaxmbrl.training import compiling, devices
from jaxmbrl.types import Environment

COLOURS = ("#1f6feb", "#d1495b", "#2e933c", "#7d5ba6", "#e08e0b", "#3d5a6c", "#1a1a1a", "#00838f")

Curve = dict[str, np.ndarray]
Curves = dict[str, dict[str, Curve]]  # environment -> system -> curve


class Variant(NamedTuple):
    """A system with fields that differ from its preset.

    Attributes:
        label: as in the legend, without what is of the schedule.
        system: its name.
        words: for each of ``agent``, ``env`` and ``schedule`` a table from paths to texts.
    """

    label: str
    system: str
    words: dict[str, dict[str, str]]


class Study(NamedTuple):
    """What learns: a loop in an environment, and for how many epochs."""

    env: Environment
    loop: training.Loop
    epochs: int


def variants(text: str) -> list[Variant]:
    """Read ``SYSTEM[:FIELD=VALUE...][,...]``; commas within parentheses belong to a value.

    Raises:
        ConfigError: a field without a value or of no section, or the same variant twice.
    """
    found = []
    for word in re.split(r",(?![^(]*\))", text):
        system, *fields = word.split(":")
        rest, words = split_dotted([f"--{field}" for field in fields])
        if rest or not all("=" in field for field in fields):
            raise ConfigError(f"systems: got {word!r}, needs SYSTEM or SYSTEM:agent.FIELD=VALUE")
        label = ", ".join(field.removeprefix("agent.") for field in fields if not field.startswith("schedule."))
        found.append(Variant(f"{system} ({label})" if label else system, system, words))
    labels = [variant.label for variant in found]
    if len(set(labels)) < len(labels):
        raise ConfigError(f"systems: got {text!r}, needs each of them once")
    return found


def study(variant: Variant, name: str, preset: str, eval_episodes: int) -> Study:
    """Put a variant and an environment together, without compiling anything. Raises ConfigError."""
    module = agents.load(variant.system)
    env = envs.make(name, **override_table(envs.options(name), variant.words["env"], "env."))
    config, schedule = module.preset(preset, env.spec)
    config = override(config, variant.words["agent"], "agent.")
    schedule = dataclasses.replace(schedule, eval_episodes=eval_episodes)
    schedule = override(schedule, variant.words["schedule"], "schedule.")
    try:
        agent = module.make(env.spec, config, env=env)
    except ConfigError:
        raise
    except ValueError as error:  # such as Spec.box, where a system needs continuous actions
        raise ConfigError(f"{variant.system} does not fit {name}: {error}") from error
    return Study(env, training.make_loop(env, agent, schedule), schedule.epochs)


def learn(study: Study, seeds: int) -> Curve:
    """Environment steps [epochs] and mean returns [seeds, epochs], of evaluation episodes if there are any."""
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    train = training.over_seeds(training.train(study.loop, study.epochs), seeds)
    _, metrics = jax.device_get(jax.jit(train, compiler_options=compiling.options(study.env.spec))(keys))
    returns = np.where(metrics["episodes"] > 0, metrics["episode_return"], np.nan)
    returns = metrics.get("eval_return", returns)
    return {"env_steps": np.asarray(metrics["env_steps"])[0], "returns": returns}


def write_csv(path: Path, curves: Curves, *, evaluated: int) -> None:
    """One row for each environment, system, seed and epoch."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env", "system", "seed", "env_steps", "eval_return" if evaluated else "episode_return"])
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
    plt.close(figure)


def run(argv: list[str]) -> None:
    """Run, write, plot. Raises ConfigError before anything is compiled."""
    parser: Any = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", help="SYSTEM[:FIELD=VALUE...], or several with commas between")
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--seeds", type=whole_number(1), default=10)
    parser.add_argument("--preset", default="small")
    of_policy = "without exploration; 0 shows training episodes"
    parser.add_argument("--eval-episodes", type=whole_number(0), default=0, help=of_policy)
    parser.add_argument("--out", type=Path, default=Path("learning_curves"))
    options = parser.parse_args(argv)
    devices.request(options.seeds)
    chosen = variants(options.systems)
    studies = {
        name: {variant.label: study(variant, name, options.preset, options.eval_episodes) for variant in chosen}
        for name in options.envs
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    what = chosen[0].label if len(chosen) == 1 else "systems"
    title = f"{what}, {options.preset}\nmedian and interquartile range of {options.seeds} seeds"
    curves: Curves = {}
    for name, by_system in studies.items():
        for label, one in by_system.items():
            curves.setdefault(name, {})[label] = learn(one, options.seeds)
            write_csv(options.out.with_suffix(".csv"), curves, evaluated=options.eval_episodes)
            plot(options.out.with_suffix(".png"), title, curves, evaluated=options.eval_episodes)
            sys.stderr.write(f"{name}, {label}: {options.out.with_suffix('.csv')} has its curve\n")


def main() -> int:
    """The exit code: a mistake in the command line is one line on standard error, and 2."""
    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
