"""The loader example: it drives an environment that fits, and says in one line why another does not."""

import importlib.util
from pathlib import Path

import gymnasium
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "drive_gymnasium.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("drive_gymnasium", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Acts by twice what it saw first, and remembers nothing."""

    def act(key, memory, obs, reward, first):
        return 2.0 * obs[:1] + 0.0 * (key[0] + reward + first), memory

    shapes = (((2,), jnp.uint32), ((), jnp.float32), ((3,), jnp.float32), ((), jnp.float32), ((), bool))
    exported = jax.export.export(jax.jit(act))(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    path = tmp_path_factory.mktemp("exported") / "act.jaxexport"
    path.write_bytes(exported.serialize())
    return path


def test_it_drives_what_it_was_made_for(example, file, capsys):
    """The same returns as by hand."""
    assert example.main([str(file), "Pendulum-v1", "--episodes", "2"]) == 0
    env, returns = gymnasium.make("Pendulum-v1"), []
    for episode in range(2):
        (obs, _), total, ended = env.reset(seed=episode), 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(2.0 * obs[:1].astype(np.float32))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    assert capsys.readouterr().out.startswith(f"return {np.mean(returns):.4g} ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--episodes", "0"], "got '0', needs a whole number, at least 1"),
        (["--episodes", "x"], "got 'x', needs a whole number, at least 1"),
        (["MountainCarContinuous-v0"], "shows observations (2,)"),
        (["made_up/Fits-v0"], "takes actions (2,)"),
        (["Pendulum-v7"], "Pendulum"),
    ],
)
def test_a_mistake_is_one_line(example, file, words, expected, monkeypatch, capsys):
    class Fits(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    make = gymnasium.make
    monkeypatch.setattr(gymnasium, "make", lambda name: Fits() if name == "made_up/Fits-v0" else make(name))
    with pytest.raises(SystemExit) as ended:
        example.main([str(file), *words])
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and expected in err
    assert err.count("\n") == 1 and ": error: " in err


def test_another_file_is_one_line(example, capsys):
    with pytest.raises(SystemExit):
        example.main([str(SCRIPT)])
    assert "was not written by jax.export" in capsys.readouterr().err
