"""Open-loop pictures: what they show, and that a model's foresight is filtering, then imagining, step by step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmbrl import envs
from jaxmbrl.diagnostics import open_loop
from jaxmbrl.envs.pixels.palette import VIOLET
from jaxmbrl.models import latent_model, mdn_rnn, rssm, vae
from jaxmbrl.types import TimeStep

SPEC = envs.make("pendulum").spec


def state_space():
    """What is shown is reconstructed from a belief that knows the actions."""
    model = rssm.make(SPEC, rssm.Config(deter=4, stoch=2, hidden=4, layers=(4,), embedding=4))
    return model.world, partial(latent_model.foresee, model), 0


def dream():
    """What is shown is reconstructed from the frame alone, so that actions show after the context."""
    config = mdn_rnn.Config(autoencoder=vae.Config(latent=2, hidden=(4,)), cell="gru", hidden=4, mixtures=2)
    model = mdn_rnn.make(SPEC, config)
    return model.world, partial(mdn_rnn.foresee, model), 3


@pytest.mark.parametrize("make", [state_space, dream])
def test_foresight_sees_the_context_only(make):
    """What comes after the context changes nothing of what is imagined; the actions do."""
    world, look, blind = make()
    params = jax.jit(world.init)(jax.random.key(0))
    obs, actions = jax.random.normal(jax.random.key(1), (8, 3)), jnp.linspace(-2.0, 2.0, 7)[:, None]
    never = jnp.zeros(8, bool)
    foresee = jax.jit(
        lambda obs, actions: look(
            params, jax.random.key(2), TimeStep((), obs, jnp.zeros(8), never, never), actions, context=3
        )
    )
    seen, imagined, reward, discount = foresee(obs, actions)
    np.testing.assert_allclose(seen, obs)
    assert imagined.shape == seen.shape
    assert reward.shape == discount.shape == (8 - 3,)
    np.testing.assert_array_equal(foresee(obs.at[3:].add(1.0), actions).imagined, imagined)
    changed = np.abs(foresee(obs.at[2].add(1.0), actions).imagined - imagined).max(axis=1)
    assert (changed[:2] == 0).all()
    assert (changed[2:] > 0).all()
    for step in (0, 1, 4):  # an action shows in the next observation first, within the context and after it
        pushed = np.abs(foresee(obs, actions.at[step].add(-0.5)).imagined - imagined).max(axis=1)
        assert (pushed[: max(step + 1, blind)] == 0).all()
        assert (pushed[max(step + 1, blind) :] > 0).all()


def test_dreams_are_told_in_the_units_of_what_is_seen():
    """An autoencoder's latents are normalised vectors and centred pixels; what is shown of them is not."""
    model = vae.make(SPEC, vae.Config(latent=2, hidden=(4,)))
    params = model.init(jax.random.key(0))._replace(mean=jnp.array([1.0, 2.0, 3.0]), std=jnp.array([2.0, 4.0, 8.0]))
    latent = jnp.array([0.3, -0.4])
    expected = np.array([1, 2, 3]) + np.array([2, 4, 8]) * np.asarray(model.decode(params, latent))
    np.testing.assert_allclose(model.reconstruct(params, latent), expected, rtol=1e-6)
    obs = jnp.arange(3.0)
    np.testing.assert_array_equal(model.seen(obs), obs)
    pictures = vae.make(envs.make("car_racing", size=32).spec, vae.Config(latent=2, depth=2))
    params = pictures.init(jax.random.key(0))
    np.testing.assert_allclose(pictures.reconstruct(params, latent), 0.5 + pictures.decode(params, latent))
    white = jnp.full((32, 32, 3), 255, jnp.uint8)
    np.testing.assert_allclose(pictures.seen(white), 1.0)
    np.testing.assert_allclose(pictures.seen(white), 0.5 + pictures.prepare(params, white))


def test_images_become_a_still_and_an_animation(tmp_path):
    seen = np.zeros((7, 32, 32, 3))
    seen[:, 8:16, 8:16, 0] = 1.0
    seen[:, 20, 20, 1] = np.linspace(0.0, 1.0, 7)  # a GIF joins frames that are the same
    files = open_loop.draw(seen, seen, 2, tmp_path / "deep" / "open_loop")
    assert [file.suffix for file in files] == [".png", ".gif"]
    with Image.open(files[1]) as animation:
        assert animation.n_frames == 7
        animation.seek(6)
        frame = np.asarray(animation.convert("RGB"))
    assert frame.shape == ((32 + 2) * open_loop.ZOOM, 3 * 32 * open_loop.ZOOM, 3)
    middle = [frame[(2 + 12) * open_loop.ZOOM, (32 * column + 12) * open_loop.ZOOM] for column in range(3)]
    np.testing.assert_allclose(middle, [[255, 0, 0], [255, 0, 0], [128, 128, 128]], atol=2)


def test_grids_are_coloured_before_they_are_compared(tmp_path):
    """A kind of thing beyond the third, which is told wrongly, shows in all rows."""
    seen = np.zeros((4, 10, 10, 5))
    seen[np.arange(4), np.arange(4), 7, 4] = 1.0
    files = open_loop.draw(seen, np.zeros_like(seen), 1, tmp_path / "open_loop", grid=True)
    with Image.open(files[1]) as animation:
        frame = np.asarray(animation.convert("RGB"), float)
    cells = [frame[2 * open_loop.ZOOM + 1, (10 * column + 7) * open_loop.ZOOM + 1] for column in range(3)]
    color = 255 * np.array(VIOLET)
    np.testing.assert_allclose(cells, [color, np.zeros(3), 127.5 - 0.5 * color], atol=4)


def test_vectors_become_curves(tmp_path):
    (file,) = open_loop.draw(np.ones((6, 5)), np.zeros((6, 5)), 2, tmp_path / "open_loop")
    with Image.open(file) as picture:
        assert picture.width > picture.height > 200
