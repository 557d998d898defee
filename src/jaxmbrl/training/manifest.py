"""``config.json``: everything that a run is made of, so that it can be resumed, repeated, and cited."""

import importlib.metadata
import json
import platform
import subprocess
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmbrl import __version__, agents, sharding
from jaxmbrl.config import ConfigError, from_dict, to_dict
from jaxmbrl.schedule import Schedule

FILE = "config.json"
DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError)  # What reading a file raises that holds no run.
SEED_LIMIT = 2**31  # Seeds are int32, so that they mean the same with and without 64-bit mode.


class Run(NamedTuple):
    """What to run.

    Attributes:
        system: name of a system, as in ``agents.load(name)``.
        env: name of an environment, as in ``envs.make(name)``.
        preset: where the configurations started from.
        options: the environment's options.
        agent: the system's ``Config``.
        schedule: the schedule of acting and learning.
        seed: the first seed.
        seeds: how many; seed, seed + 1, ... run as one program.
        checkpoint_every: epochs between checkpoints; the last epoch always has one.
        sinks: where metrics go besides ``metrics.jsonl``, see `sinks`.
    """

    system: str
    env: str
    preset: str
    options: Mapping[str, Any]
    agent: Any
    schedule: Schedule
    seed: int = 0
    seeds: int = 1
    checkpoint_every: int = 1
    sinks: tuple[str, ...] = ()

    @property
    def all_seeds(self) -> range:
        """Every seed of the run."""
        return range(self.seed, self.seed + self.seeds)


def check(run: Run) -> None:
    """Raise `ConfigError` where a number of ``run`` itself is out of bounds, or one run of several is to be sharded."""
    for name, low in (("seed", 0), ("seeds", 1), ("checkpoint_every", 1)):
        value = getattr(run, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ConfigError(f"{name}: got {value!r}, needs a whole number, at least {low}")
    if run.seeds > 1 and sharding.everywhere():
        raise ConfigError(f"shard: got {run.seeds} seeds, needs 1: several are spread over devices as they are")
    if run.seed + run.seeds > SEED_LIMIT:
        raise ConfigError(f"seed: got {run.seed} and {run.seeds} seeds, needs all of them below {SEED_LIMIT}")


def create(directory: Path, run: Run) -> None:
    """Make the run directory and write ``config.json`` into it.

    Raises:
        ConfigError: the directory holds something already, or cannot be made.
    """
    check_free(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write(directory, run, provenance())
    except OSError as error:
        raise ConfigError(f"run_dir: got {directory}, which cannot be written ({error.strerror})") from error


def check_free(directory: Path) -> None:
    """Raise `ConfigError` unless ``directory`` is new or empty."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"run_dir: got {directory}, which is a file, needs a new or empty directory")
    if directory.exists() and any(directory.iterdir()):
        hint = f"; go on with it by 'jaxmbrl resume {directory}'" if (directory / FILE).exists() else ""
        raise ConfigError(f"run_dir: got {directory}, which is not empty, needs a new or empty directory{hint}")


def check_output(path: Path) -> None:
    """Raise `ConfigError` where a file could not be written, before anything is computed for it."""
    if path.is_dir():
        raise ConfigError(f"output: got {path}, which is a directory, needs a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"output: got {path}, whose directory does not exist")
    new = not path.exists()
    try:
        path.open("a").close()
        if new:
            path.unlink()
    except OSError as error:
        raise ConfigError(f"output: got {path}, which cannot be written ({error.strerror})") from error


def write(directory: Path, run: Run, versions: Mapping[str, Any]) -> None:
    """Write ``config.json``, all of it or nothing."""
    content = {**as_dict(run), "provenance": dict(versions)}
    part = directory / f"{FILE}.part"
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.replace(directory / FILE)


def identity(run: Run) -> int:
    """32 bits that tell a run's numbers from those of another; how long it is and how it is kept make none."""
    content = as_dict(run)
    for name in ("preset", "checkpoint_every", "sinks"):
        del content[name]
    del content["schedule"]["epochs"]
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def as_dict(run: Run) -> dict[str, Any]:
    """A run as nested tables, ready for JSON."""
    tables = {"options": dict(run.options), "agent": to_dict(run.agent), "schedule": to_dict(run.schedule)}
    return {**run._asdict(), **tables}


def read(directory: Path) -> tuple[Run, dict[str, Any]]:
    """The run of a directory, and the versions that it was started under.

    Raises:
        ConfigError: there is no run, or its ``config.json`` is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        what = "holds no config.json" if directory.is_dir() else "is a file" if directory.exists() else "does not exist"
        swept = (directory / "sweep.json").is_file()
        what, hint = ("holds a sweep", "; its own command finishes a sweep") if swept else (what, "")
        raise ConfigError(f"run: got {directory}, which {what}, needs a run directory{hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        versions = dict(content.pop("provenance"))
        run = parse(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except DAMAGE as error:
        raise ConfigError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    return run, versions


def parse(content: Mapping[str, Any]) -> Run:
    """The run that `as_dict` gave, after JSON. Raises ConfigError, or one of `DAMAGE` where it is none."""
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in content["options"].items()}
    agent = from_dict(agents.load(content["system"]).Config, content["agent"], "agent.")
    schedule = from_dict(Schedule, content["schedule"], "schedule.")
    parts = {"options": options, "agent": agent, "schedule": schedule, "sinks": tuple(content.get("sinks", ()))}
    run = Run(**{**content, **parts})
    check(run)
    return run


def provenance() -> dict[str, Any]:
    """Under what a run runs: versions, device, precision, commit of the working directory."""
    device = jax.devices()[0]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "jaxmbrl": __version__,
        "jax": jax.__version__,
        **{name: importlib.metadata.version(name) for name in ("jaxlib", "optax", "brax", "orbax-checkpoint")},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"] or "default",
        "x64": jax.config.values["jax_enable_x64"],
        "commit": _commit(),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What changed that may change numbers: 'jax 0.10.2 -> 0.12.0', or ''."""
    passing = ("time", "commit", "devices")
    changed = [name for name in now if name not in passing and before.get(name) != now[name]]
    return ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)


def _commit() -> str | None:
    """The git commit of the working directory, with '+changes' where files differ from it; None outside of git."""
    try:
        commit, status = (
            subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if status else commit
