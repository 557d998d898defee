"""How the benchmarks measure: alternating runs, medians, wall and CPU seconds, a stated machine.

Two things are compared by running them in turn (A B A B ...) in one process tree, so that whatever else the machine
does falls on both. Wall seconds are what a user waits for; CPU seconds are what it cost, and are steadier on a shared
machine.

JAX is imported inside functions here and in the other benchmarks, so that `use_threads` can go before it.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Timing(NamedTuple):
    """Seconds of one run: on the clock, and of all threads of the process."""

    wall: float
    cpu: float


def measure(function: Callable[[], Any], calls: int = 1) -> Timing:
    """Seconds of one call, over ``calls`` calls; the JAX arrays that each returns are awaited."""
    import jax

    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        jax.block_until_ready(function())
    return Timing((time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls)


def alternate(runs: Mapping[str, Callable[[], Timing]], repeats: int) -> dict[str, list[Timing]]:
    """Call every run once untimed, then all of them in turn ``repeats`` times."""
    for run in runs.values():
        run()
    timings: dict[str, list[Timing]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            timings[name].append(run())
    return timings


def median(timings: Sequence[Timing]) -> Timing:
    """The median wall and the median CPU seconds."""
    return Timing(statistics.median(t.wall for t in timings), statistics.median(t.cpu for t in timings))


def best(timings: Sequence[Timing]) -> Timing:
    """The least wall and the least CPU seconds."""
    return Timing(min(t.wall for t in timings), min(t.cpu for t in timings))


def ratio(numerator: Sequence[Timing], denominator: Sequence[Timing]) -> Timing:
    """Ratio of medians, of wall and of CPU seconds."""
    top, bottom = median(numerator), median(denominator)
    return Timing(top.wall / bottom.wall, top.cpu / bottom.cpu)


def use_threads(threads: int | None) -> None:
    """Keep this process, and those it starts, to the first ``threads`` cores. Call it before importing JAX.

    XLA sizes its thread pool by the cores it may run on, and torch is told as well (``OMP_NUM_THREADS``).
    """
    if threads is None:
        return
    if "jax" in sys.modules:
        raise RuntimeError("use_threads: JAX is imported already, and keeps the threads it has")
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise SystemExit(f"--threads: got {threads}, needs 1 to {len(cores)}")
    os.sched_setaffinity(0, cores[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)


def machine() -> dict[str, Any]:
    """What a figure was measured on: processor, cores in use, load before the run, versions, commit."""
    import jax
    import jaxlib

    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "commit": commit.stdout.strip(),
    }


def report(benchmark: str, figures: Mapping[str, Any]) -> None:
    """Print one JSON object: the benchmark's name, its figures and the machine."""
    print(json.dumps({"benchmark": benchmark, **figures, "machine": machine()}, indent=2))


def note(text: str) -> None:
    """A line for whoever watches, on stderr, so that stdout stays JSON."""
    print(text, file=sys.stderr, flush=True)
