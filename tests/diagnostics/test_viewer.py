"""The episode viewer: its data are the simulator's, and its page needs nothing from outside."""

import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl.config import ConfigError
from jaxmbrl.diagnostics import viewer
from jaxmbrl.envs import brax

STEPS = 5


@pytest.fixture(scope="module")
def played():
    """A Brax Env and a few steps of it inside a wrapper's state, as an agent's evaluation hands them over."""
    simulator = brax.simulator("inverted_pendulum", backend="spring")
    env = brax.from_brax(simulator)

    @jax.jit
    def play(key):
        def step(timestep, _):
            timestep = env.step(key, timestep, jnp.ones(1))
            return timestep, timestep

        first = env.reset(key)
        _, rest = jax.lax.scan(step, first, length=STEPS)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    episode = play(jax.random.key(0))
    return simulator, episode._replace(state={"elapsed": jnp.arange(STEPS + 1), "inner": episode.state})


def read(path):
    page = path.read_text()
    found = re.search(r'<script type="application/json" id="episode">(.*?)</script>', page, re.S)
    assert found
    return page, json.loads(found.group(1))


def test_frames_are_the_simulators_poses(played, tmp_path):
    simulator, episode = played
    path = viewer.write_html(
        tmp_path / "new" / "episode.html", simulator, episode, episode.reward[1:], title="a <b> & c"
    )
    page, data = read(path)
    x = episode.state["inner"].pipeline_state.x
    frames = np.asarray(data["frames"]).reshape(STEPS + 1, data["links"], 7)
    np.testing.assert_allclose(frames[..., :3], x.pos, atol=5.1e-5)
    np.testing.assert_allclose(frames[..., 3:], x.rot, atol=5.1e-5)
    assert np.ptp(frames[:, 1], axis=0).max() > 0.01  # the pole did move
    np.testing.assert_allclose(data["rewards"], [0.0, *episode.reward[1:]], atol=5.1e-5)
    assert data["dt"] == pytest.approx(0.02)
    assert "a &lt;b&gt; &amp; c" in page and "<b>" not in page


def test_the_page_is_self_contained(played, tmp_path):
    simulator, episode = played
    page, _ = read(viewer.write_html(tmp_path / "episode.html", simulator, episode.state, episode.reward))
    assert "{{" not in page
    for outside in ("http:", "https:", "src=", "<link", "import ", "fetch(", "url(", "//cdn"):
        assert outside not in page
    assert page.count("<script") == page.count("</script>") == 2


def test_geometry_is_the_models():
    shapes = viewer.geometry(brax.simulator("reacher").sys.mj_model)
    capsules = [shape for shape in shapes if shape["shape"] == "capsule" and shape["link"] == 0]
    np.testing.assert_allclose(capsules[0]["pos"], [0.05, 0.0, 0.0])  # halfway along the 0.1 m link
    np.testing.assert_allclose(capsules[0]["size"][:2], [0.01, 0.05])
    assert {shape["shape"] for shape in shapes} == {"plane", "capsule", "sphere"}
    target = shapes[-1]
    assert target["shape"] == "sphere" and target["root"] == target["link"] == 2


def test_a_mesh_is_drawn_as_its_box():
    model = SimpleNamespace(
        ngeom=1,
        body_rootid=[0, 1],
        geom_type=[7],
        geom_bodyid=[1],
        geom_pos=np.array([[1.0, 0.0, 0.0]]),
        geom_quat=np.array([[0.0, 0.0, 0.0, 1.0]]),  # half a turn about z
        geom_size=np.zeros((1, 3)),
        geom_rgba=np.ones((1, 4)),
        geom_aabb=np.array([[0.5, 0.2, 0.1, 1.0, 2.0, 3.0]]),  # centre and half sizes
    )
    (shape,) = viewer.geometry(model)
    assert (shape["shape"], shape["pos"], shape["size"]) == ("box", [0.5, -0.2, 0.1], [1.0, 2.0, 3.0])


def test_an_environment_may_be_named(played, tmp_path):
    _, episode = played
    path = viewer.write_html(
        tmp_path / "e.html", "brax/inverted_pendulum", episode, episode.reward[1:], backend="spring"
    )
    assert "<title>brax/inverted_pendulum</title>" in path.read_text()


def test_what_cannot_be_shown_is_said(played, tmp_path):
    simulator, episode = played
    state = episode.state["inner"]
    x = state.pipeline_state.x
    astray = np.array(x.pos)
    astray[3, 0, 0] = np.nan
    broken = state.replace(pipeline_state=state.pipeline_state.replace(x=x.replace(pos=astray)))
    cases = [
        (episode.obs, episode.reward, "states: needs the states of one Brax episode"),
        (jax.tree.map(lambda leaf: leaf[0], episode), episode.reward[:1], "stacked along time"),
        (episode, episode.reward[2:], "rewards: got shape"),
        (broken, episode.reward, "frame 3 is not finite"),
    ]
    for states, rewards, message in cases:
        with pytest.raises(ConfigError, match=message):
            viewer.write_html(tmp_path / "no.html", simulator, states, rewards)
    assert not (tmp_path / "no.html").exists()
