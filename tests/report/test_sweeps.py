"""A sweep's chapter: who won, what each field does, and the winner as a command; nothing is compiled."""

import html
import json
import re
import shlex
from pathlib import Path

import browser
import numpy as np
import pytest
import tiny_system
from test_report import made_up_findings, made_up_story

from jaxmbrl import cli
from jaxmbrl.cli.words import split_dotted
from jaxmbrl.report import page, sweeps
from jaxmbrl.training import manifest
from jaxmbrl.training.sweep import Sweep, configurations, results

SEEDS, EPOCHS = 3, 4
VARY = ("agent.rate=0.01,0.1,1.0", "agent.place=gradient,action")


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    tiny_system.install(monkeypatch)
    monkeypatch.chdir(tmp_path)


def return_of(sweep, index, seed, epoch):
    """Made up: the rate 0.1 is best, and the place matters little."""
    words = sweep.configurations[index]
    middle = -abs(np.log10(float(words.get("agent.rate", 0.1))) + 1)
    return 100 * middle + 5 * (words.get("agent.place") == "action") + seed + epoch


def made_up_sweep(vary=VARY, sample=0, without=(), diverged=()):
    """A directory of a sweep that nobody ran, without some (configuration, seed), and with others that diverged."""
    base = made_up_story().run._replace(seeds=SEEDS)
    sweep = Sweep(base, {"agent.size": "3"}, configurations(vary, sample))
    rows = [
        {
            "configuration": index,
            "seed": seed,
            "epoch": epoch,
            "env_steps": 10 * epoch,
            "episode_return": return_of(sweep, index, seed, epoch),
            "diverged_at": 2 if (index, seed) in diverged and epoch >= 2 else 0,
        }
        for index in range(len(sweep.configurations))
        for seed in base.all_seeds
        for epoch in range(1, EPOCHS + 1)
        if (index, seed) not in without
    ]
    content = {"base": manifest.as_dict(base), "configurations": sweep.configurations}
    place = Path(f"sweep{len(list(Path().glob('sweep*')))}")
    place.mkdir()
    (place / "sweep.json").write_text(json.dumps({**content, "words": sweep.words, "provenance": {"jax": "<0>"}}))
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def test_the_effect_of_a_field_against_plain_loops():
    """Interquartile means over all runs that share a value, from the definition, and an interval that holds them."""
    one = sweeps.read(made_up_sweep())
    found = sweeps.effect(one.sweep, one.ranked, "agent.rate")
    assert found.values == ("0.01", "0.1", "1.0") and found.diverged == (0, 0, 0)
    for place, value in enumerate(found.values):
        mine = [index for index, words in enumerate(one.sweep.configurations) if words["agent.rate"] == value]
        scores = sorted(return_of(one.sweep, index, seed, EPOCHS) for index in mine for seed in range(SEEDS))
        cut = len(scores) // 4
        np.testing.assert_allclose(found.middle[place], np.mean(scores[cut : len(scores) - cut]))
        assert scores[0] <= found.low[place] <= found.middle[place] <= found.high[place] <= scores[-1]
        each = [np.mean([return_of(one.sweep, index, seed, EPOCHS) for seed in range(SEEDS)]) for index in mine]
        np.testing.assert_allclose(sorted(found.configurations[place]), sorted(each))  # a quarter of 3 cuts none
    gap = sweeps.effect(one.sweep, one.ranked, "agent.place")
    np.testing.assert_allclose(gap.middle[1] - gap.middle[0], 5.0)


def test_the_winner_is_first_and_its_command_trains_it(capfd):
    place = made_up_sweep()
    assert cli.main(["report", str(place), "-o", "page.html"]) == 0
    assert capfd.readouterr().out == "page.html\n"
    text = Path("page.html").read_text()
    rows = re.findall(r"<tr><td class=\"number\">(\d+)</td><td>(.*?)</td><td>(.*?)</td>", text)
    assert [row[1:] for row in rows][:2] == [("0.1", "action"), ("0.1", "gradient")] and len(rows) == 6
    command = html.unescape(re.findall(r"<pre><code>(.*?)</code></pre>", text)[0])
    program, *words = shlex.split(command)
    assert program == "jaxmbrl" and words[:3] == ["train", "tiny", "pendulum"]
    assert split_dotted(words)[1]["agent"] == {"size": "3", "rate": "0.1", "place": "action"}
    assert words[words.index("--seeds") + 1] == str(SEEDS)
    assert text.count("<svg") == 1 + 2 and "&lt;0&gt;" in text and "missing" not in text


def test_runs_that_diverged_or_are_missing_are_said():
    place = made_up_sweep(without=[(0, 1), (0, 2)], diverged=[(2, 0), (2, 1), (2, 2)])
    with (place / "metrics.jsonl").open("a") as file:  # a run that was cut off is none
        file.write(json.dumps({"configuration": 0, "seed": 1, "epoch": 1, "diverged_at": 0}) + "\n")
    one = sweeps.read(place)
    assert {standing.configuration for standing in one.ranked[-2:]} == {0, 2}
    found = sweeps.effect(one.sweep, one.ranked, "agent.rate")
    assert found.diverged == (0, 3, 0) and np.isfinite(found.middle[[0, 2]]).all() and found.middle[1] == -np.inf
    text = page.render([one])
    assert "2 of 18 runs are missing" in text and "16 of 18" in text


def test_nothing_has_finished_yet():
    place = made_up_sweep()
    (place / "metrics.jsonl").unlink()
    text = page.render([sweeps.read(place)])
    assert "18 of 18 runs are missing" in text and "<svg" not in text and "<pre>" not in text


def test_one_configuration_has_a_curve_and_no_effects():
    text = page.render([sweeps.read(made_up_sweep(vary=()))])
    assert text.count("<svg") == 1 and "1. as it is" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [("sweep.json", "{"), ("sweep.json", "[]"), ("metrics.jsonl", "{}\n"), ("metrics.jsonl", "[1]\n")],
)
def test_a_damaged_sweep_is_one_line(name, content, capfd):
    place = made_up_sweep()
    (place / name).write_text(content)
    assert cli.main(["report", str(place)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and f"{place}: damaged" in err


@browser.needs_browser
def test_runs_and_sweeps_in_a_browser(tmp_path):
    """A grid with runs that diverged, a sample of ranges, and a run."""
    grid = made_up_sweep(without=[(0, 0)], diverged=[(2, 0), (2, 1), (2, 2)])
    sample = made_up_sweep(vary=("agent.rate=log:1e-4..1e-1", "agent.size=1..99"), sample=12)
    stories = [sweeps.read(grid), made_up_story(findings=made_up_findings()), sweeps.read(sample)]
    text = page.render(stories)
    assert text.count("<section") == 3 and not re.search(r"""(?:src|href)=["'](?!#|data:)""", text)
    browser.check(text, tmp_path, drawings=3 + 1 + 6 + 3)


def test_the_curve_of_a_run_that_diverged_ends_there():
    one = sweeps.read(made_up_sweep(vary=(), diverged=[(0, 1)]))
    (curve,) = sweeps._curves(one)[0].values()
    assert np.isnan(curve.values).tolist() == [[False] * 4, [False, True, True, True], [False] * 4]
    assert results.measure(one.rows) == "episode_return"
