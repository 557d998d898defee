"""Pictures against geometry: areas, centroids and extents from closed forms, poses from MuJoCo's own kinematics."""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import pixels
from jaxmbrl.envs.pixels import bodies, palette, raster
from jaxmbrl.envs.pixels.classic import SCENES
from jaxmbrl.envs.pixels.raster import Layer, Scene, View, draw
from jaxmbrl.types import TimeStep

BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SIZE = 64


@functools.partial(jax.jit, static_argnums=(0, 1))
def shot(make, size, *numbers):
    """Coverage [size, size] of a white shape on black; the picture is 2 m wide."""
    picture = draw(Scene(View(0.0, 0.0, 1.0), [Layer(make(*numbers), WHITE)], BLACK), size)
    return picture[..., 0] / 255.0


def moments(coverage, half_width=1.0):
    """Area in m^2 and centroid (x, y) in m of what is covered."""
    coverage = np.asarray(coverage, np.float64)
    pixel = 2 * half_width / len(coverage)
    x = (np.arange(len(coverage)) + 0.5) * pixel - half_width
    area = coverage.sum()
    return area * pixel**2, np.array([(coverage * x).sum(), (coverage * -x[:, None]).sum()]) / area


SHAPES = {  # each with its numbers, its area and its centroid
    "disc": (lambda c: raster.disc(c, 0.3), [(0.113, -0.271)], np.pi * 0.09, (0.113, -0.271)),
    "small disc": (lambda c: raster.disc(c, 0.05), [(0.113, -0.271)], np.pi * 0.0025, (0.113, -0.271)),
    "capsule": (
        lambda a, b: raster.capsule(a, b, 0.11),
        [(-0.5, -0.2), (0.4, 0.33)],
        np.pi * 0.11**2 + 0.22 * np.hypot(0.9, 0.53),
        (-0.05, 0.065),
    ),
    "a line thinner than a pixel": (
        lambda a, b: raster.capsule(a, b, 0.004),
        [(-0.5, -0.2), (0.4, 0.33)],
        0.008 * np.hypot(0.9, 0.53),
        (-0.05, 0.065),
    ),
    "ring": (lambda c: raster.ring(c, 0.4, 0.1), [(0.1, 0.2)], 2 * np.pi * 0.4 * 0.1, (0.1, 0.2)),
    "box": (lambda c, a: raster.box(c, 0.4, 0.25, a), [(0.1, -0.07), 0.6], 0.8 * 0.5, (0.1, -0.07)),
    "triangle": (
        lambda a, b: raster.polygon([a, b, (0.0, 0.7)]),
        [(-0.6, -0.5), (0.5, -0.4)],
        0.5 * (1.1 * 1.2 - 0.1 * 0.6),
        (-0.1 / 3, -0.2 / 3),
    ),
    "below": (
        lambda h: raster.below(lambda x: h + 0.5 * x, lambda x: jnp.full_like(x, 0.5)),
        [0.1],
        2 * 1.1,
        (0.5 * 2 / 3 * 0.5 / 1.1, None),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_coverage_adds_up_to_the_area(name):
    """The edge of a shape is as dark as it covers: sums over pixels are the closed form's, to 1%.

    An edge counts as straight within a pixel and a line's ends as square, so that small things are off by more.
    """
    make, numbers, area, centroid = SHAPES[name]
    coverage = shot(make, SIZE, *(jnp.asarray(number) for number in numbers))
    found, middle = moments(coverage)
    small = "small" in name or "thinner" in name
    assert found == pytest.approx(area, rel=0.05 if small else 0.01)
    for one, expected in zip(middle, centroid, strict=True):
        assert expected is None or one == pytest.approx(expected, abs=0.015 if small else 0.004)  # an eighth of a pixel
    assert 0 < np.mean((coverage > 0) & (coverage < 1)) < 0.2  # there are soft edges, and only there


def test_the_seen_box_is_a_hexagon():
    """A zonogon of three sides has the area 4 sum_{i<j} |side_i x side_j|."""
    sides = np.array([[0.3, 0.05], [-0.1, 0.25], [0.12, 0.2]])
    area = 4 * sum(abs(np.cross(np.r_[sides[i], 0], np.r_[sides[j], 0])[2]) for i, j in [(0, 1), (0, 2), (1, 2)])
    assert moments(shot(raster.zonogon, SIZE, jnp.zeros(2), jnp.asarray(sides)))[0] == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("size", [16, 32, 96])
def test_any_size(size):
    coverage = shot(lambda center: raster.disc(center, 0.3), size, jnp.array([0.2, 0.1]))
    area, middle = moments(coverage)
    assert coverage.shape == (size, size)
    assert area == pytest.approx(np.pi * 0.09, rel=0.02)
    np.testing.assert_allclose(middle, [0.2, 0.1], atol=0.01)


def test_later_layers_are_in_front():
    near, far = Layer(raster.disc((0.0, 0.0), 0.5), palette.RED), Layer(raster.disc((0.3, 0.0), 0.5), palette.BLUE)
    for layers, color in (((near, far), palette.BLUE), ((far, near), palette.RED)):
        picture = draw(Scene(View(0.0, 0.0, 1.0), layers, WHITE), SIZE)
        np.testing.assert_array_equal(picture[32, 36], np.round(np.array(color) * 255))  # x = 0.14, in both


def test_squares_are_averaged_over_pixels():
    """The mean of a square wave over any pixel, against a fine sum; and grey where the pattern is finer than pixels."""
    wave = np.asarray(raster.square_wave(jnp.linspace(-1.0, 1.0, 41), 0.3, 0.1))
    fine = [np.mean((-1.0) ** np.floor((x + np.linspace(-0.05, 0.05, 2001)) / 0.3)) for x in np.linspace(-1, 1, 41)]
    np.testing.assert_allclose(wave, fine, atol=2e-3)
    assert np.abs(raster.square_wave(jnp.linspace(-1.0, 1.0, 41), 0.01, 0.1)).max() == 0.0


def close_to(picture, color, tolerance=2):
    return (np.abs(np.asarray(picture, int) - np.round(np.array(color) * 255)) <= tolerance).all(axis=-1)


def where(mask, view):
    """Points (x, y) in m of the pixels of a mask, [N, 2]."""
    rows, columns = np.nonzero(mask)
    x, y, half_width = (float(number) for number in view)
    points = np.stack([columns + 0.5, len(mask) - rows - 0.5], axis=1) * (2 * half_width / len(mask))
    return points + np.array([x - half_width, y - half_width])


@jax.jit
def pendulum_picture(state):
    task = envs.classic.TASKS["pendulum"]
    return draw(SCENES["pendulum"](task.parameters, task.observe(task.parameters, state)), 128)


@pytest.mark.parametrize("angle", [0.3, 2.0, -1.2, np.pi])
def test_pendulum_is_where_the_state_says(angle):
    points = where(close_to(pendulum_picture(jnp.array([angle, 0.0])), palette.RED), View(0.0, 0.0, 1.15))
    tip = np.array([-np.sin(angle), np.cos(angle)])
    distance = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(points.mean(axis=0), (0.5 + 0.02) * tip, atol=0.03)  # the hinge's disc hides 0.04
    assert distance.max() == pytest.approx(1.0 + 0.055, abs=0.03)
    assert np.abs(points @ [tip[1], -tip[0]]).max() == pytest.approx(0.055, abs=0.02)


MODEL = """
<mujoco><worldbody>
  <geom type="plane" size="5 5 1" pos="0 0 -1"/>
  <body name="rod"><freejoint/><geom type="capsule" size="0.1 0.4" pos="0.1 0 0.05" euler="20 40 0"/></body>
  <body name="brick"><freejoint/><geom type="box" size="0.2 0.1 0.3"/></body>
  <body name="ball"><freejoint/><geom type="sphere" size="0.15"/></body>
</worldbody></mujoco>
"""
FIXED = bodies.Camera(elevation=30.0, follows=False, half_width=1.5)


@functools.cache
def model():
    return mujoco.MjModel.from_xml_string(MODEL)


def posed(mj_model, qpos):
    data = mujoco.MjData(mj_model)
    data.qpos[:] = qpos
    mujoco.mj_forward(mj_model, data)
    return data


@functools.cache
def camera_on(camera):
    """A compiled ``(positions, rotations) -> picture, view``."""
    look = bodies.scene(model(), camera)

    def paint(position, rotation):
        scene = look(position, rotation)
        return draw(scene, 128), scene.view

    return jax.jit(paint)


def photograph(camera, qpos):
    """The picture of a pose and its view, and MuJoCo's data of it."""
    data = posed(model(), qpos)
    return *camera_on(camera)(*links(data)), data


def links(data):
    return jnp.asarray(data.xpos[1:], jnp.float32), jnp.asarray(data.xquat[1:], jnp.float32)


def pose(rod, brick, ball, seed):
    """All three bodies at given places, turned at random."""
    turns = np.random.default_rng(seed).normal(size=(3, 4))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    return np.concatenate([np.r_[place, turn] for place, turn in zip((rod, brick, ball), turns, strict=True)])


def project(camera, points):
    """World points [..., 3] in the picture's plane, [..., 2]."""
    angle = np.deg2rad(camera.elevation)
    return np.stack([points[..., 0], points[..., 1] * np.sin(angle) + points[..., 2] * np.cos(angle)], axis=-1)


@pytest.mark.parametrize("seed", range(4))
def test_bodies_are_where_mujoco_says(seed):
    """Centroids of a turned capsule, box and ball, and the ends of the capsule, from MuJoCo's geom poses."""
    picture, view, data = photograph(FIXED, pose([-0.7, 0, 0.1], [0.7, 0.3, -0.1], [0.0, 0, 0.8], seed))
    rod, brick, ball = (where(close_to(picture, palette.SERIES[link]), view) for link in range(3))
    for points, seen in zip((rod, brick, ball), project(FIXED, data.geom_xpos[1:]), strict=True):
        np.testing.assert_allclose(points.mean(axis=0), seen, atol=0.015)  # 2/3 of a pixel
    axis = project(FIXED, data.geom_xmat[1].reshape(3, 3)[:, 2] * 0.4)
    along = (rod - rod.mean(axis=0)) @ axis / np.linalg.norm(axis)
    assert along.max() == pytest.approx(np.linalg.norm(axis) + 0.1, abs=0.03)
    assert along.min() == pytest.approx(-np.linalg.norm(axis) - 0.1, abs=0.03)
    corners = data.geom_xmat[2].reshape(3, 3) * [0.2, 0.1, 0.3]  # columns: half sides in the world
    reach = np.abs(project(FIXED, corners.T)).sum(axis=0)
    np.testing.assert_allclose(np.ptp(brick, axis=0), 2 * reach, atol=0.08)


def test_the_nearer_body_hides_the_farther():
    level = FIXED._replace(elevation=0.0)
    for near in (-1.0, 1.0):  # the camera looks along +y, so that the smaller y is nearer
        picture, _, _ = photograph(level, pose([0, 0, -0.9], [0, -near, 0.5], [0, near, 0.5], 0))
        assert (close_to(picture, palette.SERIES[2]).sum() > 100) == (near < 0)


def test_the_camera_follows_and_the_floor_stays():
    """A walk by one period of the checkerboard changes nothing; by half of one, only the floor."""
    tile = bodies.TILE_WIDTH * 1.5
    places = np.array([[0.0, 0, 0.1], [0.5, 0.3, -0.1], [0.0, 0, 0.6]])
    first, whole, half = (
        np.asarray(photograph(FIXED._replace(follows=True), pose(*(places + np.array([distance, 0, 0])), 1))[0], int)
        for distance in (0.0, 2 * tile, tile)
    )
    assert np.abs(first - whole).max() <= 2
    changed = np.abs(first - half).max(axis=-1) > 10
    body = np.any([close_to(first, palette.SERIES[link]) for link in range(3)], axis=0)
    assert body.sum() > 500 and not (changed & body).any() and changed.mean() > 0.2


def test_halfcheetah_has_its_limbs_where_mujoco_says():
    """At the middle of every geom of random poses there is its link's colour, but for what another limb hides."""
    from jaxmbrl.envs import brax

    cheetah = brax.simulator("halfcheetah").sys.mj_model
    look = bodies.scene(cheetah, bodies.Camera())

    @jax.jit
    def paint(position, rotation):
        scene = look(position, rotation)
        return draw(scene, 128), scene.view

    random, right, limbs = np.random.default_rng(0), 0, 0
    for _ in range(4):
        data = posed(cheetah, np.r_[5.0, 0.1, random.uniform(-0.4, 0.4, cheetah.nq - 2)])
        picture, view = paint(*links(data))
        offset = project(bodies.Camera(), data.geom_xpos) - [view.x, view.y]
        columns, rows = ((offset * [1, -1] / view.half_width + 1) * 64).astype(int).T
        for index in np.flatnonzero(cheetah.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE):
            color = palette.SERIES[cheetah.geom_bodyid[index] - 1]
            right += bool(close_to(picture[rows[index], columns[index]], color, 3))
            limbs += 1
    assert limbs == 32 and right >= 29


def test_pixels_are_what_the_inner_environment_shows(key):
    """Rewards, ends and states are untouched, under jit and vmap; pictures are uint8, and nothing known is left."""
    plain = envs.make("cartpole", episode_length=5)
    env = envs.make("pixels/cartpole", episode_length=5, size=16)
    assert env.spec.observation == jax.ShapeDtypeStruct((16, 16, 3), jnp.uint8)
    assert env.spec.reward is None and env.spec.termination is None and env.spec.angles == ()
    assert env.spec.name == "pixels/cartpole" and env.spec.episode_length == 5

    def run(env, key):
        def step(timestep, action):
            timestep = env.step(key, timestep, action)
            return timestep, timestep

        return jax.lax.scan(step, env.reset(key), jnp.linspace(-1, 1, 6)[:, None])[1]

    keys = jax.random.split(key, 3)
    one, two = (jax.jit(jax.vmap(functools.partial(run, one)))(keys) for one in (plain, env))
    for name in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(two.state.inner.obs, one.obs)
    params = envs.classic.TASKS["cartpole"].parameters
    by_hand = jax.jit(jax.vmap(jax.vmap(lambda obs: draw(SCENES["cartpole"](params, obs), 16))))(one.obs)
    assert np.abs(np.asarray(by_hand, int) - np.asarray(two.obs, int)).max() <= 1
    assert two.obs.dtype == jnp.uint8 and len(np.unique(two.obs)) > 20


def test_only_seen_frames_are_drawn(key):
    """With an action repeat of 4, a step draws one picture."""
    bare, drawn = envs.wrappers.action_repeat(envs.classic.make("pendulum"), 4), []

    def scene(timestep: TimeStep) -> Scene:
        jax.debug.callback(lambda: drawn.append(1))
        return Scene(View(0.0, 0.0, 1.0), [Layer(raster.disc((0.0, 0.0), 0.3), WHITE)], BLACK)

    env = pixels.render(bare, scene, 8)
    first = env.reset(key)
    jax.block_until_ready(jax.jit(env.step)(key, first, jnp.zeros(1)))
    jax.effects_barrier()
    assert len(drawn) == 2  # after the reset, and after the step


@pytest.mark.parametrize("name", sorted(SCENES))
def test_every_classic_task_has_a_picture_that_moves(name, key):
    env = envs.make(f"pixels/{name}", size=32, action_repeat=10)

    def run(key):
        first = env.reset(key)
        return first.obs, env.step(key, first, jnp.ones(env.spec.box.size)).obs

    before, after = jax.jit(run)(key)
    assert before.shape == (32, 32, 3) and before.dtype == jnp.uint8
    assert np.abs(np.asarray(before, int) - np.asarray(after, int)).max() > 20


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pixels/linear_quadratic", {}, r"env: got 'pixels/linear_quadratic', which has no picture; needs one of"),
        ("pixels/pendulm", {}, r"env: got 'pixels/pendulm'.*did you mean pixels/pendulum"),
        ("pixels/brax/swimmer", {}, r"does not run on current jax"),
        ("pixels/pendulum", {"size": 0}, r"env.size: got 0, needs a whole number of at least 1"),
        ("pixels/pendulum", {"sise": 32}, r"env.sise: no such option of pixels/pendulum; did you mean size"),
        ("pendulum", {"size": 32}, r"env.size: no such option of pendulum"),
    ],
)
def test_mistakes_get_one_line(name, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        envs.make(name, **options)
    assert "\n" not in str(error.value)
