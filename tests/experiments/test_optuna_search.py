"""The Optuna example: a trial is a run, all trials are one program, and a pruned one stops. Needs no Optuna."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny_system

from jaxmbrl import envs, training
from jaxmbrl.config import ConfigError
from jaxmbrl.training import manifest
from jaxmbrl.training.sweep import program

SCRIPT = Path(__file__).parents[2] / "experiments" / "optuna_search.py"
OPTIONS = {**envs.options("pendulum"), "episode_length": 8}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("optuna_search", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    tiny_system.install(monkeypatch)


def made_up_run():
    preset = tiny_system.preset("small", envs.make("pendulum", **OPTIONS).spec)
    return manifest.Run("tiny", "pendulum", "small", OPTIONS, preset.agent, preset.schedule, 3, 2)


class Trial:
    """What the example asks of an ``optuna.Trial``."""

    def __init__(self, rate, patience=99):
        self.rate, self.patience, self.reports = rate, patience, []

    def suggest_float(self, name, low, high, *, log):
        assert (name, low, high, log) == ("agent.rate", 1e-3, 3.4e38, True)
        return self.rate

    def report(self, value, step):
        self.reports.append((step, value))

    def should_prune(self):
        return len(self.reports) >= self.patience


def test_trials_are_runs_of_one_program(example, monkeypatch, request):
    """The returns of `training.train` with that rate; one trace for all trials; one pruned or diverged has no score."""
    jax.config.update("jax_debug_nans", False)
    request.addfinalizer(lambda: jax.config.update("jax_debug_nans", True))
    traces, epoch = [], program._epoch
    monkeypatch.setattr(program, "_epoch", lambda *words: traces.append(words) or epoch(*words))
    run = made_up_run()
    ranges, part = example.space(run, ["agent.rate=log:1e-3..3.4e38"])
    traces.clear()
    score = example.objective(part, ranges)
    whole, other, pruned, diverged = Trial(0.3), Trial(0.1), Trial(0.3, patience=1), Trial(3.4e38)
    found, again = score(whole), score(other)
    assert score(pruned) is None and pruned.reports == whole.reports[:1]
    assert score(diverged) is None
    assert len(traces) == 1
    loop = program.compose(run._replace(agent=tiny_system.Config(rate=0.3)))
    keys = jax.vmap(jax.random.key)(jnp.asarray(run.all_seeds))
    _, alone = jax.jit(jax.vmap(training.train(loop, run.schedule.epochs)))(keys)
    means = [float(alone["episode_return"][:, step - 1].mean()) for step, _ in whole.reports]
    assert [value for _, value in whole.reports] == pytest.approx(means, rel=1e-4)
    assert found == pytest.approx(means[-1], rel=1e-4) and found != again


@pytest.mark.parametrize(
    ("searched", "expected"),
    [
        ([], "search: got nothing, needs different fields"),
        (["agent.rate=0.1,0.2"], "needs different fields, as FIELD=LOW..HIGH"),
        (["agent.rate=0.1..0.2", "agent.rate=0.1..0.3"], "needs different fields"),
        (["agent.rate=-1.0..0.2"], "agent.rate: got -1.0, needs above 0.0"),
        (["agent.size=1..3"], "agent.size: got '1.0', needs a whole number"),
        (["agent.rat=0.1..0.2"], "did you mean rate?"),
    ],
)
def test_a_mistake_is_told_before_anything_compiles(example, searched, expected):
    with pytest.raises(ConfigError) as caught:
        example.space(made_up_run(), searched)
    assert expected in str(caught.value)


def test_without_optuna_one_line_says_what_to_install(example, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    assert example.main(["sac", "pendulum"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "pip install 'jaxmbrl[optuna]'" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["tiny", "pendulum", "--trials", "0"], "--trials: got '0', needs a whole number"), (["tiny"], "required: env")],
)
def test_a_mistake_in_the_command_line_is_one_line(example, words, expected, capsys):
    assert example.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and expected in err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="pip install optuna")
def test_a_study():
    words = [
        "sac",
        "pendulum",
        "--trials",
        "3",
        "--epochs",
        "3",
        "--search",
        "agent.policy.learning_rate=log:1e-4..1e-2",
    ]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=True)
    assert "3 trials complete, 0 pruned" in done.stdout and "best: jaxmbrl train sac pendulum" in done.stdout
