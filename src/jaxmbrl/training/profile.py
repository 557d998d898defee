"""What a run costs, phase by phase: compile time, arithmetic, memory, seconds, and a trace."""

import contextlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from jaxmbrl.schedule import Schedule
from jaxmbrl.training import compiling, devices, flops
from jaxmbrl.training.evaluation import evaluate
from jaxmbrl.training.loop import LoopState, interact
from jaxmbrl.types import Agent, Environment, PyTree

FILE = "profile.json"
TRACE = "trace"  # folder in a run's directory: for TensorBoard, and a ``*.trace.json.gz`` for Perfetto
TRACED, COMPILED = "/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration"


class Phase(NamedTuple):
    """What one phase of an epoch costs, all seeds together.

    Attributes:
        calls: times an epoch.
        compile_seconds: on its own.
        flops: of a call.
        at_least: some loop in it runs as often as its data say, and was counted once.
        peak_bytes: arguments, results and temporary memory of a call.
        seconds: of a call, the first one after compiling left out.
    """

    calls: int
    compile_seconds: float
    flops: float
    at_least: bool
    peak_bytes: int
    seconds: float


def phases(env: Environment, agent: Agent, schedule: Schedule) -> dict[str, tuple[Callable[[LoopState], PyTree], int]]:
    """The phases of one seed's epoch, each a function of the state, and how often an epoch calls it."""
    rounds = schedule.epoch_steps // (schedule.interact * schedule.num_envs)

    def act(state: LoopState) -> PyTree:
        chosen = partial(agent.act, state.agent, explore=True)
        return interact(env, agent, chosen, state, state.key, schedule.interact)

    found: dict[str, tuple[Callable[[LoopState], PyTree], int]] = {
        "fit": (lambda state: agent.fit(state.agent, state.key, state.replay), schedule.fits_per_epoch),
        "interact": (act, rounds),
        "improve": (lambda state: agent.improve(state.agent, state.key, state.replay), rounds),
    }
    if schedule.eval_episodes:
        episodes = evaluate(env, agent, schedule.eval_episodes)
        found["evaluate"] = (lambda state: episodes(state.agent, state.key), 1)
    return found


def measure(
    env: Environment, agent: Agent, schedule: Schedule, seeds: int, state: PyTree, directory: Path
) -> dict[str, Phase]:
    """Compile each phase by itself, and run it from ``state``, which stays as it is; the last time into a trace.

    A call of each phase, not an epoch: on a CPU a trace holds every operation, so that an epoch's would be gigabytes.
    """
    measured, programs = {}, {}
    for name, (function, calls) in phases(env, agent, schedule).items():
        whole = function if seeds == 1 else devices.over_seeds(function, seeds)
        traced = jax.jit(whole).trace(state)
        begin = time.monotonic()
        programs[name] = compiled = traced.lower().compile(compiling.options(env.spec))
        compile_seconds = time.monotonic() - begin
        arithmetic = flops.count(traced.jaxpr)
        jax.block_until_ready(compiled(state))
        begin = time.monotonic()
        jax.block_until_ready(compiled(state))
        seconds = time.monotonic() - begin
        peak = _peak_bytes(compiled.memory_analysis())
        measured[name] = Phase(calls, round(compile_seconds, 3), *arithmetic, peak, round(seconds, 6))
    with tracing(directory):
        for name, compiled in programs.items():
            with jax.profiler.TraceAnnotation(name):
                jax.block_until_ready(compiled(state))
    return measured


def _peak_bytes(memory: Any) -> int:
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(getattr(memory, name) for name in names) - memory.alias_size_in_bytes if memory else 0


@contextlib.contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Count what JAX traces and compiles: yields ``{"traces": n, "compilations": n}``, which goes on counting."""
    counts = {"traces": 0, "compilations": 0}
    names = {TRACED: "traces", COMPILED: "compilations"}

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event in names:
            counts[names[event]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def watching(epochs: list[dict[str, int]]) -> Iterator[None]:
    """Around one epoch: add what was traced and compiled in it to ``epochs``."""
    with counting() as counts:
        yield
    epochs.append(counts)


@contextlib.contextmanager
def tracing(directory: Path) -> Iterator[None]:
    """Record what runs inside into ``directory``/trace."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the host only waits; its calls would drown the rest
    with jax.profiler.trace(str(directory / TRACE), profiler_options=options):
        yield


def table(measured: Mapping[str, Phase]) -> Table:
    """The phases as a table, with their shares of an epoch."""
    shown = Table(title="an epoch by phase", title_justify="left", box=None, padding=(0, 2))
    heads = ("phase", "calls", "compile, s", "GFLOP a call", "MiB", "ms a call", "s an epoch", "GFLOP/s")
    for head in heads:
        shown.add_column(head, justify="left" if head == "phase" else "right")
    for name, phase in measured.items():
        mark = "> " if phase.at_least else ""
        shown.add_row(
            name,
            str(phase.calls),
            f"{phase.compile_seconds:.1f}",
            f"{mark}{phase.flops / 1e9:.3g}",
            f"{phase.peak_bytes / 2**20:.1f}",
            f"{1e3 * phase.seconds:.3g}",
            f"{phase.calls * phase.seconds:.3g}",
            f"{mark}{phase.flops / max(phase.seconds, 1e-9) / 1e9:.3g}",
        )
    return shown


def show(measured: Mapping[str, Phase]) -> None:
    """Print the table on standard error."""
    console = Console(stderr=True)
    wide = console if console.is_terminal else Console(stderr=True, width=120)
    wide.print(table(measured))


def write(directory: Path, measured: Mapping[str, Phase], later: Sequence[Mapping[str, int]]) -> None:
    """Write ``profile.json``.

    Args:
        directory: of the run.
        measured: the phases.
        later: what was traced and compiled in each epoch.
    """
    content = {
        "phases": {name: phase._asdict() for name, phase in measured.items()},
        "epochs": list(later),
        "peak_memory_bytes": peak_memory(),
    }
    (directory / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def peak_memory() -> int:
    """The most memory that the device had in use, in bytes; on a CPU, that of the process."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
