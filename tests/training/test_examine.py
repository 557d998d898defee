"""What `evaluate` draws: an episode, and what a model imagines of it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmbrl import envs
from jaxmbrl.envs import brax
from jaxmbrl.envs.classic.task import box
from jaxmbrl.envs.wrappers import time_limit
from jaxmbrl.training import examine
from jaxmbrl.training.runner import Program
from jaxmbrl.types import Agent, Environment, Foreseen, Spec, TimeStep

SIDE, LIMIT = 8, 12  # pixels, steps


@pytest.mark.parametrize("name", ["brax/hopper", "brax/inverted_pendulum"])
def test_a_brax_viewer_takes_a_runs_options(name):
    """A run keeps all of an environment's options; its picture is drawn from the bare simulator, which has fewer."""
    options = {**envs.options(name), "backend": "spring"}
    assert "episode_length" in options
    assert brax.simulator(name, **examine.physics(options)).dt > 0


def shown(count):
    """A grey picture, brighter with each step."""
    return jnp.full((*jnp.shape(count), SIDE, SIDE, 3), 4 * jnp.asarray(count)[..., None, None, None], jnp.uint8)


def camera(end):
    """An environment that is seen as pictures, and over after ``end`` steps."""

    def at(count):
        return TimeStep(count, shown(count), jnp.ones(()), count >= end, jnp.zeros((), bool))

    observation = jax.ShapeDtypeStruct((SIDE, SIDE, 3), jnp.uint8)
    env = Environment(
        Spec("camera", observation, box(-1.0, 1.0), LIMIT),
        lambda key: at(jnp.zeros((), jnp.int32)),
        lambda key, timestep, action: at(timestep.state + 1),
    )
    return time_limit(env, LIMIT)


def echo(brightness, key, timesteps, actions, *, context):
    """Tells what it is shown, and black pictures of the rest."""
    assert len(timesteps.obs) == len(actions) + 1
    seen = brightness * timesteps.obs / 255.0
    told = jnp.where((jnp.arange(len(seen)) < context)[:, None, None, None], seen, 0.0)
    return Foreseen(seen, told, jnp.zeros(len(seen) - context), jnp.ones(len(seen) - context))


def program(end=LIMIT, foresee=echo):
    agent = Agent(
        init=lambda key: jnp.ones(()),
        memory=lambda state, key: (),
        act=lambda state, key, memory, timestep, *, explore: (jnp.zeros(1), memory, ()),
        fit=lambda state, key, replay: (state, {}),
        improve=lambda state, key, replay: (state, {}),
        foresee=foresee,
    )
    return Program(camera(end), agent, None, None, None, 0)


def frames(path):
    """The top left pixel of what is seen and of what is imagined, in each frame of an animation, below its bar."""
    pixels = []
    with Image.open(path) as animation:
        for place in range(animation.n_frames):
            animation.seek(place)
            row = np.asarray(animation.convert("L"), int)[12]
            pixels.append(row[[4, SIDE * 4 + 4]])
    return np.array(pixels)


def test_what_a_model_imagines_is_drawn_as_far_as_it_is_asked(tmp_path):
    """Five steps that it is shown and 45 that it imagines, of an episode of 60; nothing of one that is all shown."""
    count = jnp.arange(61)
    never = jnp.zeros(61, bool)
    episode = TimeStep((), shown(count), jnp.ones(61), never, never)
    actions = jnp.zeros((60, 1))
    draw = lambda program, *seen: examine.imagined(program, jnp.ones(()), jax.random.key(0), *seen, tmp_path)  # noqa: E731
    files = draw(program(), episode, actions)
    assert files == (tmp_path / "open_loop.png", tmp_path / "open_loop.gif")
    assert all(file.is_file() for file in files)
    seen, imagined = frames(files[1]).T
    np.testing.assert_allclose(seen, 4 * np.arange(51), atol=3)
    np.testing.assert_allclose(imagined, np.where(np.arange(51) < 5, seen, 0), atol=3)
    brief = jax.tree.map(lambda leaf: leaf[:6], episode)
    assert draw(program(), brief, actions[:5]) == ()
    assert draw(program(foresee=None), episode, actions) == ()


def test_an_examination_draws_the_episode_and_what_was_imagined_of_it(tmp_path):
    """Up to its end, after 7 of 12 steps; where the episode was over after 5, it alone."""
    run = SimpleNamespace(env="camera", options={})
    inputs = (jnp.ones(()), jax.random.key(0), tmp_path)
    files = examine._draw(run, program(end=7), *inputs)
    assert [file.name for file in files] == ["episode.gif", "open_loop.png", "open_loop.gif"]
    assert len(frames(files[2])) == 8
    with Image.open(files[0]) as animation:
        assert animation.n_frames == 8
    assert examine._draw(run, program(end=5), *inputs) == files[:1]
