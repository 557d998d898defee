"""The host runner: whatever interrupts a run, it continues bit for bit."""

import collections
import functools
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny_system
from jax._src import monitoring  # the public module can only forget all listeners

from jaxmbrl import envs
from jaxmbrl.config import ConfigError, override
from jaxmbrl.training import checkpoint, finite, lock, manifest, memory, metrics, runner, signals, sinks
from jaxmbrl.training import progress as progress_bar
from jaxmbrl.training.examine import examine
from jaxmbrl.training.loop import train as single_program


@pytest.fixture(scope="module", autouse=True)
def installed():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_system.install(monkeypatch)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """From a number of seeds to a run of four epochs that nothing interrupted, and its directory."""

    @functools.cache
    def run(seeds):
        directory = tmp_path_factory.mktemp("straight") / "run"
        return runner.train(make_run(seeds=seeds), directory), directory

    return run


def make_run(seed=3, seeds=1, agent=(), schedule=(), **fields):
    options = {**envs.options("pendulum"), "episode_length": 8}
    start = tiny_system.preset("small", envs.make("pendulum", **options).spec)
    config = override(start.agent, dict(agent), "agent.")
    plan = override(start.schedule, dict(schedule), "schedule.")
    return manifest.Run("tiny", "pendulum", "small", options, config, plan, seed, seeds, **fields)


@pytest.fixture
def signal_at(monkeypatch):
    """Raise a signal while the given epoch is shown for the first time."""
    monkeypatch.setattr(signals, "GRACE", 600.0)  # A slow machine must not end the tests.

    def arrange(*epochs, number=signal.SIGTERM):
        status, left = progress_bar.status, list(epochs)

        def show(rows):
            if rows[0]["epoch"] in left:
                left.remove(rows[0]["epoch"])
                signal.raise_signal(number)
            return status(rows)

        monkeypatch.setattr(progress_bar, "status", show)

    return arrange


def leaves(tree):
    data = (
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    )
    return [np.asarray(x) for x in data]


def assert_same_run(outcome, directory, other):
    """Every leaf and every row but for the clock; ``other`` is an outcome and its directory."""
    for a, b in zip(leaves(outcome.state), leaves(other[0].state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert rows(directory) == rows(other[1])


def rows(directory):
    """All rows of a run, wall-clock times apart."""
    found = metrics.read(directory / runner.METRICS)
    return [{name: value for name, value in row.items() if name != "wall_seconds"} for row in found]


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_interrupted_run_continues_bit_for_bit(tmp_path, signal_at, straight, seeds):
    run, directory = make_run(seeds=seeds), tmp_path / "run"
    signal_at(2)
    halted = runner.train(run, directory)
    assert (halted.epoch, halted.stopped_by) == (2, signal.SIGTERM)
    assert checkpoint.latest(directory / runner.CHECKPOINTS) == 2
    resumed = runner.resume(directory)
    assert (resumed.epoch, resumed.stopped_by) == (4, None)
    assert_same_run(resumed, directory, straight(seeds))

    found = metrics.read(directory / runner.METRICS)
    assert [(row["epoch"], row["seed"]) for row in found] == [(e, s) for e in range(1, 5) for s in run.all_seeds]
    wall = [row["wall_seconds"] for row in found]
    assert wall == sorted(wall)
    assert {row["episodes"] for row in found} == {0, 2}
    assert all((row["episode_return"] is None) == (row["episodes"] == 0) for row in found)


def test_rows_after_the_checkpoint_are_computed_again(tmp_path, signal_at, straight):
    directory = tmp_path / "run"
    signal_at(3)
    runner.train(make_run(checkpoint_every=2), directory)
    # As if the process had died before it could save epoch 3, in the middle of a row.
    with checkpoint.manager(directory / runner.CHECKPOINTS) as checkpoints:
        checkpoints.delete(3)
    with (directory / runner.METRICS).open("a") as file:
        file.write('{"seed": 3, "epo')
    assert_same_run(runner.resume(directory), directory, straight(1))


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_extended_run_keeps_its_experience(tmp_path, straight, seeds):
    """The store grows with the run: four epochs are two and two more."""
    runner.train(make_run(seeds=seeds, schedule={"epochs": "2"}), tmp_path)
    extended = runner.resume(tmp_path, epochs=4)
    assert_same_run(extended, tmp_path, straight(seeds))
    assert manifest.read(tmp_path)[0].schedule.epochs == 4


def test_a_finished_run_says_so(tmp_path, capsys):
    run = make_run(schedule={"epochs": "1"})
    finished = runner.train(run, tmp_path / "run")
    before = rows(tmp_path / "run")
    capsys.readouterr()
    again = runner.resume(tmp_path / "run")
    assert "is finished: 1 of 1 epochs" in capsys.readouterr().err
    assert rows(tmp_path / "run") == before
    for a, b in zip(leaves(finished.state), leaves(again.state), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ConfigError, match="epochs: got 0, needs at least 1"):
        runner.resume(tmp_path / "run", epochs=0)


def test_a_run_is_one_process_s_at_a_time(straight):
    _, directory = straight(1)
    with lock.held(directory / runner.SESSIONS), pytest.raises(ConfigError, match="run, which another process is at"):
        runner.resume(directory, epochs=5)
    assert len(metrics.read(directory / "metrics.jsonl")) == 4


def test_a_gap_in_the_metrics_is_said(straight, tmp_path, capsys):
    _, directory = straight(1)
    shutil.copytree(directory, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:]))
    runner.resume(tmp_path / "run")
    assert "warning: metrics.jsonl has 3 of 4 rows up to epoch 4; it keeps its gap" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_starts_over(tmp_path):
    run = make_run(schedule={"epochs": "1"})
    manifest.create(tmp_path / "run", run)
    assert runner.resume(tmp_path / "run").epoch == 1


