"""``kill -9``, in processes of their own: what is resumed is what was never interrupted."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import tiny_system

from jaxmbrl import cli
from jaxmbrl.training import checkpoint, metrics, runner

TESTS = Path(__file__).parent.parent
SCRIPT = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
import tiny_system
from jaxmbrl import cli
from jaxmbrl.training import signals
signals.GRACE = float(os.environ.get("GRACE", signals.GRACE))
tiny_system.install()
sys.exit(cli.main())
"""
COMMAND = (sys.executable, "-c", SCRIPT)
ENVIRONMENT = {"JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"), "JAX_DEBUG_NANS": "1"}
TINY = ["train", *tiny_system.ARGUMENTS, "--schedule.epochs", "30"]


@pytest.fixture(scope="module", autouse=True)
def installed():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_system.install(monkeypatch)
        monkeypatch.syspath_prepend(str(TESTS.parent))
        yield


def test_three_kills_change_nothing(tmp_path, capfd):
    """One in an epoch, one while a checkpoint is written, one right after a row was logged; then to the end."""
    from benchmarks import kills

    run, straight = tmp_path / "run", tmp_path / "straight"
    for number, (kind, row, wait) in enumerate([("epoch", 6, 0.005), ("save", 12, 0.0), ("epoch", 20, 0.0)]):
        words = ["resume", str(run)] if number else [*TINY, "--run-dir", str(run)]
        process = kills.start(words, COMMAND, **ENVIRONMENT)
        assert kills.kill_when(process, kills.moment(kind, run, row, wait)), "it ended before it was killed"
        if kind == "save":
            assert kills.is_saving(run)
    assert kills.lines(run) < 30
    assert cli.main(["resume", str(run)]) == 0
    assert cli.main([*TINY, "--run-dir", str(straight)]) == 0
    assert kills.differences(run, straight) == []
    assert not kills.is_saving(run), "what was half written is gone"
    assert len(checkpoint.epochs(run / runner.CHECKPOINTS)) == checkpoint.KEEP
    # The comparison is worth something:
    rows = metrics.read(straight / runner.METRICS)
    metrics.append(straight / runner.METRICS, rows[-1:])
    assert kills.differences(straight, run) == ["metrics", "a gap or a duplicate in the metrics"]


def test_sigterm_does_not_wait_for_a_long_epoch(tmp_path):
    """An epoch of minutes: the process is gone in time, with code 0 and a word of how to go on."""
    from benchmarks import kills

    long = ["--schedule.epoch_steps", "2_000_000_000", "--schedule.capacity", "8", "--run-dir", str(tmp_path / "run")]
    process = kills.start(["train", *tiny_system.ARGUMENTS, *long], COMMAND, GRACE="1", **ENVIRONMENT)
    while "compiled in" not in (line := process.stderr.readline()):
        assert line, "the process has ended"
    time.sleep(5.0)  # until the epoch is under way
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and time.monotonic() - begin < 10
    assert said.splitlines()[-1] == "jaxmbrl: SIGTERM: stopped in the middle of an epoch; the last checkpoint stands"
