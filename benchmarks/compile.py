"""Compile time of what `make train` runs, cold and with a warm persistent cache, each in a fresh process.

    python -m benchmarks.compile [--repeats 3] [train options, by default: pets cartpole_swingup]

It starts the command line itself, for one epoch, with an empty cache folder and then again with the folder that the
first run filled, and reads the compile times that every run logs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import timing


def compile_seconds(words: list[str], folder: Path, cache: Path, name: str) -> dict[str, float]:
    """Seconds until a run of one epoch says its programs were ready, and those of the whole process."""
    directory = folder / name
    jaxmbrl = Path(sys.executable).parent / "jaxmbrl"
    command = [jaxmbrl, "train", *words, "--schedule.epochs", "1", "--run-dir", directory]
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    session = json.loads((directory / "sessions.jsonl").read_text().splitlines()[0])
    seconds = session["compile_seconds"]
    return {**seconds, "all": max(seconds.values()), "process_wall": wall, "process_cpu": cpu}


def compare(words: list[str], repeats: int) -> dict[str, Any]:
    """Medians over pairs of a cold and a warm run."""
    results: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for case in ("cold", "warm"):
                results[case].append(compile_seconds(words, folder, folder / "cache", case))
                timing.note(f"{repeat + 1} of {repeats}, {case}: {results[case][-1]}")
    medians = {
        case: {part: statistics.median(run[part] for run in runs) for part in runs[0]} for case, runs in results.items()
    }
    return {"train": words, "repeats": repeats, "compile_seconds": medians}


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments, words = parser.parse_known_args()
    timing.report("compile", compare(words or ["pets", "cartpole_swingup"], arguments.repeats))


if __name__ == "__main__":
    main()
