"""The report: what it computes against closed forms, what it says of runs, and how it looks in a browser."""

import json
import re
from pathlib import Path

import browser
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_system

from jaxmbrl import cli, envs
from jaxmbrl.diagnostics.mismatch import Regret
from jaxmbrl.report import chapters, figures, page, probe, story, windows
from jaxmbrl.report.probe import Findings, OneStep, OpenLoop
from jaxmbrl.report.story import Curve, Picture, Story
from jaxmbrl.training import manifest
from jaxmbrl.types import TimeStep

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    tiny_system.install(monkeypatch)
    monkeypatch.chdir(tmp_path)


def made_up_findings(stretches=32, steps=10, entries=3, fresh=(4, 20)):
    """Of a model that is right about its own uncertainty: everything that a page can show, without a model."""
    spread = 0.01 * 1.3 ** np.arange(steps)
    error = RNG.normal(size=(stretches, steps)) * spread
    obtained = RNG.normal(size=stretches)
    return Findings(
        returns=RNG.normal(size=fresh[0]),
        open_loop=OpenLoop(
            square_error=error**2,
            var=np.broadcast_to(spread**2, error.shape),
            standstill=np.ones_like(error),
            below=RNG.uniform(size=(stretches, steps, entries)),
            running=np.ones((stretches, steps), bool),
            predicted=obtained + 0.5,
            obtained=obtained,
        ),
        one_step=OneStep(
            surprise=RNG.normal(size=fresh),
            replayed=RNG.normal(size=9),
            below=RNG.uniform(size=(*fresh, entries)),
            running=np.ones(fresh, bool),
            stakes=RNG.uniform(size=(stretches, steps)),
        ),
        regret=Regret(learned=np.arange(5.0) - 0.5, true=np.arange(5.0), random=np.arange(5.0) - 5.0),
    )


def made_up_story(directory="runs/<one>", findings=None, **fields):
    """A run that nobody ran."""
    spec = envs.make("pendulum").spec
    preset = tiny_system.preset("small", spec)
    run = manifest.Run("tiny", "pendulum", "small", envs.options("pendulum"), preset.agent, preset.schedule, 0, 2)
    rows = [
        {
            "seed": s,
            "epoch": e,
            "env_steps": 10 * e,
            "episode_return": s + e,
            "model_loss": -e,
            "wall_seconds": float(e),
        }
        for e in range(1, 5)
        for s in range(2)
    ]
    sessions = [{"from_epoch": 0, "compile_seconds": {"epoch": 1.5}, "state_bytes": 2**20, "device": "cpu: cpu"}]
    return Story(Path(directory), run, {"jax": "0.0"}, rows, sessions, findings=findings, **fields)


