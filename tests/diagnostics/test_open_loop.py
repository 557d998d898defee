"""Open-loop pictures: what they show, and that a model's foresight is filtering, then imagining, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxmbrl import envs
from jaxmbrl.diagnostics import open_loop
from jaxmbrl.models import latent_model, rssm
from jaxmbrl.types import TimeStep


def test_foresight_sees_the_context_only():
    """What comes after the context changes nothing of what is imagined; the actions do."""
    spec = envs.make("pendulum").spec
    model = rssm.make(spec, rssm.Config(deter=4, stoch=2, hidden=4, layers=(4,), embedding=4))
    params = jax.jit(model.world.init)(jax.random.key(0))
    obs, actions = jax.random.normal(jax.random.key(1), (8, 3)), jnp.linspace(-2.0, 2.0, 7)[:, None]
    never = jnp.zeros(8, bool)
    foresee = jax.jit(
        lambda obs, actions: latent_model.foresee(
            model, params, jax.random.key(2), TimeStep((), obs, jnp.zeros(8), never, never), actions, context=3
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
        assert (pushed[: step + 1] == 0).all()
        assert (pushed[step + 1 :] > 0).all()


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


def test_vectors_become_curves(tmp_path):
    (file,) = open_loop.draw(np.ones((6, 5)), np.zeros((6, 5)), 2, tmp_path / "open_loop")
    with Image.open(file) as picture:
        assert picture.width > picture.height > 200
