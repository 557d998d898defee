"""Run a sweep: its waves one after another, each as one program over all of its runs, spread over the devices.

The same command on the same directory goes on where it was, on any number of devices and of processes: a wave from its
last checkpoint, with the runs that it began with.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.training import checkpoint, compiling, devices, lock, metrics, progress
from jaxmbrl.training.hosts import ALONE, Host
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.progress import counted, say
from jaxmbrl.training.signals import stop_on_signal
from jaxmbrl.training.sweep import plan, program, store
from jaxmbrl.training.sweep.plan import Part, Sweep, Wave
from jaxmbrl.training.sweep.store import Begun
from jaxmbrl.types import Array, PyTree

CHECKPOINTS = "checkpoints"
EVERY = 60.0  # seconds between the checkpoints of a wave
POLL = 1.0  # seconds between two looks at what other processes have finished

Compiled: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]


class Outcome(NamedTuple):
    """How a sweep ended.

    Attributes:
        rows: of all finished runs, by whatever process: as in a run's ``metrics.jsonl``, with ``configuration`` (an
            index) and ``diverged_at`` (the epoch in which something was not finite any more; 0 for none).
        stopped_by: the signal that stopped it early, or None.
    """

    rows: list[Row]
    stopped_by: int | None = None


class _Stage(NamedTuple):
    """What a wave is run with."""

    sweep: Sweep
    part: Part
    begun: Begun
    compiled: Compiled
    stopped: list[int]
    every: float


def execute(
    sweep: Sweep, directory: Path, gib: float | None = None, *, host: Host = ALONE, every: float = EVERY
) -> Outcome:
    """Run what ``directory`` does not hold yet; with several processes, this one's share, and wait for the others.

    Args:
        sweep: what to run.
        directory: new, empty, or of the same sweep; one that all processes see.
        gib: memory that the states of a wave may take; most of what there is by default.
        host: which process this is.
        every: seconds between the checkpoints of a wave.

    Raises:
        ConfigError: a mistake in the sweep or the directory; nothing was compiled.
        StorageError: a checkpoint could not be written.
    """
    store.check(sweep, directory)
    parts, limit = plan.parts(sweep), plan.limit_bytes(gib)
    plan.check_memory(parts, limit)
    store.create(sweep, directory, host)
    with lock.held(store.lock_file(directory, host)), stop_on_signal() as stopped:
        rows, complete = _finish(sweep, directory, parts, limit, host, stopped, every)
    return Outcome(rows, None if complete else stopped[0])


def _finish(
    sweep: Sweep, directory: Path, parts: list[Part], limit: int, host: Host, stopped: list[int], every: float
) -> tuple[list[Row], bool]:
    """Run what is missing, until the last wave or a signal: rows of all finished runs, and whether that is all."""
    found = {index: part.run.schedule.epochs for part in parts for index in part.configurations}
    epochs = [found[index] for index in range(len(sweep.configurations))]
    store.mend(epochs, directory, host)
    begun = store.begun(directory)  # before what is finished: a wave is told to be so before its folder goes
    present = {sweep.run_at(row["configuration"], row["seed"]) for row in store.finished(epochs, directory)}
    begun = [one for one in begun if not present.intersection(one.wave.runs)]
    taken = present.union(*(one.wave.runs for one in begun))
    missing = sorted(store.mine(sweep, parts, host) - taken)
    waves = plan.waves(sweep, parts, missing, jax.local_device_count(), limit)
    todo: list[Begun | Wave] = [*store.adopted(begun, host), *waves]
    _announce(sweep, parts, len(todo), len(present), host)
    _run_all(sweep, directory, parts, todo, host, stopped, every)
    while True:
        rows = store.finished(epochs, directory)
        complete = len(rows) >= sum(epochs) * sweep.base.seeds
        if complete or stopped:
            return rows, complete
        time.sleep(POLL)  # others are at it


def _run_all(
    sweep: Sweep,
    directory: Path,
    parts: list[Part],
    todo: list[Begun | Wave],
    host: Host,
    stopped: list[int],
    every: float,
) -> None:
    """Run waves until the last one or a signal."""
    before, compiled = None, None
    for number, one in enumerate(todo, 1):
        begun = store.begin(directory, one, host) if isinstance(one, Wave) else one
        wave = begun.wave
        part = next(p for p in parts if sweep.configuration_of(wave.runs[0]) in p.configurations)
        if compiled is None or before != (part.configurations, wave.size):  # the waves of a part have one size
            before, compiled = (part.configurations, wave.size), _compiled(part, wave.size)
        say(f"wave {number}/{len(todo)}: {counted(len(wave.runs), 'run')}")
        rows = _run(_Stage(sweep, part, begun, compiled, stopped, every))
        if len(rows) == part.run.schedule.epochs * len(wave.runs):
            metrics.append(store.metrics_file(directory, host), rows)
            store.end(begun)
        if stopped:
            return


def _run(stage: _Stage) -> list[Row]:
    """Compute a wave, or what is left of it: rows of all its runs and epochs."""
    (init, epoch), sweep, part = stage.compiled, stage.sweep, stage.part
    folder, wave = stage.begun
    filled = [*wave.runs, *[wave.runs[-1]] * (wave.size - len(wave.runs))]
    place = [part.configurations.index(sweep.configuration_of(run)) for run in filled]
    hyper = {path: jnp.asarray(np.array(values)[place], jnp.result_type(float)) for path, values in part.values.items()}
    seeds = [sweep.seed_of(run) for run in filled]
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.int32))
    state, done = _restored(stage, init, hyper, keys) or (init(hyper, keys), 0)
    rows = metrics.truncate(folder / store.METRICS, done)
    begin = time.monotonic() - max((row["wall_seconds"] for row in rows), default=0.0)
    identity, epochs = store.identity(sweep, wave), part.run.schedule.epochs
    saved = time.monotonic()
    with (
        checkpoint.manager(folder / CHECKPOINTS) as checkpoints,
        progress.reporter(done, epochs, int(jnp.sum(state.run.env_steps[: len(wave.runs)]))) as report,
    ):
        for number in range(done + 1, epochs + 1):
            state, measured = epoch(hyper, state)
            new = metrics.rows(seeds, number, jax.device_get(measured), time.monotonic() - begin)[: len(wave.runs)]
            report(number, new)
            new = [{"configuration": sweep.configuration_of(r), **row} for r, row in zip(wave.runs, new, strict=True)]
            metrics.append(folder / store.METRICS, new)
            rows += new
            if number < epochs and (stage.stopped or time.monotonic() - saved >= stage.every):
                checkpoint.save(checkpoints, number, state, identity)
                saved = time.monotonic()
            if number < epochs and stage.stopped:
                return rows
    diverged = sum(row["diverged_at"] > 0 for row in rows[-len(wave.runs) :])
    if diverged:
        say(f"{diverged} of {counted(len(wave.runs), 'run')} diverged, frozen there")
    return rows


def _restored(
    stage: _Stage, init: Callable[..., Any], hyper: Mapping[str, Array], keys: Array
) -> tuple[PyTree, int] | None:
    """A wave's state in its latest good checkpoint, and its epoch; None where it has none, which is said."""
    folder, wave = stage.begun
    place, identity = folder / CHECKPOINTS, store.identity(stage.sweep, wave)
    there = checkpoint.epochs(place)
    if not there:
        return None
    template = devices.placed(jax.eval_shape(init, hyper, keys), wave.size)
    for number in there:
        try:
            _check_rows(folder / store.METRICS, number, len(wave.runs))
            state = checkpoint.restore(place, number, template, identity)
        except ConfigError as error:
            say(f"warning: {error}: going back to the one before, or to the beginning of the wave")
            continue
        checkpoint.set_aside(place, number)
        return state, number
    checkpoint.set_aside(place, 0)
    return None


