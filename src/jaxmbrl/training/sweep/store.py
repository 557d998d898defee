"""What a sweep keeps on disk, and how several processes share it without talking to one another.

    sweep.json                           what is swept
    metrics.jsonl, metrics-1.jsonl, ...  rows of finished runs, a file for each process
    wave-0/, wave-1/, ...                the wave that a process is at: its runs, their rows and checkpoints
    .lock-0, .lock-1, ...                held by a process while it is at the sweep

A run belongs to a process by its number, whatever has finished, and a wave that was begun to the process of its
folder's number, modulo their count. So a sweep can be taken up by any number of processes.
"""

import contextlib
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmbrl.config import ConfigError
from jaxmbrl.training import manifest, metrics
from jaxmbrl.training.hosts import Host
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.sweep.plan import Part, Sweep, Wave

FILE, METRICS = "sweep.json", "metrics.jsonl"
WAVE = "wave.json"  # in a wave's folder


class Begun(NamedTuple):
    """A wave that some process has begun: its folder, and what it is."""

    folder: Path
    wave: Wave


def content(sweep: Sweep) -> Mapping[str, Any]:
    """What tells one sweep from another."""
    configurations = [dict(words) for words in sweep.configurations]
    return {"base": manifest.as_dict(sweep.base), "words": dict(sweep.words), "configurations": configurations}


def check(sweep: Sweep, directory: Path) -> None:
    """Raise `ConfigError` unless the directory is new, empty, or of this very sweep."""
    if (directory / FILE).is_file():
        _check_same(sweep, directory / FILE)
    elif not (directory.is_dir() and all(path.match(f"{Path(FILE).stem}.*") for path in directory.iterdir())):
        manifest.check_free(directory)  # but for what a process that was killed, or is about to write it, has made


def _check_same(sweep: Sweep, path: Path) -> None:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(content(sweep)))
        same = {name: there[name] for name in wanted} == wanted
    except manifest.DAMAGE as error:
        raise ConfigError(f"{path}: damaged ({type(error).__name__})") from error
    if not same:
        raise ConfigError(f"run_dir: got {path.parent}, which holds another sweep, needs a new or empty directory")


def create(sweep: Sweep, directory: Path, host: Host) -> None:
    """Write ``sweep.json`` unless it is there. Raises `ConfigError` where it is another sweep's, or cannot be."""
    if (directory / FILE).exists():
        _check_same(sweep, directory / FILE)
        return
    table = {**content(sweep), "provenance": manifest.provenance()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / FILE, json.dumps(table, indent=2) + "\n", host)
    except OSError as error:
        raise ConfigError(f"run_dir: got {directory}, which cannot be written ({error.strerror})") from error


def finished(epochs: Sequence[int], directory: Path) -> list[Row]:
    """The rows of the runs that are complete, by any process; ``epochs`` are those of each configuration."""
    return [row for path in sorted(directory.glob("metrics*.jsonl")) for row in _complete(metrics.read(path), epochs)]


def mend(epochs: Sequence[int], directory: Path, host: Host) -> None:
    """Drop what killed processes have left of runs from the files that are this process's to write."""
    for path in directory.glob("metrics*.jsonl"):
        if _number(path.stem) % host.processes == host.process:
            rows = _complete(metrics.read(path), epochs)
            _replace(path, "".join(json.dumps(row) + "\n" for row in rows), host)


def lock_file(directory: Path, host: Host) -> Path:
    """What this process holds while it is at a sweep."""
    return directory / f".lock-{host.process}"


def metrics_file(directory: Path, host: Host) -> Path:
    """Where this process adds the rows of finished runs."""
    return directory / (f"metrics-{host.process}.jsonl" if host.process else METRICS)


def mine(sweep: Sweep, parts: Sequence[Part], host: Host) -> set[int]:
    """The runs that are this process's: an equal share of each part, so that every process compiles each part once."""
    share: set[int] = set()
    for part in parts:
        runs = [run for run in range(sweep.num_runs) if sweep.configuration_of(run) in part.configurations]
        share |= set(
            runs[len(runs) * host.process // host.processes : len(runs) * (host.process + 1) // host.processes]
        )
    return share


def begun(directory: Path) -> list[Begun]:
    """The waves that were begun and are not finished, by any process."""
    found = []
    for folder in sorted(directory.glob("wave-*"), key=lambda folder: _number(folder.name)):
        with contextlib.suppress(*manifest.DAMAGE):  # of a process that was killed early, or has finished meanwhile
            table = json.loads((folder / WAVE).read_text(encoding="utf-8"))
            found.append(Begun(folder, Wave(tuple(table["runs"]), int(table["size"]))))
    return found


def adopted(waves: Sequence[Begun], host: Host) -> list[Begun]:
    """Those among ``waves`` that are this process's to finish."""
    return [one for one in waves if _number(one.folder.name) % host.processes == host.process]


def begin(directory: Path, wave: Wave, host: Host) -> Begun:
    """A folder for a new wave of this process."""
    folder = directory / f"wave-{host.process}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _replace(folder / WAVE, json.dumps(wave._asdict()) + "\n", host)
    return Begun(folder, wave)


def end(one: Begun) -> None:
    """Forget a wave whose rows are safe."""
    (one.folder / WAVE).unlink()  # first: without it the rest means nothing
    shutil.rmtree(one.folder, ignore_errors=True)


def identity(sweep: Sweep, wave: Wave) -> int:
    """32 bits that tell the checkpoints of a wave from others."""
    return zlib.crc32(json.dumps([content(sweep), wave], sort_keys=True).encode())


def _complete(rows: Sequence[Row], epochs: Sequence[int]) -> Iterator[Row]:
    present = Counter((row["configuration"], row["seed"]) for row in rows)
    return (row for row in rows if present[row["configuration"], row["seed"]] == epochs[row["configuration"]])


def _number(name: str) -> int:
    """The number at the end of ``metrics-3`` or ``wave-3``; 0 without any."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _replace(path: Path, text: str, host: Host) -> None:
    """Write a file as a whole; several processes may."""
    part = path.with_suffix(f".part{host.process}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
