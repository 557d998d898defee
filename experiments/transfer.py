"""Transfer of a latent model to another reward: IVG with a model that has learned another task, and from scratch.

    python experiments/transfer.py pendulum --source usual --target lean --keep --rehearsal 3000 --out transfer

The source run learns its task (and ``--also`` others); its model, but for the rewards, is where the target run begins.
With ``--keep``, what the source has seen is carried over too, under the target's rewards, which are known functions;
``--rehearsal`` gradient steps on it, and on the target's random steps, are taken before the new policy first acts, of
which scratch has none. Environment steps are those on the target, from the first random one on. All seeds of a run are
one program. Writes OUT.csv and OUT.png, and prints how many steps each needs until the median is within ``--share`` of
what scratch reaches in the end, measured from the first evaluation.
"""

import csv
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxmbrl import envs, training
from jaxmbrl import replay as replays
from jaxmbrl.agents import ivg
from jaxmbrl.cli.words import Parser, exit_code, whole_number
from jaxmbrl.replay import Replay
from jaxmbrl.training import devices
from jaxmbrl.training.loop import LoopState
from jaxmbrl.types import RewardFn

Curve = tuple[np.ndarray, np.ndarray]  # environment steps [epochs], returns [seeds, epochs]
BEGIN = {"scratch": "#7a7f87", "transfer": "#1f6feb"}


def source(name: str, task: str, also: tuple[str, ...], epochs: int) -> Callable[[jax.Array], LoopState]:
    """A run on the source task, ``key -> its final state``, whose store is full."""
    env = envs.make(name, reward=task)
    config, schedule = ivg.preset("small", env.spec)
    agent = ivg.make(env.spec, dataclasses.replace(config, tasks=also))
    loop = training.make_loop(env, agent, dataclasses.replace(schedule, epochs=epochs))
    run = training.train(loop, epochs)
    return lambda key: run(key)[0]


def behind(seen: Replay, fresh: Replay, reward: RewardFn) -> Replay:
    """A store that goes on from ``fresh``, with all of a full one, ``seen``, as if it had come before.

    What came before is rewarded by ``reward``, and its last step is one that no sequence goes on from. ``fresh`` has
    overwritten nothing yet.
    """
    rows = replays.latest(seen, len(seen.data))
    paid = jax.vmap(jax.vmap(reward))(rows.obs, rows.action, rows.next_obs)
    rows = rows._replace(reward=paid, truncated=rows.truncated.at[-1].set(True))
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), rows, replays.transitions(fresh))
    return replays.from_rows(both, cursor=fresh.cursor + len(seen.data), size=fresh.size + len(seen.data))


def target(name: str, task: str, options: Any) -> Callable[..., dict[str, jax.Array]]:
    """A run on the target task, ``(key, the source's final state or None) -> metrics``.

    It takes more gradient steps for each step in the world than the preset, so that what is seen limits it.
    """
    env = envs.make(name, reward=task)
    config, schedule = ivg.preset("small", env.spec)
    steps = options.epoch_steps
    schedule = dataclasses.replace(
        schedule, prefill=steps, epochs=options.epochs, epoch_steps=steps, eval_episodes=options.eval_episodes
    )
    agent, one_step = (ivg.make(env.spec, dataclasses.replace(config, updates=n)) for n in (options.updates, 1))
    loop = training.make_loop(env, agent, schedule)

    def rehearse(state: LoopState, key: jax.Array) -> LoopState:
        def learn(learner: ivg.State, key: jax.Array) -> tuple[ivg.State, None]:
            return one_step.improve(learner, key, state.replay)[0], None

        keys = jax.random.split(key, options.rehearsal)
        return state._replace(agent=jax.lax.scan(learn, state.agent, keys)[0])

    def run(key: jax.Array, learned: LoopState | None = None) -> dict[str, jax.Array]:
        state: LoopState = loop.init(key)
        if learned is not None:
            state = state._replace(agent=ivg.transfer(learned.agent, state.agent))
            if options.keep:
                state = state._replace(replay=behind(learned.replay, state.replay, env.spec.tasks[task]))
            state = rehearse(state, jax.random.fold_in(key, 1))
        return jax.lax.scan(lambda state, _: loop.epoch(state), state, length=options.epochs)[1]

    return run