def test_the_runner_gives_the_numbers_of_a_single_program(straight):
    """One compiled program for the whole run, and a seed on its own, against epochs of two seeds under vmap."""
    run = make_run(seeds=2)
    logged = rows(straight(2)[1])
    env = envs.make(run.env, **run.options)
    loop = runner.make_loop(env, tiny_system.make(env.spec, run.agent), run.schedule)
    program = jax.jit(single_program(loop, 4))
    for seed in run.all_seeds:
        _, expected = program(jax.random.key(seed))
        mine = [row for row in logged if row["seed"] == seed]
        for name in ("model_loss", "noise", "env_steps"):
            np.testing.assert_allclose([row[name] for row in mine], expected[name], rtol=1e-5)


def test_evaluation_checkpoints_and_logging_change_nothing_of_the_training(tmp_path, straight, monkeypatch):
    """Another program, fewer checkpoints, a sink: the same state, bit for bit, the same rows but for what was added."""
    told = []
    monkeypatch.setitem(sinks.SINKS, "list", sinks.Kind("json", lambda *_: sinks.Sink(told.extend, lambda: None)))
    run = make_run(schedule={"eval_episodes": "2"}, checkpoint_every=3, sinks=("list",))
    outcome = runner.train(run, tmp_path / "run")
    assert told == metrics.read(tmp_path / "run" / runner.METRICS)
    for a, b in zip(leaves(outcome.state), leaves(straight(1)[0].state), strict=True):
        np.testing.assert_array_equal(a, b)
    found = rows(tmp_path / "run")
    assert all(np.isfinite(row.pop("eval_return")) for row in found)
    assert found == rows(straight(1)[1])


