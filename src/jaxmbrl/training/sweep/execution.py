"""Run a sweep: its waves one after another, each as one program over all of its runs, spread over the devices.

What a sweep directory holds is what finished: a wave's rows go to ``metrics.jsonl`` when all of its runs are done. The
same command on the same directory runs what is missing, on any number of devices.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.training import compiling, devices, manifest, metrics, progress
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.progress import say
from jaxmbrl.training.sweep import plan, program
from jaxmbrl.training.sweep.plan import Part, Sweep, Wave

Compiled: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]

FILE, METRICS = "sweep.json", "metrics.jsonl"


def execute(sweep: Sweep, directory: Path, gib: float | None = None) -> list[Row]:
    """Run what ``directory`` does not hold yet.

    Args:
        sweep: what to run.
        directory: new, empty, or of the same sweep.
        gib: memory that the states of a wave may take; most of what there is by default.

    Returns:
        All rows, those of earlier calls included: as in a run's ``metrics.jsonl``, with ``configuration`` (an index)
        and ``diverged_at`` (the epoch in which something was not finite any more; 0 for none).

    Raises:
        ConfigError: a mistake in the sweep or the directory; nothing was compiled.
    """
    _check(sweep, directory)
    parts, limit = plan.parts(sweep), plan.limit_bytes(gib)
    kept = _finished(sweep, parts, directory)
    present = {(row["configuration"], row["seed"]) for row in kept}
    missing = [run for run in range(sweep.num_runs) if (sweep.configuration_of(run), sweep.seed_of(run)) not in present]
    waves = plan.waves(sweep, parts, missing, jax.local_device_count(), limit)
    _create(sweep, directory)
    _write(directory / METRICS, kept)
    _announce(sweep, parts, waves, len(missing))
    part, compiled = None, None
    for number, wave in enumerate(waves, 1):
        before, part = part, next(p for p in parts if sweep.configuration_of(wave.runs[0]) in p.configurations)
        if part is not before or compiled is None:  # the waves of a part follow one another, and have one size
            compiled = _compiled(part, wave.size)
        say(f"wave {number}/{len(waves)}: {len(wave.runs)} runs")
        rows = _run(sweep, part, wave, compiled)
        metrics.append(directory / METRICS, rows)
        kept += rows
    return kept


def _run(sweep: Sweep, part: Part, wave: Wave, compiled: Compiled) -> list[Row]:
    """Compute a wave: rows of all its runs and epochs."""
    filled = [*wave.runs, *[wave.runs[-1]] * (wave.size - len(wave.runs))]
    place = [part.configurations.index(sweep.configuration_of(run)) for run in filled]
    hyper = {path: jnp.asarray(np.array(values)[place], jnp.result_type(float)) for path, values in part.values.items()}
    seeds = [sweep.seed_of(run) for run in filled]
    init, epoch = compiled
    state = init(hyper, jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.int32)))
    rows: list[Row] = []
    begin, epochs = time.monotonic(), part.run.schedule.epochs
    with progress.reporter(0, epochs, int(jnp.sum(state.run.env_steps))) as report:
        for number in range(1, epochs + 1):
            state, measured = epoch(hyper, state)
            new = metrics.rows(seeds, number, jax.device_get(measured), time.monotonic() - begin)
            report(number, new)
            rows += [
                {"configuration": sweep.configuration_of(run), **row} for run, row in zip(wave.runs, new, strict=False)
            ]
    diverged = sum(row["diverged_at"] > 0 for row in rows[-len(wave.runs) :])
    if diverged:
        say(f"{diverged} of {len(wave.runs)} runs diverged, and were frozen there")
    return rows


def _compiled(part: Part, size: int) -> Compiled:
    """The two programs of a part for waves of ``size`` runs, compiled at their first call."""
    made = program.make(part.run, part.traced)
    init, epoch = (devices.over_seeds(function, size) for function in (made.init, made.epoch))
    options = compiling.options(made.spec)
    return jax.jit(init, compiler_options=options), jax.jit(epoch, donate_argnums=1, compiler_options=options)


def _finished(sweep: Sweep, parts: list[Part], directory: Path) -> list[Row]:
    """The rows of the runs that are complete; a killed process may have left parts of others."""
    epochs = {index: part.run.schedule.epochs for part in parts for index in part.configurations}
    rows = metrics.read(directory / METRICS)
    found: dict[tuple[int, int], int] = {}
    for row in rows:
        run = row["configuration"], row["seed"]
        found[run] = found.get(run, 0) + 1
    return [row for row in rows if found[row["configuration"], row["seed"]] == epochs[row["configuration"]]]


def _content(sweep: Sweep) -> Mapping[str, Any]:
    return {"base": manifest.as_dict(sweep.base), "configurations": [dict(words) for words in sweep.configurations]}


def _check(sweep: Sweep, directory: Path) -> None:
    """Raise `ConfigError` unless the directory is new, empty, or of this very sweep."""
    path = directory / FILE
    if not path.is_file():
        manifest.check_free(directory)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        same = {name: there[name] for name in ("base", "configurations")} == json.loads(json.dumps(_content(sweep)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({type(error).__name__})") from error
    if not same:
        raise ConfigError(f"run_dir: got {directory}, which holds another sweep, needs a new or empty directory")


def _create(sweep: Sweep, directory: Path) -> None:
    if (directory / FILE).exists():
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {**_content(sweep), "words": dict(sweep.words), "provenance": manifest.provenance()}, indent=2
        )
        (directory / FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"run_dir: got {directory}, which cannot be written ({error.strerror})") from error


def _write(path: Path, rows: list[Row]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)


def _announce(sweep: Sweep, parts: list[Part], waves: list[Wave], missing: int) -> None:
    size = max(part.bytes_per_run for part in parts) / 2**20
    done = f", {sweep.num_runs - missing} of them finished already" if missing < sweep.num_runs else ""
    say(
        f"{sweep.num_runs} runs{done}: {len(parts)} programs, {len(waves)} waves on {jax.local_device_count()} devices;"
        f" the state of a run takes {size:,.1f} MiB"
    )