def _check_rows(path: Path, epochs: int, runs: int) -> None:
    """Raise `ConfigError` unless the rows of all runs up to a checkpoint's epoch are there."""
    number = sum(row["epoch"] <= epochs for row in metrics.read(path))
    if number != epochs * runs:
        raise ConfigError(f"{path}: got {number} of {epochs * runs} rows up to epoch {epochs}, rows are missing")


def _compiled(part: Part, size: int) -> Compiled:
    """The two programs of a part for waves of ``size`` runs, compiled at their first call."""
    made = program.make(part.run, part.traced)
    init, epoch = (devices.over_seeds(function, size) for function in (made.init, made.epoch))
    once, often = compiling.options(made.spec, once=True), compiling.options(made.spec)
    return jax.jit(init, compiler_options=once), jax.jit(epoch, donate_argnums=1, compiler_options=often)


def _announce(sweep: Sweep, parts: list[Part], waves: int, done: int, host: Host) -> None:
    size = max(part.bytes_per_run for part in parts) / 2**20
    finished = f", {done} of them finished already" if done else ""
    share = f", process {host.process} of {host.processes}" if host.processes > 1 else ""
    say(
        f"{counted(sweep.num_runs, 'run')}{finished}: {counted(len(parts), 'program')}, {counted(waves, 'wave')}"
        f" on {counted(jax.local_device_count(), 'device')}{share}; the state of a run takes {size:,.1f} MiB"
    )
