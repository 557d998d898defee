"""How a sweep is cut: by its static fields into parts, one program each, and by memory into waves of runs."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl import envs
from jaxmbrl.config import ConfigError, override, override_table, value_at
from jaxmbrl.training import manifest, memory
from jaxmbrl.training.manifest import Run
from jaxmbrl.training.progress import say
from jaxmbrl.training.sweep import program
from jaxmbrl.training.sweep.grid import SECTIONS, Configuration
from jaxmbrl.types import PyTree

_CONCRETE = (TypeError, ValueError, jax.errors.JAXTypeError)  # What code raises that needs a number, not a tracer.
USED = 0.8  # Of a device's memory: what an epoch needs beside the states is known only once it is compiled.


class Sweep(NamedTuple):
    """What to run: every configuration with every seed.

    Attributes:
        base: what all the runs share, and the seeds of each configuration.
        words: the command line's own settings of ``base``, from dotted paths to texts.
        configurations: what each changes in ``base``.
    """

    base: Run
    words: Configuration
    configurations: tuple[Configuration, ...]

    @property
    def num_runs(self) -> int:
        """Run r has configuration r // seeds, and of the seeds number r % seeds."""
        return len(self.configurations) * self.base.seeds

    def run_at(self, configuration: int, seed: int) -> int:
        """The number of a run."""
        return configuration * self.base.seeds + seed - self.base.seed

    def configuration_of(self, run: int) -> int:
        """Index of the configuration of a run."""
        return run // self.base.seeds

    def seed_of(self, run: int) -> int:
        """Seed of a run."""
        return self.base.all_seeds[run % self.base.seeds]


class Part(NamedTuple):
    """Configurations that differ in float fields only: one program.

    Attributes:
        run: the run of the first one.
        traced: the fields in which they differ, or could.
        configurations: their indices, C of them.
        values: of the traced fields, [C] each.
        template: ``program.State`` of one run, shapes and dtypes.
        bytes_per_run: of that state, and of the copy that a diverged run is restored from.
    """

    run: Run
    traced: tuple[str, ...]
    configurations: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    template: PyTree
    bytes_per_run: int


class Wave(NamedTuple):
    """Runs that one call of a program computes.

    Attributes:
        runs: all of one part.
        size: how many there is room for, at least ``len(runs)``: what is missing is filled with copies of the last
            run, so that the runs share the devices equally.
    """

    runs: tuple[int, ...]
    size: int


def run_of(sweep: Sweep, index: int) -> Run:
    """The run of a configuration, with the sweep's seeds. Raises `ConfigError` in one line that names the field."""
    # What was set for all comes with it: it holds for the parts that the configuration chooses, too.
    base, words = sweep.base, sections({**sweep.words, **sweep.configurations[index]})
    return base._replace(
        agent=override(base.agent, words["agent"], "agent."),
        schedule=override(base.schedule, words["schedule"], "schedule."),
        options=override_table(base.options, words["env"], "env."),
    )


def sections(words: Configuration) -> dict[str, dict[str, str]]:
    """Words by section: ``{"agent.x": "1"}`` to ``{"agent": {"x": "1"}, ...}``."""
    result: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for path, text in words.items():
        section, _, field = path.partition(".")
        result[section][field] = text
    return result


def parts(sweep: Sweep) -> list[Part]:
    """Validate every configuration, and sort them into parts; nothing is compiled.

    A float field is traced if a run can be built and traced with an array in its place; if not, each of its values is
    a part of its own, which is said in one line.

    Raises:
        ConfigError: a configuration is wrong, or its state does not fit into memory.
    """
    manifest.check(sweep.base)
    runs = _valid(sweep)
    fixed: set[str] = set()
    while True:
        try:
            return [_part(runs, *group) for group in _grouped(sweep, runs, fixed)]
        except _NotTracedError as error:
            fixed.update(error.fields)
            names = ", ".join(error.fields)
            say(f"{names}: cannot vary inside a compiled program, so each value is compiled by itself")


def check_memory(parts: Sequence[Part], limit: int) -> None:
    """Raise `ConfigError` where a single run takes more than ``limit`` bytes."""
    most = max(part.bytes_per_run for part in parts)
    if most > limit:
        raise ConfigError(
            f"memory: got {limit / 2**30:,.3g} GiB, needs at least {most / 2**30:,.3g}, which one run takes"
        )


