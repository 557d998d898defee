"""Does a run survive ``kill -9`` bit for bit? Kill it many times, resume it, and compare it with one left in peace.

    python -m benchmarks.kills pets pendulum --kills 25 --schedule.epoch_steps 50 --agent.horizon 5

A kill falls at random into an epoch, into the writing of a checkpoint, or into the start of the process. Other words go
to ``jaxmbrl train``; the run has two epochs more than there are kills.
"""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from jaxmbrl.training import manifest, metrics, runner

COMMAND = (sys.executable, "-c", "import sys; from jaxmbrl.cli import main; sys.exit(main())")
KINDS = ("epoch", "save", "epoch", "save", "start")
POLL = 0.0005  # seconds


def start(words: Sequence[str], command: Sequence[str] = COMMAND, **environment: str) -> "subprocess.Popen[str]":
    """Begin ``jaxmbrl`` with ``words`` in a process of its own; what it says on standard error is kept."""
    return subprocess.Popen(
        [*command, *words],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(process: "subprocess.Popen[str]", condition: Callable[[], bool], *, patience: float = 600.0) -> bool:
    """SIGKILL once ``condition`` holds; False if the process was quicker to end.

    Raises:
        TimeoutError: neither came about.
    """
    end = time.monotonic() + patience
    while process.poll() is None:
        if condition():
            process.kill()
        elif time.monotonic() > end:
            process.kill()
            raise TimeoutError("nothing to kill at came about")
        time.sleep(POLL)
    process.communicate()
    return process.returncode < 0


def lines(run: Path) -> int:
    """Rows of metrics so far, the last one perhaps unfinished."""
    path = run / runner.METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def is_saving(run: Path, since: float = 0.0) -> bool:
    """Whether a checkpoint is half written, and that by who began after ``since`` (as of ``time.time``)."""
    with contextlib.suppress(FileNotFoundError):  # It was finished this very moment.
        return any(path.stat().st_mtime > since for path in (run / runner.CHECKPOINTS).glob("*tmp*"))
    return False


def differences(run: Path, other: Path) -> list[str]:
    """What is not the same in two runs: leaves of the latest state, bit for bit; rows of metrics, but for the clock."""
    states = []
    for directory in (run, other):
        found = runner.restore_latest(directory, runner.build(manifest.read(directory)[0]))
        states.append(({}, 0) if found is None else (bits(found[0]), found[1]))
    (leaves, epoch), (other_leaves, other_epoch) = states
    wrong = [f"epochs {epoch} and {other_epoch}"] if epoch != other_epoch else []
    wrong += [name for name in leaves.keys() | other_leaves.keys() if leaves.get(name) != other_leaves.get(name)]
    rows = [_without_clock(metrics.read(directory / runner.METRICS)) for directory in (run, other)]
    wrong += [] if rows[0] == rows[1] else ["metrics"]
    told = [(row["epoch"], row["seed"]) for row in rows[0]]
    whole = list(itertools.product(range(1, epoch + 1), manifest.read(run)[0].all_seeds))
    return wrong + ([] if told == whole else ["a gap or a duplicate in the metrics"])


def bits(state: object) -> dict[str, bytes]:
    """The bytes of every leaf by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(path): jax.device_get(
            jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        ).tobytes()
        for path, leaf in leaves
    }


def _without_clock(rows: Sequence[metrics.Row]) -> list[metrics.Row]:
    return [{name: value for name, value in row.items() if name != "wall_seconds"} for row in rows]


def moment(kind: str, run: Path, row: int, seconds: float) -> Callable[[], bool]:
    """When to kill.

    Args:
        kind: of `KINDS`.
        run: the run's directory.
        row: for an epoch and a save, not before so many rows are logged.
        seconds: how long to wait then; for a start, since the process began.
    """
    begin = time.monotonic() if kind == "start" else None
    since = time.time()

    def now() -> bool:
        nonlocal begin
        if kind == "save":
            return lines(run) >= row and is_saving(run, since)
        if begin is None and lines(run) >= row:
            begin = time.monotonic()
        return begin is not None and time.monotonic() - begin >= seconds

    return now


def main() -> int:
    """Run the benchmark: 1 if the two runs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system")
    parser.add_argument("env")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--random-seed", type=int, default=0, help="of the moments (default: 0)")
    arguments, words = parser.parse_known_args()
    place = Path(tempfile.mkdtemp(prefix="jaxmbrl-kills-"))
    train = ["train", arguments.system, arguments.env, f"--schedule.epochs={arguments.kills + 2}", *words]
    begin = time.monotonic()
    for _ in range(2):  # The second finds everything compiled, as a resumed process does.
        shutil.rmtree(place / "straight", ignore_errors=True)
        before = time.monotonic()
        subprocess.run([*COMMAND, *train, f"--run-dir={place / 'straight'}"], check=True, capture_output=True)
    clock = [row["wall_seconds"] for row in metrics.read(place / "straight" / runner.METRICS)]
    each = (clock[-1] - clock[0]) / (len(clock) - 1)
    startup = time.monotonic() - before - (clock[-1] - clock[0])
    draw, killed, saving = random.Random(arguments.random_seed), dict.fromkeys(KINDS, 0), 0
    for number in range(1, arguments.kills + 1):
        run = place / "killed"
        kind = KINDS[(number - 1) % len(KINDS)]
        resumed = (run / manifest.FILE).exists()
        process = start(["resume", str(run)] if resumed else [*train, f"--run-dir={run}"])
        since = time.time()
        wait = draw.uniform(0.0, startup if kind == "start" else each)
        if not kill_when(process, moment(kind, run, number, wait)):
            raise RuntimeError(f"the run ended before kill {number}: longer epochs are needed")
        half = is_saving(run, since)
        killed[kind], saving = killed[kind] + 1, saving + half
        print(f"kill {number}: {kind}, {lines(run)} rows{', saving' if half else ''}", flush=True)
    subprocess.run([*COMMAND, "resume", str(run)], check=True, capture_output=True)
    wrong = differences(run, place / "straight")
    print(f"{arguments.kills} kills {killed}, {saving} of them with a checkpoint half written; epochs of {each:.2f} s")
    print(f"mismatches: {', '.join(wrong) or '0'}; {time.monotonic() - begin:.0f} s in all")
    if wrong:
        print(f"both runs are left in {place}")
    else:
        shutil.rmtree(place)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
