"""Let Optuna choose the float fields of a system: a trial is all its seeds at once, and only the first one compiles.

    pip install 'jaxmbrl[optuna]'
    python experiments/optuna_search.py sac pendulum --trials 20 --epochs 24 \
        --search agent.policy.learning_rate=log:1e-4..1e-2 --search agent.policy.discount=0.9..0.999

The fields are arguments of the compiled program (`training.sweep.program`), not constants in it. A trial reports
its mean return after each epoch, so that Optuna can prune it; one that diverges is pruned too.
"""

import dataclasses
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl import agents, envs
from jaxmbrl.cli.words import Parser, whole_number
from jaxmbrl.config import ConfigError
from jaxmbrl.training import devices, metrics
from jaxmbrl.training.manifest import Run
from jaxmbrl.training.sweep import Sweep, grid, plan, program, results


def space(run: Run, searched: Sequence[str]) -> tuple[dict[str, grid.Range], plan.Part]:
    """The range of each field, and the program that they leave open. Both ends must be valid; nothing is compiled.

    Raises:
        ConfigError: a range is wrong, or its field cannot vary inside a compiled program.
    """
    axes = [grid.parse(text) for text in searched]
    ranges = {axis.path: axis.values for axis in axes if isinstance(axis.values, grid.Range)}
    if len(ranges) < max(len(searched), 1):
        raise ConfigError(f"search: got {' '.join(searched) or 'nothing'}, needs different fields, as FIELD=LOW..HIGH")
    ends = tuple({path: repr(getattr(of, end)) for path, of in ranges.items()} for end in ("low", "high"))
    first, *others = plan.parts(Sweep(run, {}, ends))
    if others:
        raise ConfigError(f"search: got {', '.join(ranges)}, needs float fields that can vary inside a program")
    return ranges, first


def objective(part: plan.Part, ranges: dict[str, grid.Range]) -> Callable[[Any], float | None]:
    """From an Optuna trial to its score, the mean return of the last quarter of its epochs; None for a pruned one."""
    run, seeds = part.run, part.run.seeds
    made = program.make(run, part.traced)
    init, epoch = (jax.jit(devices.over_seeds(function, seeds)) for function in (made.init, made.epoch))
    keys = jax.vmap(jax.random.key)(jnp.asarray(run.all_seeds))

    def score(trial: Any) -> float | None:
        chosen = {path: trial.suggest_float(path, of.low, of.high, log=of.log) for path, of in ranges.items()}
        hyper = {path: jnp.full(seeds, value, jnp.result_type(float)) for path, value in chosen.items()}
        state, curve = init(hyper, keys), []
        for number in range(1, run.schedule.epochs + 1):
            state, measured = epoch(hyper, state)
            rows = metrics.rows(run.all_seeds, number, jax.device_get(measured), 0.0)
            if any(row["diverged_at"] for row in rows):
                return None
            name = results.measure(rows)
            returns = [row[name] for row in rows if row[name] is not None]
            if not returns:  # no episode has ended yet
                continue
            curve.append((number, float(np.mean(returns))))
            trial.report(curve[-1][1], number)
            if trial.should_prune():
                return None
        if not curve:
            raise ConfigError(f"epochs: got {run.schedule.epochs}, in which no episode ends, needs more")
        return results.score(curve)

    return score


def search(run: Run, options: Any) -> None:
    """Run a study, and print what came of each trial and the best one as a command."""
    import optuna

    ranges, part = space(run, options.search)
    score = objective(part, ranges)

    def attempt(trial: optuna.Trial) -> float:
        begin = time.monotonic()
        value = score(trial)
        fields = " ".join(f"{path}={number:.3g}" for path, number in trial.params.items())
        outcome = "pruned" if value is None else f"return {value:.4g}"
        print(f"trial {trial.number}: {fields}: {outcome}, {time.monotonic() - begin:.1f} s", flush=True)
        if value is None:
            raise optuna.TrialPruned
        return value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=run.schedule.epochs // 3)
    sampler = optuna.samplers.TPESampler(seed=options.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(attempt, n_trials=options.trials)
    states = [trial.state for trial in study.trials]
    complete, pruned = (
        states.count(state) for state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    )
    print(f"{complete} trials complete, {pruned} pruned")
    if complete:
        best = [text for path, value in study.best_params.items() for text in (f"--{path}", repr(value))]
        words = ["jaxmbrl", "train", run.system, run.env, "--seed", str(run.seed), "--seeds", str(run.seeds)]
        print(f"best: {shlex.join([*words, '--schedule.epochs', str(run.schedule.epochs), *best])}")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line; a mistake is one line and code 2."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("system", help="such as sac")
    parser.add_argument("env", help="such as pendulum")
    parser.add_argument("--search", action="append", default=[], metavar="FIELD=LOW..HIGH", help="or log:LOW..HIGH")
    parser.add_argument("--trials", type=whole_number(1), default=20)
    parser.add_argument("--epochs", type=whole_number(1), help="of a trial (default: the preset's)")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="the first of a trial's seeds, and the sampler's"
    )
    parser.add_argument("--seeds", type=whole_number(1), default=2, help="of each trial")
    try:
        options = parser.parse_args(argv)
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("optuna is not installed: pip install 'jaxmbrl[optuna]'")
        devices.request(options.seeds)
        agent, schedule = agents.load(options.system).preset("small", envs.make(options.env).spec)
        if options.epochs is not None:
            schedule = dataclasses.replace(schedule, epochs=options.epochs)
        environment = envs.options(options.env)
        run = Run(options.system, options.env, "small", environment, agent, schedule, options.seed, options.seeds)
        search(run, options)
    except ConfigError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