def waves(sweep: Sweep, parts: Sequence[Part], runs: Sequence[int], devices: int, limit: int) -> list[Wave]:
    """Cut ``runs`` into waves, each of one part, of equal size within a part so that it is compiled once.

    Args:
        sweep: whose they are.
        parts: of the sweep.
        runs: those that are to be run.
        devices: D, which share the runs of a wave.
        limit: bytes that all the states of a wave may take; one run of each part fits, see `check_memory`.
    """
    result = []
    for part in parts:
        mine = [run for run in runs if sweep.configuration_of(run) in part.configurations]
        most = limit // part.bytes_per_run
        most = max(most - most % devices, 1) if most > devices else most
        number = -(-len(mine) // most)
        size = -(-len(mine) // number) if number else 0
        size = size if size < devices else -(-size // devices) * devices
        result += [Wave(tuple(chunk), size) for chunk in _chunks(mine, size)]
    return result


def limit_bytes(gib: float | None) -> int:
    """Bytes that the states of a wave may take: what was asked for, or most of what the devices have."""
    if gib is None:
        return int(USED * memory.capacity())
    if not 0 < gib < float("inf"):
        raise ConfigError(f"memory: got {gib!r}, needs a number of GiB above 0")
    return int(gib * 2**30)


class _NotTracedError(Exception):
    """A run cannot be traced with arrays in these fields."""

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__(*fields)
        self.fields = fields


def _valid(sweep: Sweep) -> list[Run]:
    """The run of each configuration, put together once: what does not fit is told before anything is traced."""
    made: dict[Any, Any] = {}  # environments, which may take seconds, by their options
    runs = []
    for index in range(len(sweep.configurations)):
        run = run_of(sweep, index)
        with memory.within_memory():
            options = tuple(run.options.items())
            if options not in made:
                made[options] = envs.make(run.env, **run.options)
            program.compose(run, made[options])
        runs.append(run)
    _check_different(sweep, runs)
    return runs


def _check_different(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Raise `ConfigError` where two configurations are one, in other words."""
    found: dict[Any, int] = {}
    for index, run in enumerate(runs):
        twin = found.setdefault((run.agent, run.schedule, *run.options.items()), index)
        if twin != index:
            one, other = (" ".join(map("=".join, sweep.configurations[i].items())) for i in (twin, index))
            raise ConfigError(f"vary: got {one} and {other}, needs different values")


def _grouped(sweep: Sweep, runs: Sequence[Run], fixed: set[str]) -> list[tuple[tuple[str, ...], list[int]]]:
    """The float fields that vary, and the indices of the configurations that have all others in common."""
    groups: dict[Any, list[int]] = {}
    for index, words in enumerate(sweep.configurations):
        floats = tuple(path for path in words if path not in fixed and type(_value(runs[index], path)) is float)
        static = tuple((path, text) for path, text in words.items() if path not in floats)
        groups.setdefault((floats, static), []).append(index)
    return [(floats, indices) for (floats, _), indices in groups.items()]


def _value(run: Run, path: str) -> Any:
    section, _, field = path.partition(".")
    return run.options[field] if section == "env" else value_at(getattr(run, section), field)


def _part(runs: Sequence[Run], floats: tuple[str, ...], indices: list[int]) -> Part:
    """Trace the run of some configurations. Raises `_NotTracedError` where some of ``floats`` do not allow that."""
    run = runs[indices[0]]
    try:
        template = _template(run, floats)
    except _CONCRETE:
        if not floats:
            raise
        alone = [path for path in floats if not _traces(run, path)]
        raise _NotTracedError(alone or floats) from None
    memory.check(template)
    copied = [leaf for leaf in jax.tree.leaves(template) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return Part(
        run=run,
        traced=floats,
        configurations=tuple(indices),
        values={path: tuple(_value(runs[index], path) for index in indices) for path in floats},
        template=template,
        bytes_per_run=memory.num_bytes(template) + memory.num_bytes(copied),
    )


def _traces(run: Run, path: str) -> bool:
    try:
        _template(run, (path,))
    except _CONCRETE:
        return False
    return True


def _template(run: Run, floats: tuple[str, ...]) -> PyTree:
    """Shapes and dtypes of a run's state; the whole run is traced."""
    made = program.make(run, floats)
    hyper = {path: jax.ShapeDtypeStruct((), jnp.result_type(float)) for path in floats}
    key = jax.eval_shape(partial(jax.random.key, 0))
    with memory.within_memory():
        state = jax.eval_shape(made.init, hyper, key)
        jax.eval_shape(made.epoch, hyper, state)
    return state


def _chunks(runs: Sequence[int], size: int) -> Iterator[list[int]]:
    iterator = iter(runs)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