def test_a_process_compiles_each_program_once(tmp_path):
    """Whatever happens in a run: epochs, evaluation, checkpoints, a resumed part."""
    compiled, traced = collections.Counter(), collections.Counter()

    def listen(event, duration, **about):
        for counter, ending in ((compiled, "/backend_compile_duration"), (traced, "/jaxpr_trace_duration")):
            counter.update([about["fun_name"]] if event.endswith(ending) else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        runner.train(make_run(schedule={"epochs": "3", "eval_episodes": "1"}), tmp_path / "run")
        assert (compiled["jit(_init)"], compiled["jit(_epoch)"], compiled["jit(look)"]) == (1, 1, 1)
        assert (traced["_init"], traced["_epoch"], traced["look"]) == (2, 1, 1)  # once to learn its shapes
        compiled.clear(), traced.clear()
        runner.resume(tmp_path / "run", epochs=5)
        assert (compiled["jit(_init)"], compiled["jit(_epoch)"], compiled["jit(look)"]) == (0, 1, 1)
        assert (traced["_init"], traced["_epoch"], traced["look"]) == (1, 1, 1)
    finally:
        monitoring.unregister_event_duration_listener(listen)


def test_a_value_that_is_not_finite_stops_the_run(tmp_path):
    jax.config.update("jax_debug_nans", False)
    try:
        run = make_run(seeds=2, agent={"poison": "3"})
        with pytest.raises(finite.NonFiniteError) as caught:
            runner.train(run, tmp_path / "run")
        bad = "agent.weights, replay.action, replay.next_obs and 5 more"
        assert str(caught.value) == f"seed 3, epoch 3, step 22: not finite (nan or infinite): {bad}"
        assert [row["epoch"] for row in rows(tmp_path / "run")] == [1, 1, 2, 2]
        program = runner.build(run)
        assert checkpoint.latest(tmp_path / "run" / runner.CHECKPOINTS) == 2
        state = runner.restore(tmp_path / "run", program, 2)
        assert np.isfinite(state.agent.weights).all()
        assert state.agent.updates.tolist() == [2, 2]
    finally:
        jax.config.update("jax_debug_nans", True)


def test_flags_keep_the_seeds_apart():
    tree = {"a": np.array([[1.0, 2.0], [np.inf, 0.0]]), "n": np.array([1, 2])}
    found = finite.flags(jax.tree.map(jax.numpy.asarray, tree), batch_axes=1)
    assert {name: flag.tolist() for name, flag in found.items()} == {"a": [True, False]}


def test_another_version_is_told_in_a_line(tmp_path, capsys):
    run = make_run(schedule={"epochs": "1"})
    manifest.create(tmp_path / "run", run)
    path = tmp_path / "run" / manifest.FILE
    path.write_text(path.read_text().replace(f'"jax": "{jax.__version__}"', '"jax": "0.0.1"'))
    runner.resume(tmp_path / "run")
    warning = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warning) == 1 and f"jax 0.0.1 -> {jax.__version__}" in warning[0]


def test_a_state_beyond_memory_is_told_before_compiling(tmp_path):
    run = make_run(seeds=64, schedule={"capacity": "2_000_000_000"})
    with pytest.raises(ConfigError, match=r"memory: the state takes .* GiB.*largest part is replay"):
        runner.train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_container_has_what_it_may_take(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTAINER", tuple(tmp_path / name for name in ("max", "limit", "missing")))
    (tmp_path / "max").write_text("max\n")
    whole = memory.capacity()
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "limit").write_text("1000000\n")
    assert memory.capacity() == 1_000_000


def test_what_a_run_directory_says(tmp_path):
    run = make_run(schedule={"epochs": "2", "eval_episodes": "1"})
    runner.train(run, tmp_path / "run")
    content = json.loads((tmp_path / "run" / manifest.FILE).read_text())
    assert content["provenance"]["jax"] == jax.__version__
    told = {"time", "jaxmbrl", "jaxlib", "python", "device", "devices", "matmul_precision", "x64", "commit"}
    assert told <= content["provenance"].keys() and all(
        content["provenance"][name] is not None for name in told - {"commit"}
    )
    assert manifest.read(tmp_path / "run")[0] == run
    session = json.loads((tmp_path / "run" / runner.SESSIONS).read_text())
    assert session["compile_seconds"].keys() == {"init", "epoch"}
    found = metrics.read(tmp_path / "run" / runner.METRICS)
    assert all(np.isfinite(row["eval_return"]) for row in found)
    assert [row["env_steps"] for row in found] == [12, 20]
    with pytest.raises(ConfigError, match=r"run_dir: got .*, which is not empty"):
        runner.train(run, tmp_path / "run")


def test_examine_repeats_itself_and_tells_the_seeds_apart(tmp_path):
    run = make_run(seeds=2, schedule={"epochs": "1"})
    runner.train(run, tmp_path / "run")
    seen = examine(tmp_path / "run", episodes=3, seed=0)
    written = json.loads(seen.path.read_text())
    assert seen.returns.shape == (2, 3) and np.unique(seen.returns).size == 6
    assert written["mean"] == pytest.approx(seen.returns.mean())
    assert [entry["seed"] for entry in written["seeds"]] == [3, 4]
    assert seen.pictures[0].read_bytes()[:4] == b"GIF8"
    np.testing.assert_array_equal(examine(tmp_path / "run", episodes=3, seed=0).returns, seen.returns)
    assert not np.array_equal(examine(tmp_path / "run", episodes=3, seed=1).returns, seen.returns)
