"""What a run costs: arithmetic against counts by hand, and what a profiled run leaves behind."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny_system

from jaxmbrl import cli
from jaxmbrl.training import flops, profile


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda a, b: a @ b, [(2, 3), (3, 5)], 2 * 2 * 3 * 5),
        (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), [(7, 2, 3), (7, 3, 5)], 7 * 60),
        (lambda a: jnp.tanh(a) + 1.0, [(4, 6)], 2 * 24),
        (lambda a: jnp.sum(a, axis=0), [(4, 6)], 24),
        (lambda a: a.T.reshape(3, 8)[1:], [(4, 6)], 0),
        (lambda a: jax.lax.scan(lambda c, _: (c @ a, None), a, length=9)[0], [(3, 3)], 9 * 54),
        (jax.vmap(lambda a: jax.lax.fori_loop(0, 4, lambda i, c: c @ a, a)), [(5, 3, 3)], 5 * 4 * 54),
        (lambda a: jax.lax.cond(a[0, 0] > 0, lambda: a @ a, lambda: a), [(3, 3)], 54),
        (lambda a, k: jax.lax.conv(a, k, (1, 1), "VALID"), [(2, 3, 8, 8), (4, 3, 3, 3)], 2 * (2 * 4 * 36) * 27),
    ],
)
def test_arithmetic_counted_by_hand(function, shapes, expected):
    counted = flops.count(jax.jit(function).trace(*map(jnp.ones, shapes)).jaxpr)
    assert counted.flops == expected and not counted.at_least


def test_a_loop_that_its_data_end_counts_once():
    counted = flops.count(
        jax.make_jaxpr(lambda n, a: jax.lax.fori_loop(0, n, lambda i, c: c @ a, a))(3, jnp.ones((3, 3)))
    )
    assert counted == (54.0, True)


def test_a_loop_without_branches_is_what_xla_counts():
    """XLA counts a matrix product as we do."""
    traced = jax.jit(lambda a, b: a @ b).trace(jnp.ones((16, 32)), jnp.ones((32, 8)))
    assert flops.count(traced.jaxpr).flops == traced.lower().compile().cost_analysis()["flops"]


def test_counting_sees_a_retrace():
    function = jax.jit(lambda x: x * 3.25 + 1.5)
    with profile.counting() as first:
        function(jnp.ones(7))
    with profile.counting() as again:
        function(jnp.ones(7))
    with profile.counting() as other:
        function(jnp.ones(8))
    assert first["traces"] >= 1 and again["traces"] == 0 and other["traces"] >= 1


def test_a_profiled_run(monkeypatch, tmp_path, capfd):
    """A table, a file, a trace; and later epochs neither trace nor compile anything."""
    tiny_system.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = ["train", *tiny_system.ARGUMENTS, "--seeds", "2", "--schedule.epochs", "3", "--run-dir", "run", "--profile"]
    assert cli.main(words) == 0
    shown = capfd.readouterr().err
    content = json.loads(Path("run/profile.json").read_text())
    assert content["phases"].keys() == {"fit", "interact", "improve"}
    for name, phase in content["phases"].items():
        assert name in shown
        assert phase["seconds"] > 0 and phase["peak_bytes"] > 0 and not phase["at_least"]
    assert content["phases"]["interact"]["calls"] == 4 and content["phases"]["interact"]["flops"] > 0
    assert content["epochs"][1:] == [{"traces": 0, "compilations": 0}] * 2
    assert content["peak_memory_bytes"] > 2**20
    assert json.loads(Path("run/sessions.jsonl").read_text())["profile"] == content["phases"]
    assert list(Path("run/trace").rglob("*.trace.json.gz")) and list(Path("run/trace").rglob("*.xplane.pb"))
    assert cli.main(["report", "run", "--episodes", "0"]) == 0
    assert "interact, a call of 4 an epoch" in Path("report.html").read_text()