def test_stretches_lie_within_their_episodes():
    """Every step of an episode carries its number and its episode's; a stretch is consecutive, and over where it is."""
    length = jnp.array([12, 5, 9])
    number = jnp.broadcast_to(jnp.arange(13.0), (3, 13)) + 100.0 * jnp.arange(3)[:, None]
    never = jnp.zeros((3, 13), bool)
    steps = TimeStep((), number, number, never, never)
    cut = windows.cut_windows(jax.random.key(0), windows.Episodes(steps, number[:, :-1], length), 7, 200)
    first = np.asarray(cut.timesteps.obs[:, 0])
    np.testing.assert_array_equal(cut.timesteps.obs, first[:, None] + np.arange(8))
    np.testing.assert_array_equal(cut.actions, first[:, None] + np.arange(7))
    episode, start = (first // 100).astype(int), first % 100
    running = (start[:, None] + np.arange(7)) < np.asarray(length)[episode][:, None]
    np.testing.assert_array_equal(cut.running, running)
    assert running[episode != 1].all() and (start[episode == 1] == 0).all()
    assert set(start[episode == 0]) == set(range(6)) and set(start[episode == 2]) == set(range(3))


def test_open_loop_of_a_shifted_copy_of_the_truth():
    """Particles that are off by a constant and a known spread: the error is the constant, in standard deviations."""
    num, steps = probe.WINDOWS, 4
    truth = jnp.asarray(RNG.normal(size=(num, steps + 1, 2)) * [1.0, 10.0], jnp.float32)
    offsets = jnp.array([-1.0, 0.0, 4.0])  # of the particles: mean 1, variance 14/3

    def imagine(key, timesteps, actions):
        true = timesteps.obs[1:]
        reward = jnp.full((3, steps), 2.0)
        return windows.Imagined(
            offsets[:, None, None] * jnp.ones_like(true), timesteps.obs[0], true, reward, jnp.ones_like(reward)
        )

    flag = jnp.zeros((num, steps + 1), bool)
    stretches = windows.Windows(
        TimeStep((), truth, jnp.ones((num, steps + 1)), flag, flag), jnp.zeros((num, steps, 1)), ~flag[:, 1:]
    )
    found = jax.jit(lambda key: probe._open_loop(windows.Imagination(0, imagine), key, stretches))(jax.random.key(0))
    std = np.asarray(truth[:, 1:]).reshape(-1, 2).std(axis=0)
    np.testing.assert_allclose(found.square_error, np.mean(1 / std**2), rtol=1e-4)
    np.testing.assert_allclose(found.var, np.mean(14 / 3 / std**2), rtol=1e-4)
    np.testing.assert_allclose(found.below, 0.5, rtol=1e-6)  # one below the truth, one at it
    np.testing.assert_allclose(found.predicted, 2.0 * steps)
    np.testing.assert_allclose(found.obtained, steps)


def test_each_run_has_a_label_and_a_curve_of_its_own():
    stories = [made_up_story(place) for place in ("a/run", "b/run", "b/other")]
    labels = page._labels(stories)
    assert labels == [f"tiny, pendulum ({which})" for which in ("a/run", "b/run", "other")]
    told = [("", label, one) for label, one in zip(labels, stories, strict=True)]
    assert len(page._curves_by_task(told)["pendulum"]) == 3
    assert page._labels(stories[:1]) == ["tiny, pendulum"]


def test_a_curve_of_one_point_is_seen():
    drawn = [figures.learning_curves({"a": Curve(np.arange(n), np.ones((2, n)))}) for n in (1, 2)]
    assert drawn[0].count("<use") == drawn[1].count("<use") + 2  # on the axes and in the legend


def test_the_bootstrap_interval_of_a_mean():
    """As wide as the normal one, for many seeds; nothing is said of one seed, and what is not measured is left out."""
    values = RNG.normal(size=(400, 3))
    low, mean, high = figures.mean_interval(values)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std(axis=0) / 20, rtol=0.1)
    low, mean, high = figures.mean_interval(np.array([[1.0, np.nan], [np.nan, np.nan]]))
    assert mean[0] == 1.0 and np.isnan([low[0], high[0], mean[1]]).all()
    values = np.full((600, 1), np.nan)  # as wide where a third of the seeds were not measured
    values[:400] = RNG.normal(size=(400, 1))
    low, mean, high = figures.mean_interval(values)
    np.testing.assert_allclose([low, high], [mean - 1.96 / 20, mean + 1.96 / 20], atol=0.015)


def test_numbers_of_findings():
    told = {name: value for name, value, _ in chapters.measures(made_up_story(findings=made_up_findings()))}
    assert told["bias of predicted returns"] == told["error of predicted returns"] == "0.5"
    assert told["planner regret"] == "0.5" and told["share of what planning gains"] == "10%"
    curves = chapters.reliability_curves(made_up_findings(stretches=400))
    assert list(curves) == ["one step, density", "5 steps ahead", "10 steps ahead"]
    for found in curves.values():
        np.testing.assert_allclose(found, np.arange(1, 20) / 20, atol=0.1)


def test_curves_tell_seeds_and_gaps_apart():
    rows = [
        {"seed": 4, "epoch": 1, "env_steps": 5, "x": 1.0},
        {"seed": 3, "epoch": 2, "env_steps": 9, "x": 2.0},
        {"seed": 3, "epoch": 1, "env_steps": 5, "x": None},
    ]
    curve = story.curve(rows, "x")
    assert isinstance(curve, Curve) and curve.env_steps.tolist() == [5, 9]
    np.testing.assert_array_equal(curve.values, [[np.nan, 2.0], [1.0, np.nan]])
    assert story.curve(rows, "y") is None


