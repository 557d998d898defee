"""Run a system on the host: compile, call epochs, log, checkpoint, resume.

No mathematics happens here. The runner calls the one compiled epoch and looks at what comes out, so a run in chunks
gives the numbers of a single program, and a resumed run those of an uninterrupted one.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import agents, envs, sharding
from jaxmbrl.config import ConfigError
from jaxmbrl.training import (
    checkpoint,
    compiling,
    devices,
    extension,
    finite,
    lock,
    manifest,
    memory,
    metrics,
    profile,
    progress,
    sinks,
)
from jaxmbrl.training.loop import Loop, make_loop
from jaxmbrl.training.manifest import Run
from jaxmbrl.training.progress import say
from jaxmbrl.training.signals import stop_on_signal
from jaxmbrl.types import Agent, Array, Environment, PyTree

METRICS = "metrics.jsonl"
SESSIONS = "sessions.jsonl"
CHECKPOINTS = "checkpoints"


class Program(NamedTuple):
    """What a run computes, for all of its seeds at once.

    Attributes:
        env: the environment.
        agent: the system.
        loop: ``init`` takes keys [S] and ``epoch`` a state with axis S; one seed has no axis.
        keys: [S] or [], what ``loop.init`` takes.
        template: shapes, dtypes and places of the state: the seeds lie on `devices`, a single one on the mesh in force.
        identity: tells the run's checkpoints from those of others.
    """

    env: Environment
    agent: Agent
    loop: Loop
    keys: Array
    template: PyTree
    identity: int


class Session(NamedTuple):
    """One process's share of a run.

    Attributes:
        run: what is run.
        directory: where it is logged.
        compute: the compiled epoch, ``state -> (state, metrics)``; consumes its argument.
        watch: looks at a state for what is not finite.
        begin: when the run began, on the monotonic clock; earlier sessions count as if they had just ended.
        report: shows progress.
        identity: of the run, for its checkpoints.
        log: takes the rows of an epoch.
        around: what an epoch runs in.
    """

    run: Run
    directory: Path
    compute: Callable[[PyTree], tuple[PyTree, Any]]
    watch: Callable[[PyTree], finite.Watched]
    begin: float
    report: progress.Report
    identity: int
    log: Callable[[Sequence[metrics.Row]], None]
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        state: the state after the last epoch.
        epoch: completed epochs.
        stopped_by: the signal that stopped the run early, or None.
    """

    state: PyTree
    epoch: int
    stopped_by: int | None


def build(run: Run) -> Program:
    """Put the parts of ``run`` together, on the host and without compiling anything.

    Raises:
        ConfigError: some part of ``run`` is wrong, or does not fit another, or the state does not fit into memory.
    """
    manifest.check(run)
    sinks.check(run.sinks)
    keys = jax.vmap(jax.random.key)(jnp.asarray(run.all_seeds, jnp.int32))
    with memory.within_memory():
        env = envs.make(run.env, **run.options)
        agent = agents.compose(run.system, env, run.agent)
        loop = make_loop(env, agent, run.schedule)
        if run.seeds == 1:
            keys = keys[0]
        else:
            loop = Loop(*(devices.over_seeds(function, run.seeds) for function in loop))
        template = jax.eval_shape(loop.init, keys)
    template = devices.placed(template, run.seeds, sharding.everywhere())
    memory.check(template)
    return Program(env, agent, loop, keys, template, manifest.identity(run))


def train(run: Run, directory: Path, *, profiled: bool = False) -> Outcome:
    """Start a run in a new directory, and see it to its end.

    Args:
        run: what to run.
        directory: new or empty.
        profiled: measure each phase, and trace a call of it; see `profile`.

    Raises:
        ConfigError: a mistake in ``run`` or ``directory``; nothing was compiled.
        NonFiniteError: a value became nan or infinite; the last good checkpoint stands.
    """
    manifest.check_free(directory)
    program = build(run)
    manifest.create(directory, run)
    with lock.held(directory / SESSIONS):
        return _go(run, directory, program, state=None, done=0, profiled=profiled)


def resume(directory: Path, epochs: int | None = None) -> Outcome:
    """Continue a run from its latest good checkpoint, bit for bit; from the beginning if it has none at all.

    Args:
        directory: of the run.
        epochs: a new total number of epochs, not below the old, to extend the run.

    Raises:
        ConfigError: the directory holds no run, or only damaged checkpoints, or ``epochs`` have passed already; or
            another process is at it.
        NonFiniteError: as in `train`.
    """
    run, versions = manifest.read(directory)
    if epochs is not None:
        if epochs < run.schedule.epochs:
            raise ConfigError(f"epochs: got {epochs}, needs at least {run.schedule.epochs}, what the run began with")
        run = run._replace(schedule=_with_epochs(run.schedule, epochs))
    changed = manifest.differences(versions, manifest.provenance())
    if changed:
        say(f"warning: the run was started under other versions, so numbers may differ: {changed}")
    program = build(run)
    with lock.held(directory / SESSIONS):
        found = restore_latest(directory, program)
        state, done = found or (None, 0)
        checkpoint.set_aside(directory / CHECKPOINTS, done)
        manifest.write(directory, run, versions)
        return _go(run, directory, program, state, done)


