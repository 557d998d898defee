"""World Models on car racing: controllers evolved in dreams and in the environment, beside the best of random ones.

    python experiments/car_racing.py --seeds 4 --out docs/figures/car_racing

Both begin with the experience of random controllers and go on by the iterative procedure (Ha and Schmidhuber 2018,
arXiv:1803.10122, Sec. 5). The random controllers that they are compared with are linear too, and see through the V and
M that the run in the environment has learned; each is judged by its mean over ``--random-episodes``, so that the best
of them is overrated. All seeds of a run are one program. Writes OUT.csv, OUT.png, and OUT-dream-*: an episode of the
first seed that learned in dreams, and what it dreams of that after a few pictures.
"""

import csv
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxmbrl import envs, training
from jaxmbrl.agents import world_models
from jaxmbrl.agents.world_models import EVOLVE_IN
from jaxmbrl.cli.words import Parser, exit_code, whole_number
from jaxmbrl.diagnostics import open_loop
from jaxmbrl.models import actions, mdn_rnn
from jaxmbrl.models.networks import MLP
from jaxmbrl.policies import evolution
from jaxmbrl.training import devices
from jaxmbrl.training.evaluation import rollout
from jaxmbrl.types import Agent, Array, Environment, Key

COLORS = {"dream": "#8250df", "environment": "#1f6feb"}
SCALES = (0.03, 1.0)  # least and greatest standard deviation of a random controller's weights
CONTEXT, FORESEEN = 5, 40  # pictures that the model is shown, and those that it dreams


class System(NamedTuple):
    """What is run, and the configuration that it was made from."""

    config: world_models.Config
    agent: Agent
    run: Any


def system(env: Environment, evolve_in: str, options: Any) -> System:
    """The preset ``small`` at this experiment's sizes; its run is ``key -> (agent's state, metrics)``."""
    config, schedule = world_models.preset("small", env.spec)
    sizes = {
        "dream": (options.dream_generations, options.dream_episodes, options.dream_steps),
        "environment": (options.generations, options.episodes, env.spec.episode_length),
    }
    generations, episodes, horizon = sizes[evolve_in]
    planner = dataclasses.replace(config.planner, iterations=generations)
    config = dataclasses.replace(config, evolve_in=evolve_in, planner=planner, episodes=episodes, horizon=horizon)
    schedule = dataclasses.replace(
        schedule, prefill=options.prefill, epoch_steps=options.epoch_steps, eval_episodes=options.eval_episodes
    )
    agent = world_models.make(env.spec, config, env=env)
    train = training.train(training.make_loop(env, agent, schedule), options.epochs)

    def run(key: Key) -> tuple[world_models.State, dict[str, Array]]:
        state, metrics = train(key)
        return state.agent, {name: metrics[name] for name in ("env_steps", "eval_return")}

    return System(config, agent, run)


def random_returns(env: Environment, config: world_models.Config, num: int, episodes: int) -> Any:
    """``(agent's state, key) -> returns [num]`` of random controllers, means over ``episodes``."""
    world = evolution.filtered(env, mdn_rnn.make(env.spec, config.model).world)
    features = config.model.autoencoder.latent + config.model.hidden
    controller = evolution.controller(env.spec, MLP((), actions.size(env.spec.action)), features)

    def run(state: world_models.State, key: Key) -> Array:
        key_scale, key_weights, key_episodes = jax.random.split(key, 3)
        scale = jax.random.uniform(key_scale, (num, 1), minval=np.log(SCALES[0]), maxval=np.log(SCALES[1]))
        weights = jnp.exp(scale) * jax.random.normal(key_weights, (num, controller.size))
        judge = evolution.objective(
            world,
            state.model,
            evolution.fresh(env, world, state.model),
            controller.act,
            horizon=env.spec.episode_length,
            episodes=episodes,
        )
        return judge(key_episodes, weights)

    return run


def draw_dream(env: Environment, agent: Agent, state: world_models.State, key: Key, path: Path) -> None:
    """An episode, and what the model dreams of it under the same actions."""
    key_episode, key_dream = jax.random.split(key)
    timesteps, taken = jax.jit(rollout(env, agent))(state, key_episode)
    last = min(CONTEXT + FORESEEN, int(np.argmax(timesteps.terminated | timesteps.truncated)))
    known = jax.tree.map(lambda leaf: leaf[: last + 1], timesteps)
    assert agent.foresee is not None
    told = jax.jit(partial(agent.foresee, context=CONTEXT))(state, key_dream, known, taken[:last])
    open_loop.draw(told.seen, told.imagined, CONTEXT, path)


