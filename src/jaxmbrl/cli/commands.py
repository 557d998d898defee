"""What each command does. Heavy imports wait until a command needs them."""
# ruff: noqa: T201  (printing is what a command line does)

import argparse
import contextlib
import itertools
import math
import os
import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmbrl import agents
from jaxmbrl.cli import listing
from jaxmbrl.config import ConfigError, override, override_table

if TYPE_CHECKING:
    from jaxmbrl.training.manifest import Run
    from jaxmbrl.training.runner import Outcome

Dotted = Mapping[str, Mapping[str, str]]


def show_list() -> int:
    """``jaxmbrl list``."""
    from jaxmbrl import envs, models

    listing.print_table("systems", agents.SYSTEMS.items())
    listing.print_table("environments", ((name, "") for name in envs.names()))
    listing.print_table("planners", listing.parts("planners"))
    listing.print_table("models", models.MODELS.items())
    return 0


def train(arguments: argparse.Namespace, dotted: Dotted) -> int:
    """``jaxmbrl train SYSTEM ENV``."""
    _request_devices(None if arguments.shard else arguments.seeds)
    run = _run(arguments, dotted)
    _keep_compilations()
    from jaxmbrl.training import runner

    directory = arguments.run_dir or _new_directory(run.system, run.env)
    with _mesh(arguments.shard):
        return _end(runner.train(run, directory, profiled=arguments.profile), directory)


def show_fields(arguments: argparse.Namespace, dotted: Dotted) -> int:
    """``jaxmbrl train SYSTEM ENV --help``."""
    run = _run(arguments, dotted)
    listing.print_fields(run)
    return 0


def sweep(arguments: argparse.Namespace, dotted: Dotted) -> int:
    """``jaxmbrl sweep SYSTEM ENV --vary ...``."""
    from jaxmbrl.training.sweep import grid

    configurations = grid.configurations(arguments.vary, arguments.sample, arguments.seed)
    _request_devices(None)
    from jaxmbrl.training import hosts

    host = hosts.join(arguments.coordinator, arguments.processes, arguments.process)
    if host.processes > 1 and not arguments.run_dir:
        raise ConfigError("run_dir: got none, needs --run-dir DIR, one that all processes see")
    run = _run(arguments, dotted)
    _keep_compilations()
    from jaxmbrl.training.sweep import Sweep, execute, results

    words = {f"{section}.{path}": text for section, table in dotted.items() for path, text in table.items()}
    whole = Sweep(run, words, configurations)
    directory = arguments.run_dir or _new_directory(f"sweep-{run.system}", run.env)
    outcome = execute(whole, directory, arguments.memory, host=host, every=arguments.checkpoint_seconds)
    if outcome.stopped_by is not None:
        from jaxmbrl.training.progress import say

        say("stopped; the same command goes on")
    elif host.process == 0:
        ranked = results.write(whole, outcome.rows, directory)
        for line in results.table(whole, ranked):
            print(line)
        best = results.command(whole, ranked[0].configuration)
        print(f"best: {best if math.isfinite(ranked[0].iqm) else 'none: runs diverged, or no episode ended'}")
    print(directory, flush=True)
    return 128 + signal.SIGINT if outcome.stopped_by == signal.SIGINT else 0


def resume(arguments: argparse.Namespace) -> int:
    """``jaxmbrl resume RUN``."""
    if arguments.shard:
        _request_devices(None)
    else:
        _request_devices_of(arguments.run)
    _keep_compilations()
    from jaxmbrl.training import runner

    with _mesh(arguments.shard):
        return _end(runner.resume(arguments.run, arguments.epochs), arguments.run)


