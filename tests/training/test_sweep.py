"""Sweeps: a run of a sweep is a run, one that diverges disturbs nobody, and what is missing is finished."""

import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
import tiny_system

from jaxmbrl import cli, envs
from jaxmbrl.agents import pets
from jaxmbrl.cli.words import split_dotted
from jaxmbrl.config import ConfigError, override
from jaxmbrl.training import hosts, lock, manifest, metrics, runner
from jaxmbrl.training.sweep import Sweep, archive, configurations, execute, plan, results, store

OPTIONS = {**envs.options("pendulum"), "episode_length": 8}
VARY = ("agent.rate=0.1,0.3", "agent.size=3,2", "env.mass=1.0,2.0")


@pytest.fixture(scope="module", autouse=True)
def installed():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_system.install(monkeypatch)
        yield


def make(vary=VARY, seeds=2, **words):
    start = tiny_system.preset("small", envs.make("pendulum", **OPTIONS).spec)
    agent = override(start.agent, words, "agent.")
    base = manifest.Run("tiny", "pendulum", "small", OPTIONS, agent, start.schedule, 5, seeds)
    return Sweep(base, {f"agent.{name}": text for name, text in words.items()}, configurations(vary))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of eight configurations, its directory and its rows."""
    directory = tmp_path_factory.mktemp("sweep") / "sweep"
    sweep = make()
    return sweep, directory, execute(sweep, directory).rows


def of(rows, configuration, seed):
    return [row for row in rows if (row["configuration"], row["seed"]) == (configuration, seed)]


def test_float_fields_are_traced_and_others_are_parts():
    parts = plan.parts(make())
    assert [part.traced for part in parts] == [("agent.rate", "env.mass")] * 2
    assert sorted(index for part in parts for index in part.configurations) == list(range(8))


def test_a_run_of_a_sweep_is_a_run(swept, tmp_path):
    """The metrics of `jaxmbrl train` with that configuration and seed, to float tolerance."""
    sweep, _, rows = swept
    for index in (2, 5):
        run = plan.run_of(sweep, index)._replace(seed=6, seeds=1)
        runner.train(run, tmp_path / str(index))
        alone = metrics.read(tmp_path / str(index) / "metrics.jsonl")
        beside = of(rows, index, 6)
        assert len(alone) == len(beside) == 4
        for expected, row in zip(alone, beside, strict=True):
            for name in expected.keys() - {"wall_seconds"}:
                np.testing.assert_allclose(row[name] or 0.0, expected[name] or 0.0, rtol=2e-4, err_msg=name)
    first, other = (of(rows, index, 5)[-1]["model_loss"] for index in (0, 1))
    assert first != other


def test_waves_change_nothing(swept, tmp_path):
    """With memory for three runs at a time the same numbers come out."""
    sweep, _, rows = swept
    parts = plan.parts(sweep)
    gib = 3.5 * parts[0].bytes_per_run / 2**30
    waves = plan.waves(sweep, parts, range(sweep.num_runs), 1, plan.limit_bytes(gib))
    assert all(wave.size <= 3 for wave in waves) and sorted(run for wave in waves for run in wave.runs) == [*range(16)]
    again = execute(sweep, tmp_path / "waves", gib).rows
    assert len(again) == len(rows) == 64
    for row in rows:
        twin = of(again, row["configuration"], row["seed"])[row["epoch"] - 1]
        np.testing.assert_allclose(twin["model_loss"], row["model_loss"], rtol=1e-4)
    with pytest.raises(ConfigError, match=r"memory: got .* needs at least"):
        execute(sweep, tmp_path / "small", 1e-9)


def test_a_run_that_diverges_is_frozen_and_disturbs_nobody(tmp_path, request):
    """A step size of 3.4e38 overflows; the other configuration is what it is without that neighbour."""
    jax.config.update("jax_debug_nans", False)
    request.addfinalizer(lambda: jax.config.update("jax_debug_nans", True))
    both, alone = make(("agent.rate=3.4e38,0.1",)), make(("agent.rate=0.1",))
    rows, expected = (execute(*pair).rows for pair in ((both, tmp_path / "both"), (alone, tmp_path / "alone")))
    broken = [[row["diverged_at"] for row in of(rows, 0, seed)] for seed in (5, 6)]
    assert any(epochs[-1] > 0 for epochs in broken)
    for epochs in broken:  # told from the epoch on in which it happened, ever after
        assert epochs == [epochs[-1] if number >= epochs[-1] else 0 for number in range(1, 5)]
    assert not any(row["diverged_at"] for seed in (5, 6) for row in of(rows, 1, seed))
    for row, twin in zip(of(rows, 1, 5), of(expected, 0, 5), strict=True):
        np.testing.assert_allclose(row["model_loss"], twin["model_loss"], rtol=1e-4)
    best, worst = results.standings(both, rows)
    assert (best.configuration, worst.configuration) == (1, 0) and worst.diverged > 0
    assert worst.iqm == -np.inf


def test_what_is_missing_is_finished(swept, tmp_path):
    """Rows of a killed process: whole runs stay, the others are run again; another sweep is refused."""
    sweep, directory, rows = swept
    place = tmp_path / "sweep"
    place.mkdir()
    (place / "sweep.json").write_bytes((directory / "sweep.json").read_bytes())
    kept = [row for row in rows if row["configuration"] < 3]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept[:-1]) + '{"configur')
    again = execute(sweep, place).rows
    assert len(again) == len(rows)
    assert len(metrics.read(place / "metrics.jsonl")) == len(rows)
    for row in rows:
        twin = of(again, row["configuration"], row["seed"])[row["epoch"] - 1]
        np.testing.assert_allclose(twin["model_loss"], row["model_loss"], rtol=1e-4)
    with pytest.raises(ConfigError, match="holds another sweep"):
        execute(make(seeds=1), place)


def test_a_directory_is_one_process_s_at_a_time(swept, tmp_path, capsys):
    """The same command beside itself would write the same files. One that was killed early leaves nobody out."""
    sweep, directory, rows = swept
    with lock.held(store.lock_file(directory, hosts.ALONE)), pytest.raises(ConfigError, match="another process is at"):
        execute(sweep, directory)
    assert len(execute(sweep, directory).rows) == len(rows)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "sweep.part0").write_text("{")
    store.check(sweep, tmp_path / "killed")
    (tmp_path / "killed" / "mine.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        store.check(sweep, tmp_path / "killed")


def test_a_number_of_tasks_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv(hosts.STEP_TASKS, "two")
    with pytest.raises(ConfigError, match="SLURM_STEP_NUM_TASKS: got 'two', needs a number"):
        hosts.join()


def test_lost_rows_of_a_wave_and_a_signal_at_its_end_leave_no_gap(tmp_path, monkeypatch, capsys):
    """Without its rows a wave begins anew, whatever checkpoint it has; a signal in the last epoch finds all done."""
    sweep, place, append = make(("agent.rate=0.1",), seeds=3), tmp_path / "sweep", metrics.append

    def interrupted(path, new, *, epoch):
        append(path, new)
        if path.parent.name == "wave-0" and new[0]["epoch"] == epoch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(metrics, "append", partial(interrupted, epoch=1))
    assert execute(sweep, place).stopped_by == signal.SIGINT
    (place / "wave-0" / "metrics.jsonl").unlink()
    monkeypatch.setattr(metrics, "append", partial(interrupted, epoch=4))
    outcome = execute(sweep, place)
    assert "rows are missing" in capsys.readouterr().err
    assert outcome.stopped_by is None and len(outcome.rows) == 12 and not (place / "wave-0").exists()


def test_what_is_on_disk_is_the_sweep(swept):
    sweep, directory, rows = swept
    read = archive.read(directory)
    assert read.sweep == sweep and read.rows == rows and "jax" in read.versions


def made_up_rows(values, name="episode_return"):
    """Rows of runs, values [configurations, seeds, epochs], None for an epoch that measured nothing."""
    return [
        {"configuration": c, "seed": 5 + s, "epoch": e, "env_steps": 10 * e, "diverged_at": 0, name: value}
        for c, runs in enumerate(values)
        for s, run in enumerate(runs)
        for e, value in enumerate(run, 1)
    ]


def test_configurations_are_judged_by_what_all_of_them_measure(tmp_path):
    """One evaluates, the other does not: returns of training episodes are what both have."""
    sweep = make(("schedule.eval_episodes=0,2",), seeds=1)
    rows = made_up_rows([[[1.0]], [[2.0]]])
    rows[1]["eval_return"] = 7.0
    assert results.measure(rows) == "episode_return" and results.measure(rows[1:]) == "eval_return"
    assert [standing.iqm for standing in results.write(sweep, rows, tmp_path)] == [2.0, 1.0]


def test_quartiles_are_of_the_same_step():
    """One of three runs measured nothing in its first epoch, another ended early."""
    curves = results.curves(make((), seeds=3), made_up_rows([[[1.0, 2.0], [3.0], [None, 4.0]]]), "episode_return")
    steps, (low, middle, high) = results.quartiles(list(curves.values()))
    np.testing.assert_array_equal(steps, [10, 20])
    np.testing.assert_allclose([low, middle, high], [[1.5, 2.5], [2.0, 3.0], [2.5, 3.5]])


def test_the_table_says_nothing_of_what_it_does_not_know():
    sweep = make(("agent.rate=0.1,0.2",), seeds=1)
    lines = results.table(sweep, results.standings(sweep, made_up_rows([[[None]], [[2.0]]])))
    assert lines[1].split() == ["2", "-", "2", "agent.rate=0.2"] and lines[2].split()[:3] == ["-"] * 3


def test_the_command_of_a_configuration_is_the_run_that_it_was():
    """What was set for all holds for the parts that a configuration chooses, too."""
    start = pets.preset("small", envs.make("pendulum").spec)
    words = {"planner.population": "77"}
    base = manifest.Run("pets", "pendulum", "small", OPTIONS, override(start.agent, words, "agent."), start.schedule)
    sweep = Sweep(base, {"agent.planner.population": "77"}, configurations(["agent.planner=cem,random_shooting"]))
    for index in range(2):
        run, typed = plan.run_of(sweep, index), split_dotted(results.command(sweep, index).split())[1]
        assert run.agent == override(start.agent, typed["agent"]) and run.agent.planner.population == 77


def test_a_sample_is_of_its_ranges_and_repeats():
    vary = ("agent.rate=log:1e-4..1e-1", "agent.size=2..4", "agent.place=gradient,action")
    drawn = configurations(vary, sample=40, seed=1)
    assert drawn == configurations(vary, sample=40, seed=1) and len({tuple(d.items()) for d in drawn}) == 40
    rates = np.array([float(words["agent.rate"]) for words in drawn])
    assert ((rates >= 1e-4) & (rates <= 1e-1)).all() and 0.2 < np.mean(rates < 10**-2.5) < 0.8
    assert {words["agent.size"] for words in drawn} == {"2", "3", "4"}


SWEEP = ["sweep", *tiny_system.ARGUMENTS]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--vary", "rate=1"], "vary: got 'rate=1', needs agent.FIELD"),
        (["--vary", "agent.rate=0.1,,0.2"], "needs a value before and after each comma"),
        (["--vary", "agent.rate=0.1,0.1"], "vary: got agent.rate=0.1 twice"),
        (["--vary", "agent.rate=0.1,1e-1"], "vary: got agent.rate=0.1 and agent.rate=1e-1, needs different"),
        (["--vary", "agent.rate=0.1", "--vary", "agent.rate=0.2"], "needs all its values in one list"),
        (["--vary", "agent.rate=0.1..0.2"], "needs --sample N"),
        (["--vary", "agent.rate=0.2..0.1", "--sample", "2"], "needs a range from a number to a larger one"),
        (["--vary", "agent.rate=log:-1..1", "--sample", "2"], "needs a range above 0"),
        (["--vary", "agent.size=1,2", "--sample", "3"], "sample: got 3, needs at most 2"),
        (["--vary", "agent.rat=0.1"], "agent.rat: no such field; did you mean rate?"),
        (["--vary", "agent.rate=0.1,-1"], "agent.rate: got -1.0, needs above 0.0"),
        (["--vary", "agent.size=2,x"], "agent.size: got 'x', needs a whole number"),
        (["--vary", "env.mass=1.0,0.0"], "env.mass: got 0.0, needs a number above 0"),
        (["--memory", "-1"], "needs a number above 0"),
        (["--seeds", "0"], "needs a whole number, at least 1"),
    ],
)
def test_a_mistake_is_one_line(words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxmbrl.training.sweep.execution._compiled", lambda *_: pytest.fail("compiled"))
    assert cli.main([*SWEEP, *words, "--run-dir", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and expected in said[0], said
    assert not (tmp_path / "new").exists()


PROGRAM = """
import sys
import tiny_system
from jaxmbrl import cli
tiny_system.install()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_the_command_gives_the_same_table_on_one_and_on_four_devices(tmp_path):
    tables = []
    for devices in (1, 4):
        directory = tmp_path / str(devices)
        words = [*SWEEP, "--seeds", "3", "--vary", "agent.rate=0.1,0.3", "--run-dir", str(directory)]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == str(directory)
        assert "best: jaxmbrl train tiny pendulum" in ran.stdout
        assert f"1 program, 1 wave on {devices} device{'s' * (devices > 1)};" in ran.stderr
        with (directory / "results.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
        assert (directory / "sweep.png").stat().st_size > 5000
    for one, four in zip(*tables, strict=True):
        assert {k: v for k, v in one.items() if k != "score"} == {k: v for k, v in four.items() if k != "score"}
        np.testing.assert_allclose(float(one["score"]), float(four["score"]), rtol=1e-4)
