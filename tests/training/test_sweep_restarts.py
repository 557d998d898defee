"""Sweeps through the real command: killed and taken up on other numbers of devices and processes, nothing changes."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_system

from jaxmbrl.training import metrics

TESTS = Path(__file__).parent.parent
PROGRAM = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import tiny_system
from jaxmbrl import cli
tiny_system.install()
sys.exit(cli.main())
"""
EPOCHS = 60
SELDOM = 1000.0  # seconds
SWEEP = ["sweep", *tiny_system.ARGUMENTS, "--seeds", "3", "--vary", "agent.rate=0.1,0.3", "--vary", "agent.size=2,3"]
SWEEP += ["--schedule.epochs", str(EPOCHS)]


def start(directory, *words, devices=1, saving=0.02):
    """A sweep of its own process, which saves after ``saving`` seconds: often, to be stopped, or as good as never."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax")}
    command = [sys.executable, "-c", PROGRAM, *SWEEP, "--run-dir", str(directory), *words]
    command += ["--checkpoint-seconds", str(saving)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return out, said


def stop(process, directory, number, *, wave=0, kind=signal.SIGKILL):
    """Send a signal once a wave is past its epoch ``number`` and has a checkpoint; what was said on the way."""
    folder = directory / f"wave-{wave}"
    while True:
        assert process.poll() is None, process.communicate()[1]
        rows = metrics.read(folder / "metrics.jsonl")
        if rows and rows[-1]["epoch"] >= number and any((folder / "checkpoints").glob("[0-9]*")):
            break
        time.sleep(0.005)
    process.send_signal(kind)
    return process.communicate(timeout=60)[1]


def scores(directory):
    with (directory / "results.csv").open(newline="") as file:
        return {(row["configuration"], row["seed"]): float(row["score"]) for row in csv.DictReader(file)}


def check(directory, straight):
    """No row is missing, none is there twice, and the numbers are those of a sweep that nobody disturbed."""
    rows = [row for path in directory.glob("metrics*.jsonl") for row in metrics.read(path)]
    names = [(row["configuration"], row["seed"], row["epoch"]) for row in rows]
    everything = [(c, s, e) for c in range(4) for s in range(3) for e in range(1, EPOCHS + 1)]
    assert sorted(names) == everything
    assert not any(directory.glob("wave-*"))
    expected, got = scores(straight), scores(directory)
    assert expected.keys() == got.keys() and len(set(expected.values())) > 6
    np.testing.assert_allclose([got[name] for name in expected], list(expected.values()), rtol=1e-4)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    directory = tmp_path_factory.mktemp("straight") / "sweep"
    end(start(directory, saving=SELDOM))
    return directory


def test_killed_and_taken_up_on_other_numbers_of_devices(straight, tmp_path):
    directory = tmp_path / "sweep"
    stop(start(directory), directory, 12)
    said = stop(start(directory, devices=2), directory, 26)
    assert "wave 1/2: 6 runs" in said and "epoch 1/" not in said, "it began anew"
    said = stop(start(directory, devices=4), directory, 40, kind=signal.SIGTERM)
    assert "saving after this epoch" in said
    _, said = end(start(directory, devices=4, saving=SELDOM))
    assert f"epoch 1/{EPOCHS}" not in said.split("wave 2/2")[0]
    check(directory, straight)


def test_damaged_checkpoints_cost_time_only(straight, tmp_path):
    directory = tmp_path / "sweep"
    stop(start(directory), directory, 12)
    for path in (directory / "wave-0" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    _, said = end(start(directory, saving=SELDOM))
    assert "warning:" in said and f"epoch 1/{EPOCHS}" in said
    check(directory, straight)


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def together(directory, processes, devices=1, saving=0.02):
    words = ["--coordinator", f"localhost:{free_port()}", "--processes", str(processes)]
    return [start(directory, *words, "--process", str(i), devices=devices, saving=saving) for i in range(processes)]


def test_two_processes_share_a_sweep(straight, tmp_path):
    """Killed, taken up by one process, killed again, and finished by two others."""
    directory = tmp_path / "sweep"
    processes = together(directory, 2, devices=2)
    stop(processes[1], directory, 12, wave=1)
    processes[0].kill()
    processes[0].communicate()
    assert (directory / "wave-1").exists()
    stop(start(directory, devices=4), directory, 30, wave=1)
    outcomes = [end(process) for process in together(directory, 2, saving=SELDOM)]
    assert "best: jaxmbrl train tiny pendulum" in outcomes[0][0] and "best:" not in outcomes[1][0]
    assert all(out.splitlines()[-1] == str(directory) for out, _ in outcomes)
    check(directory, straight)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--coordinator", "nowhere"], "coordinator: got 'nowhere', needs HOST:PORT"),
        (["--coordinator", "localhost:1"], "processes: got none, needs a number beside --coordinator"),
        (["--coordinator", "localhost:1", "--processes", "2"], "process: got none, needs a number"),
        (["--coordinator", "localhost:1", "--processes", "2", "--process", "2"], "process: got 2, needs 0 to 1"),
        (["--process", "0"], "process: got 0, needs --coordinator HOST:PORT"),
    ],
)
def test_a_mistake_is_one_line(words, expected, monkeypatch, capsys, tmp_path):
    from jaxmbrl import cli

    tiny_system.install(monkeypatch)
    assert cli.main([*SWEEP, *words]) == 2
    assert capsys.readouterr().err.strip().startswith(f"jaxmbrl: error: {expected}")
