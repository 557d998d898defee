"""Animations: every frame is there, and the drawing is where the physics says."""

import numpy as np
import pytest
from PIL import Image

from jaxmbrl.config import ConfigError
from jaxmbrl.diagnostics import animation
from jaxmbrl.diagnostics.animation import animate
from jaxmbrl.envs import classic
from jaxmbrl.envs.pixels.palette import BLUE, GREEN, RED

# Each task at rest in a known pose, with the entries of its observation.
POSES = {
    "pendulum": [0.0, 1.0, 0.0],  # a quarter turn counter-clockwise
    "cartpole": [1.0, 0.0, 0.1, 0.0],
    "cartpole_swingup": [0.3, 0.0, 1.0, 0.0, 0.0],  # the pole points to +x
    "acrobot": [0.0, 1.0, 1.0, 0.0, 0.0, 0.0],  # stretched to +x
    "mountain_car": [0.4, 0.0],
    "reacher": [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.2, 0.3, 0.3, 0.2],  # elbow at (0, 0.5), tip at (0.5, 0.5)
}


def pixels_of(image, color):
    """(x, y) of the pixels of exactly that colour."""
    rows, columns = np.nonzero((np.array(image) == np.round(255 * np.array(color))).all(axis=-1))
    return np.stack([columns, rows], axis=1)


def draw(name):
    return animation.pictures(name, [POSES[name]], classic.options(name))[0]


@pytest.mark.parametrize("name", sorted(POSES))
def test_every_frame_is_written_and_moves(name, tmp_path):
    pose = np.array(POSES[name])
    other = {"pendulum": [1.0, 0.0, 0.0], "acrobot": [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]}.get(name, 0.5 * pose)
    path = animate(name, [pose, other, pose, other], tmp_path / "new" / "episode.gif")
    with Image.open(path) as picture:
        assert picture.format == "GIF" and picture.size == (300, 300)
        assert picture.n_frames == 4  # pyright: ignore
        first = np.array(picture.convert("RGB"), int)
        picture.seek(1)
        assert np.abs(first - np.array(picture.convert("RGB"), int)).max() > 50


def test_pendulum_turns_counter_clockwise():
    x, y = pixels_of(draw("pendulum"), RED).T
    assert x.max() < 158 and x.min() < 40  # from the hinge in the middle, 150, to the left
    assert abs(y.mean() - 150) < 2


def test_poles_lean_to_the_right():
    x, y = pixels_of(draw("cartpole_swingup"), RED).T
    hinge = 150 + 0.3 / 1.02 * 150
    assert x.max() == pytest.approx(hinge + 0.6 / 1.02 * 150, abs=5)
    assert abs(y.mean() - 150) < 2
    x, y = pixels_of(draw("cartpole"), RED).T
    assert x[y.argmin()] > x[y.argmax()]  # the tip is at the top, to the right of the hinge


def test_acrobot_hangs_from_the_middle():
    image = draw("acrobot")
    assert pixels_of(image, BLUE)[:, 0].max() < pixels_of(image, RED)[:, 0].max()
    assert pixels_of(image, RED)[:, 0].max() == pytest.approx(150 + 2 / 2.3 * 150, abs=7)
    assert abs(pixels_of(image, RED)[:, 1].mean() - 150) < 2
    assert pixels_of(image, GREEN)[:, 1].mean() == pytest.approx(150 - 1 / 2.3 * 150, abs=1)


def test_reacher_reaches_where_the_observation_says():
    image = draw("reacher")
    scale = 150 / 1.15
    x, y = pixels_of(image, RED).T
    assert x.max() == pytest.approx(150 + 0.5 * scale, abs=6)
    assert y.mean() == pytest.approx(150 - 0.5 * scale, abs=2)
    np.testing.assert_allclose(pixels_of(image, GREEN).mean(axis=0), [150 + 0.2 * scale, 150 - 0.3 * scale], atol=2)


def test_car_sits_on_its_track_before_the_flag():
    image = draw("mountain_car")
    car, flag = pixels_of(image, RED).mean(axis=0), pixels_of(image, GREEN).mean(axis=0)
    assert car[0] == pytest.approx(150 + 0.7 / 0.95 * 150, abs=10)  # its middle is above the slope, so to the left
    assert flag[0] > car[0] and flag[1] < car[1]


def test_long_episodes_skip_steps(tmp_path):
    path = animate("mountain_car", np.linspace([-0.5, 0.0], [0.4, 0.0], 999), tmp_path / "car.gif")
    with Image.open(path) as picture:
        assert picture.n_frames == 200  # pyright: ignore


def test_pictures_are_shown_as_they_are(tmp_path):
    film = np.zeros((5, 20, 20, 3), np.uint8)
    film[np.arange(5), np.arange(5)] = [250, 40, 60]  # a line that falls
    with Image.open(animate("pixels/my_own", film, tmp_path / "film.gif")) as picture:
        assert picture.n_frames == 5 and picture.size == (300, 300)  # pyright: ignore
        for row in range(5):
            picture.seek(row)
            shown = np.array(picture.convert("RGB"), int)[7::15, 7::15]
            assert np.abs(shown - film[row]).max() < 10


def test_grids_are_shown_in_a_colour_for_each_kind_of_thing(tmp_path):
    film = np.zeros((4, 10, 10, 2), bool)
    film[:, 3, 5, 0] = film[np.arange(4), np.arange(4), 2, 1] = True  # one stands still, one falls
    with Image.open(animate("my_own", film, tmp_path / "grid.gif")) as picture:
        assert picture.n_frames == 4 and picture.size == (300, 300)  # pyright: ignore
        for row in range(4):
            picture.seek(row)
            shown = np.array(picture.convert("RGB"), int)[15::30, 15::30]
            wanted = np.zeros((10, 10, 3))
            wanted[3, 5], wanted[row, 2] = 255 * np.array(BLUE), 255 * np.array(RED)
            assert np.abs(shown - wanted).max() < 10
    chances = np.array([[[0.5, 0.0], [1.0, 1.0]]])
    np.testing.assert_allclose(animation.coloured(chances), [[0.5 * np.array(BLUE), np.maximum(BLUE, RED)]], rtol=1e-6)


def test_other_environments_get_their_observations_over_time(tmp_path):
    observations = np.stack([np.linspace(-1, 1, 30), np.linspace(1, -1, 30)], axis=1)
    path = animate("my_own", observations, tmp_path / "own.gif", backend="spring")
    with Image.open(path) as picture:
        assert picture.n_frames == 30  # pyright: ignore
    last = animation.series_frame(observations, 29)
    rising, falling = pixels_of(last, BLUE), pixels_of(last, RED)
    assert rising[rising[:, 0].argmax(), 1] < 50 < 250 < falling[falling[:, 0].argmax(), 1]
    assert animate("constant", np.zeros((1, 12)), tmp_path / "constant.gif").exists()


@pytest.mark.parametrize("observations", [[], [1.0, 2.0], [[np.nan, 0.0, 0.0]]])
def test_bad_observations_give_one_clear_line(observations, tmp_path):
    with pytest.raises(ConfigError, match=r"observations: got shape .*, needs \[T, O\], finite and not empty"):
        animate("pendulum", observations, tmp_path / "bad.gif")