def steps_until(curve: Curve, level: float) -> int | None:
    """Environment steps until the median over seeds is at ``level``, for the first of two evaluations in a row."""
    steps, returns = curve
    above = np.median(returns, axis=0) >= level
    lasting = np.flatnonzero(above[:-1] & above[1:])
    return int(steps[lasting[0]]) if len(lasting) else None


def compare(options: Any) -> dict[str, Curve]:
    """Run the source, then the target with its model and from scratch, with the same keys."""
    keys = jax.vmap(jax.random.key)(np.arange(options.seeds))
    fresh_keys = jax.vmap(jax.random.key)(1000 + np.arange(options.seeds))
    run_source = source(options.env, options.source, tuple(options.also), options.source_epochs)
    run_target = target(options.env, options.target, options)
    learned = jax.jit(training.over_seeds(run_source, options.seeds))(keys)
    metrics = {
        "scratch": jax.jit(training.over_seeds(run_target, options.seeds))(fresh_keys),
        "transfer": jax.jit(training.over_seeds(run_target, options.seeds))(fresh_keys, learned),
    }
    return {name: (np.asarray(m["env_steps"])[0], np.asarray(m["eval_return"])) for name, m in metrics.items()}


def plot(path: Path, title: str, curves: dict[str, Curve]) -> None:
    """Medians and interquartile ranges."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    for name, (steps, returns) in curves.items():
        low, middle, high = np.percentile(returns, [25, 50, 75], axis=0)
        axis.fill_between(steps, low, high, color=BEGIN[name], alpha=0.18, linewidth=0)
        axis.plot(steps, middle, color=BEGIN[name], linewidth=2.0, label=name)
    axis.set(title=title, xlabel="environment steps on the target", ylabel="return without exploration", xlim=(0, None))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def run(argv: list[str]) -> None:
    """Run, write, plot, print. Raises ConfigError."""
    parser: Any = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("env")
    parser.add_argument("--source", default="usual", help="the reward that the model is learned with")
    parser.add_argument("--also", nargs="*", default=[], help="rewards that the source learns beside it")
    parser.add_argument("--target", required=True, help="the reward that the model is carried over to")
    parser.add_argument("--seeds", type=whole_number(1), default=5)
    parser.add_argument("--source-epochs", type=whole_number(1), default=15)
    parser.add_argument("--epochs", type=whole_number(1), default=16)
    parser.add_argument(
        "--epoch-steps", type=whole_number(1), default=100, help="environment steps between two evaluations"
    )
    parser.add_argument(
        "--updates", type=whole_number(1), default=3, help="gradient steps for each environment step on the target"
    )
    parser.add_argument("--keep", action="store_true", help="carry over what the source has seen, too")
    parser.add_argument(
        "--rehearsal",
        type=whole_number(0),
        default=0,
        help="gradient steps before the new policy first acts; with --keep",
    )
    parser.add_argument("--eval-episodes", type=whole_number(1), default=10)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--out", type=Path, default=Path("transfer"))
    options = parser.parse_args(argv)
    if options.rehearsal and not options.keep:
        parser.error(
            f"argument --rehearsal: got {options.rehearsal}, needs --keep: there is nothing else to learn from"
        )
    devices.request(options.seeds)
    curves = compare(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["begin", "seed", "env_steps", "eval_return"])
        for name, (steps, returns) in curves.items():
            for seed, row in enumerate(returns):
                writer.writerows((name, seed, *pair) for pair in zip(steps, row, strict=True))
    title = f"{options.env}: {options.source} to {options.target}, {options.seeds} seeds"
    plot(options.out.with_suffix(".png"), title, curves)
    median = np.median(curves["scratch"][1], axis=0)
    level = float(median[0] + options.share * (np.mean(median[-3:]) - median[0]))
    until = {name: steps_until(curve, level) for name, curve in curves.items()}
    print(json.dumps({"level": level, "env_steps_until": until}))


def main() -> int:
    """The exit code: a mistake in the command line is one line on standard error, and 2."""
    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