def restore_latest(directory: Path, program: Program) -> tuple[PyTree, int] | None:
    """The state in the latest good checkpoint, and its number of epochs; None where there are no checkpoints.

    Raises:
        ConfigError: none is good; says what is wrong with the latest.
    """
    wrong: list[ConfigError] = []
    for epoch in checkpoint.epochs(directory / CHECKPOINTS):
        try:
            state = restore(directory, program, epoch)
        except ConfigError as error:
            wrong.append(error)
            continue
        if wrong:
            say(f"warning: {wrong[0]}: going back to the checkpoint of epoch {epoch}")
        return state, epoch
    if wrong:
        raise wrong[0]
    return None


def restore(directory: Path, program: Program, epoch: int) -> PyTree:
    """The state after ``epoch`` epochs. Raises `ConfigError` where its checkpoint is damaged or of another program."""
    checkpoints, template = directory / CHECKPOINTS, program.template
    stored = checkpoint.shapes(checkpoints, epoch).get("replay.data")
    smaller = template._replace(replay=extension.before(template.replay, stored))
    state = checkpoint.restore(checkpoints, epoch, smaller, program.identity)
    state = state._replace(replay=extension.grow(state.replay, template.replay))
    return jax.device_put(state, _place(template))


def _go(run: Run, directory: Path, program: Program, state: PyTree, done: int, *, profiled: bool = False) -> Outcome:
    """Compile, and call epochs from ``state``, or from the beginning where it is None."""
    begin = time.monotonic()
    kept = metrics.truncate(directory / METRICS, done)
    begin -= max((row["wall_seconds"] for row in kept), default=0.0)
    if len(kept) != done * run.seeds:
        say(f"warning: {METRICS} has {len(kept)} of {done * run.seeds} rows up to epoch {done}; it keeps its gap")
    if done >= run.schedule.epochs:
        say(f"{directory} is finished: {done} of {run.schedule.epochs} epochs; 'resume --epochs N' extends it")
        return Outcome(state, done, None)
    content = json.loads((directory / manifest.FILE).read_text(encoding="utf-8"))
    with stop_on_signal() as stopped, sinks.opened(run.sinks, directory / METRICS, kept, content) as log:
        if run.seeds > 1 and (idle := devices.idle(run.seeds)):
            say(idle)
        say("compiling, and profiling each phase" if profiled else "compiling")
        spec, loop = program.env.spec, program.loop
        state, compute, seconds = compiling.start(loop, spec, program.keys, program.template, state)
        costs = _profile(program, run, state, directory) if profiled else {}
        _record_session(directory, done, seconds, program.template, costs)
        counts: list[dict[str, int]] = []
        around = partial(profile.watching, counts) if profiled else contextlib.nullcontext
        with progress.reporter(done, run.schedule.epochs, int(jnp.sum(state.env_steps))) as report:
            watch = finite.watch(run.schedule, batch_axes=int(run.seeds > 1))
            session = Session(run, directory, compute, watch, begin, report, program.identity, log, around)
            state, epoch = _epochs(session, state, done, stopped)
        if profiled:
            profile.write(directory, costs, counts)
    return Outcome(state, epoch, stopped[0] if epoch < run.schedule.epochs else None)


def _epochs(session: Session, state: PyTree, done: int, stopped: list[int]) -> tuple[PyTree, int]:
    """Run epochs until the last or a signal, with checkpoints on the way and at the end. Consumes ``state``."""
    epoch = saved = done
    with checkpoint.manager(session.directory / CHECKPOINTS) as checkpoints:
        while epoch < session.run.schedule.epochs and not stopped:
            epoch += 1
            with session.around():
                state = _epoch(session, state, epoch)
            if epoch % session.run.checkpoint_every == 0:
                checkpoint.save(checkpoints, epoch, state, session.identity)
                saved = epoch
        if epoch > saved:
            checkpoint.save(checkpoints, epoch, state, session.identity)
    return state, epoch


def _epoch(session: Session, state: PyTree, epoch: int) -> PyTree:
    """One epoch: compute, check, log, show. Consumes ``state``."""
    seeds = session.run.all_seeds
    state, measured = session.compute(state)
    measured = jax.device_get(measured)
    finite.check(seeds, epoch, session.run.schedule, measured, jax.device_get(session.watch(state)))
    rows = metrics.rows(seeds, epoch, measured, time.monotonic() - session.begin)
    session.log(rows)
    session.report(epoch, rows)
    return state


def _profile(program: Program, run: Run, state: PyTree, directory: Path) -> dict[str, profile.Phase]:
    """What each phase costs, told at once."""
    costs = profile.measure(program.env, program.agent, run.schedule, run.seeds, state, directory)
    profile.show(costs)
    return costs


def _place(template: PyTree) -> jax.sharding.Sharding:
    """Where all leaves of a state lie."""
    return jax.tree.leaves(template)[0].sharding


def _record_session(
    directory: Path, done: int, seconds: dict[str, float], template: PyTree, costs: dict[str, profile.Phase]
) -> None:
    """Add a line to ``sessions.jsonl``: when a process took the run up, under what, and its compile times."""
    session = {
        "from_epoch": done,
        "compile_seconds": seconds,
        "state_bytes": memory.num_bytes(template),
        **manifest.provenance(),
        **({"profile": {name: cost._asdict() for name, cost in costs.items()}} if costs else {}),
    }
    with (directory / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(session) + "\n")
    say(f"compiled in {max(seconds.values()):.1f} s; the state takes {memory.num_bytes(template) / 2**20:,.1f} MiB")


def _with_epochs(schedule: Any, epochs: int) -> Any:
    try:
        return dataclasses.replace(schedule, epochs=epochs)
    except ConfigError as error:
        raise ConfigError(f"schedule.{error}") from None
