"""A run of a sweep as pure functions of its float hyper-parameters, and what happens to one that diverges.

Everything is for one run; a sweep vmaps it. A run in which something is not finite any more is frozen: its floating
leaves stay what they were before the epoch that broke them, ever after. Whole numbers go on (counters that all the runs
of a program have in common must stay in common, see `agents.phases`), and so do the words of its replay store, of which
a copy would double a sweep's memory; nobody reads them any more.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import agents, envs
from jaxmbrl.config import replace_at
from jaxmbrl.training import finite
from jaxmbrl.training.loop import Loop, LoopState, make_loop
from jaxmbrl.training.manifest import Run
from jaxmbrl.types import Array, Environment, Key, Metrics, PyTree, Spec

Hyper = Mapping[str, Array]  # From the dotted path of a float field to its value, [] for one run.

WATCHED = ("agent", "memory", "episodes")  # beside what is seen, the parts of a state that a learner lives on


class State(NamedTuple):
    """A run, and whether it is still one.

    Attributes:
        run: the state of its loop.
        epoch: int32 [], completed epochs.
        diverged_at: int32 [], the epoch in which something was not finite any more; 0 for none.
    """

    run: LoopState
    epoch: Array
    diverged_at: Array


class Program(NamedTuple):
    """A run as two functions, and what it runs in.

    Attributes:
        init: ``(hyper, key) -> State``.
        epoch: ``(hyper, State) -> (State, metrics)``.
        spec: of the environment.
    """

    init: "partial[State]"
    epoch: "partial[tuple[State, Metrics]]"
    spec: Spec


def make(run: Run, traced: tuple[str, ...]) -> Program:
    """The program of ``run`` with the fields ``traced`` left open."""
    # An environment whose own options are fixed is made once; some take seconds.
    fixed = not any(path.startswith("env.") for path in traced)
    env = envs.make(run.env, **run.options)
    kept = env if fixed else None
    return Program(partial(_init, run, kept), partial(_epoch, run, kept), env.spec)


def compose(run: Run, env: Environment | None = None, hyper: Hyper | None = None) -> Loop:
    """The loop of ``run`` with some float fields replaced, by tracers for example.

    Raises:
        ConfigError: some part does not fit another.
    """
    agent, options = run.agent, dict(run.options)
    for path, value in (hyper or {}).items():
        section, _, field = path.partition(".")
        if section == "agent":
            agent = replace_at(agent, field, value)
        else:
            options[field] = value
    env = env or envs.make(run.env, **options)
    return make_loop(env, agents.compose(run.system, env, agent), run.schedule)


def freeze(good: Array, new: PyTree, old: PyTree) -> PyTree:
    """``new`` where a run is ``good`` (bool []); elsewhere its whole numbers, and the floating leaves of ``old``."""

    def choose(after: Array, before: Array) -> Array:
        return jnp.where(good, after, before) if jnp.issubdtype(after.dtype, jnp.inexact) else after

    return jax.tree.map(choose, new, old)


def _init(run: Run, env: Environment | None, hyper: Hyper, key: Key) -> State:
    zero = jnp.zeros((), jnp.int32)
    return State(compose(run, env, hyper).init(key), zero, zero)


def _epoch(run: Run, env: Environment | None, hyper: Hyper, state: State) -> tuple[State, Metrics]:
    """One epoch of a run, or of what is left of it. Metrics have ``diverged_at`` beside the loop's own."""
    epoch = state.epoch + 1
    after, metrics = compose(run, env, hyper).epoch(state.run)
    watched = {name: getattr(after, name) for name in WATCHED}
    watched |= {"obs": after.timestep.obs, "reward": after.timestep.reward, "metrics": metrics}
    good = jnp.stack(list(finite.flags(watched, batch_axes=0).values())).all()
    diverged_at = jnp.where((state.diverged_at == 0) & ~good, epoch, state.diverged_at)
    frozen = freeze(diverged_at == 0, after, state.run)
    return State(frozen, epoch, diverged_at), {**metrics, "diverged_at": diverged_at}