def plot(path: Path, curves: dict[str, dict[str, np.ndarray]], best: np.ndarray, seeds: int) -> None:
    """Returns of each seed and their median; the best random controller of each."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axis = plt.subplots(figsize=(7.6, 3.4))
    for name, curve in curves.items():
        steps, returns = curve["env_steps"][0], curve["eval_return"]
        axis.plot(steps, returns.T, color=COLORS[name], linewidth=0.8, alpha=0.4)
        axis.plot(steps, np.median(returns, axis=0), color=COLORS[name], linewidth=2.2, label=f"evolved in the\n{name}")
    axis.axhspan(best.min(), best.max(), color="0.5", alpha=0.25, linewidth=0)
    axis.axhline(float(np.median(best)), color="0.4", linestyle="--", label="best of the\nrandom controllers")
    axis.set(title=f"car racing, {seeds} seeds", xlabel="environment steps in the store", ylabel="return")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def run(argv: list[str]) -> None:
    """Run, write, plot, print. Raises ConfigError."""
    parser: Any = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=whole_number(1), default=4)
    parser.add_argument("--epochs", type=whole_number(1), default=3, help="rounds of the iterative procedure")
    parser.add_argument(
        "--generations", type=whole_number(1), default=15, help="of CMA-ES in the environment, in each round"
    )
    parser.add_argument(
        "--episodes", type=whole_number(1), default=6, help="in the environment, that judge a candidate"
    )
    parser.add_argument(
        "--dream-generations", type=whole_number(1), default=40, help="of CMA-ES in dreams, in each round"
    )
    parser.add_argument("--dream-episodes", type=whole_number(1), default=16, help="dreamt ones that judge a candidate")
    parser.add_argument("--dream-steps", type=whole_number(1), default=50, help="of a dreamt episode")
    parser.add_argument("--prefill", type=whole_number(1), default=3000)
    parser.add_argument("--epoch-steps", type=whole_number(1), default=1000)
    parser.add_argument("--eval-episodes", type=whole_number(1), default=10)
    parser.add_argument("--controllers", type=whole_number(1), default=100, help="random ones")
    parser.add_argument("--random-episodes", type=whole_number(1), default=6, help="that judge each of them")
    parser.add_argument("--size", type=whole_number(1), default=32, help="of the pictures")
    parser.add_argument("--action-repeat", type=whole_number(1), default=4)
    parser.add_argument(
        "--episode-length", type=whole_number(1), default=600, help="before actions are repeated; 50 are a second"
    )
    parser.add_argument("--out", type=Path, default=Path("car_racing"))
    options = parser.parse_args(argv)
    devices.request(options.seeds)
    env = envs.make(
        "car_racing",
        size=options.size,
        action_repeat=options.action_repeat,
        episode_length=options.episode_length,
    )
    keys = jax.vmap(jax.random.key)(np.arange(options.seeds))
    curves, states, systems = {}, {}, {}
    for name in EVOLVE_IN:
        systems[name] = system(env, name, options)
        states[name], metrics = jax.jit(training.over_seeds(systems[name].run, options.seeds))(keys)
        curves[name] = {key: np.asarray(value) for key, value in metrics.items()}
        print(name, np.median(curves[name]["eval_return"], axis=0).round(1).tolist(), flush=True)
    judge = random_returns(env, systems["environment"].config, options.controllers, options.random_episodes)
    fresh_keys = jax.vmap(jax.random.key)(1000 + np.arange(options.seeds))
    judged = jax.jit(training.over_seeds(judge, options.seeds))(states["environment"], fresh_keys)
    best = np.asarray(judged).max(axis=1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["evolved_in", "seed", "env_steps", "eval_return", "best_random"])
        for name, curve in curves.items():
            for seed in range(options.seeds):
                pairs = zip(curve["env_steps"][seed], curve["eval_return"][seed], strict=True)
                writer.writerows((name, seed, *pair, best[seed]) for pair in pairs)
    plot(options.out.with_suffix(".png"), curves, best, options.seeds)
    first = jax.tree.map(lambda leaf: leaf[0], states["dream"])
    draw_dream(env, systems["dream"].agent, first, jax.random.key(7), Path(f"{options.out}-dream"))
    final = {name: curve["eval_return"][:, -1].tolist() for name, curve in curves.items()}
    print(json.dumps({"final": final, "best_random": best.tolist(), "median_random": float(np.median(judged))}))


def main() -> int:
    """The exit code: a mistake in the command line is one line on standard error, and 2."""
    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