def test_a_page_refers_to_nothing_outside_and_escapes_names():
    text = page.render([made_up_story(findings=made_up_findings()), made_up_story("runs/two", why="no <checkpoint>")])
    assert "runs/&lt;one&gt;" in text and "no &lt;checkpoint&gt;" in text
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    assert text.count("<svg") == 1 + 6 + 1 and 'fill="#' not in text
    assert not re.search(r"#0102[0-9a-f]{2}", text)  # placeholders of colours


@browser.needs_browser
def test_a_page_in_a_browser(tmp_path):
    """Two runs, one with everything, and pictures of an episode."""
    shown = (Picture("episode.html", "text/html", b"<!doctype html><title>x</title><p>'hello' &amp; \"you\""),)
    full = made_up_story(findings=made_up_findings(), pictures=shown)
    text = page.render([full, made_up_story("runs/two", why="no checkpoint")])
    browser.check(text, tmp_path, drawings=1 + 6 + 1 + 1)


def test_a_report_of_a_run_through_the_command(tmp_path, capfd):
    """A system without a model: its curve, its episode, and that nothing can be asked of a model."""
    assert cli.main(["train", *tiny_system.ARGUMENTS, "--seeds", "2", "--run-dir", "run"]) == 0
    assert cli.main(["report", "run", "-o", "page.html", "--episodes", "2"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "page.html"
    text = Path("page.html").read_text()
    assert "no model that could be asked" in text and "data:image/gif;base64," in text and "agent.rate" in text
    assert "examined at epoch 4, seeds 0, 1" in text

    manifest_only = tmp_path / "started"
    manifest_only.mkdir()
    (manifest_only / "config.json").write_text(Path("run/config.json").read_text())
    assert cli.main(["report", "run", "started"]) == 0
    assert "holds no checkpoint yet" in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["report"], "RUN"),
        (["report", "missing"], "run: got missing, which does not exist"),
        (["report", "."], "holds no config.json"),
        (["report", "missing", "--episodes", "-1"], "--episodes: got '-1'"),
        (["report", "missing", "--seeds", "0"], "--seeds: got '0'"),
        (["report", "missing", "--agent.horizon", "3"], "--agent.horizon: got it for 'report'"),
        (["report", "good", "missing"], "run: got missing"),
        (["evaluate", "sweep"], "run: got sweep, which holds a sweep, needs a run directory"),
        (["report", "sweep"], "sweep: damaged (KeyError"),
        (["report", "good", "-o", "."], "output: got ., which is a directory"),
        (["report", "good", "-o", "nowhere/page.html"], "whose directory does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_code_2(words, expected, capfd):
    manifest.create(Path("good"), made_up_story().run)
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text("{}")
    capfd.readouterr()
    assert cli.main(words) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and expected in err
    assert not Path("report.html").exists()


def test_a_damaged_log_is_one_line(capfd):
    manifest.create(Path("good"), made_up_story().run)
    Path("good/sessions.jsonl").write_text("{")
    assert cli.main(["report", "good"]) == 2
    assert "good: damaged" in capfd.readouterr().err
    Path("good/sessions.jsonl").write_text(json.dumps({}) + "\n")
    assert cli.main(["report", "good", "--episodes", "0"]) == 0


@pytest.mark.slow
@browser.needs_browser
@pytest.mark.parametrize(
    ("words", "drawings"),
    [
        (["pets", "pendulum", "--agent.planner.population", "20", "--agent.planner.elites", "4"], 1 + 5 + 1 + 1),
        (["mbpo", "pendulum", "--agent.updates", "1"], 1 + 4 + 1 + 1),
        (["planet", "pendulum", "--agent.updates", "2"], 1 + 3 + 1 + 2),
        (["sac", "pendulum", "--agent.updates", "1"], 1 + 1),
        (["sac", "brax/reacher", "--agent.updates", "1"], 1 + 1),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_report_of_a_real_run_in_a_browser(words, drawings, tmp_path):
    fast = ["--schedule.epochs", "3", "--env.episode_length", "40", "--schedule.prefill", "200"]
    assert cli.main(["train", *words, *fast, "--run-dir", "run"]) == 0
    assert cli.main(["report", "run", "--episodes", "2"]) == 0
    browser.check(Path("report.html").read_text(), tmp_path, drawings)