def evaluate(arguments: argparse.Namespace) -> int:
    """``jaxmbrl evaluate RUN``."""
    _request_devices_of(arguments.run)
    _keep_compilations()
    from jaxmbrl.training.examine import examine
    from jaxmbrl.training.progress import counted

    seen = examine(arguments.run, arguments.episodes, arguments.seed)
    for seed, returns in zip(seen.seeds, seen.returns, strict=True):
        print(f"seed {seed}: return {returns.mean():.4g} ± {returns.std():.3g} over {counted(returns.size, 'episode')}")
    if len(seen.seeds) > 1:
        means = seen.returns.mean(axis=1)
        print(f"all seeds: return {means.mean():.4g} ± {means.std():.3g} between seeds")
    print(seen.path)
    for picture in seen.pictures:
        print(picture)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """``jaxmbrl report RUN...``."""
    _keep_compilations()
    from jaxmbrl import report

    fields = {name: getattr(arguments, name) for name in ("episodes", "seeds", "seed")}
    print(report.write(arguments.runs, arguments.output, **fields))
    return 0


def export(arguments: argparse.Namespace) -> int:
    """``jaxmbrl export RUN``."""
    _request_devices_of(arguments.run)
    _keep_compilations()
    from jaxmbrl.training.export import export as write

    done = write(arguments.run, arguments.output, arguments.seed)
    size = f"epoch {done.epoch}, {done.num_bytes / 2**10:,.0f} KiB"
    print(f"{size}; a call takes {done.milliseconds:.3g} ms here, the median of {done.calls}")
    print(done.path)
    return 0


def _run(arguments: argparse.Namespace, dotted: Dotted) -> "Run":
    """What the command line asks for, checked field by field."""
    for name in ("system", "env"):
        if getattr(arguments, name) is None:
            raise ConfigError(f"{name.upper()}: missing; 'jaxmbrl list' shows them")
    system = agents.load(arguments.system)
    from jaxmbrl import envs
    from jaxmbrl.training.manifest import Run

    options = override_table(envs.options(arguments.env), dotted["env"], "env.")
    preset = system.preset(arguments.preset, envs.make(arguments.env, **options).spec)
    return Run(
        system=arguments.system,
        env=arguments.env,
        preset=arguments.preset,
        options=options,
        agent=override(preset.agent, dotted["agent"], "agent."),
        schedule=override(preset.schedule, dotted["schedule"], "schedule."),
        seed=arguments.seed,
        seeds=arguments.seeds,
        checkpoint_every=arguments.checkpoint_every,
        sinks=tuple(name.strip() for name in arguments.sink.split(",") if name.strip()),
    )


def _new_directory(system: str, env: str) -> Path:
    """``runs/SYSTEM-ENV-TIME``, numbered where there is one of the same second."""
    stem = f"runs/{system}-{env.replace('/', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = itertools.chain([Path(stem)], (Path(f"{stem}-{i}") for i in itertools.count(2)))
    return next(path for path in candidates if not path.exists())


def _request_devices(seeds: int | None) -> None:
    """A CPU device for each core that ``seeds`` can use, or for each core. Must come before JAX starts."""
    from jaxmbrl.training import devices

    devices.request(seeds)


def _request_devices_of(run: Path) -> None:
    """The same for the seeds of a run. Raises ConfigError where there is none."""
    from jaxmbrl.training import manifest

    _request_devices(manifest.read(run)[0].seeds)


def _mesh(shard: bool) -> contextlib.AbstractContextManager[object]:
    """All devices as one mesh for a single run, with ``--shard``."""
    import jax

    from jaxmbrl import sharding
    from jaxmbrl.training.progress import say

    if not shard:
        return contextlib.nullcontext()
    number = jax.local_device_count()
    say(f"one run on {number} devices" if number > 1 else "--shard: there is one device only")
    return jax.set_mesh(sharding.mesh())


def _keep_compilations() -> None:
    """Turn on JAX's persistent compilation cache, unless the environment or the caller has chosen one."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmbrl" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _end(outcome: "Outcome", directory: Path) -> int:
    """Report how a run ended: the exit code."""
    from jaxmbrl.training.progress import say

    if outcome.stopped_by is not None:
        say(f"stopped after epoch {outcome.epoch}; go on by 'jaxmbrl resume {directory}'")
    print(directory, flush=True)
    return 128 + outcome.stopped_by if outcome.stopped_by == signal.SIGINT else 0
