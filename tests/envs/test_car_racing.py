"""Car racing: tracks, rewards by hand, a driver who gets round, and physics against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs
from jaxmbrl.config import ConfigError
from jaxmbrl.envs import car_racing
from jaxmbrl.envs.pixels import palette, raster

PARAMS = car_racing.Params()
TRACKS = 300


@functools.cache
def tracks():
    keys = jax.random.split(jax.random.key(0), TRACKS)
    return np.asarray(jax.jit(jax.vmap(lambda key: car_racing.random_track(key, PARAMS.track_radius)))(keys), float)


def test_tracks_are_closed_even_and_never_cross():
    """Tiles are at equal distances round the middle of the field, and no two stretches of road come near each other."""
    steps = np.roll(tracks(), -1, axis=1) - tracks()
    lengths = np.linalg.norm(steps, axis=-1)
    assert (lengths.max(axis=1) < 1.1 * lengths.min(axis=1)).all()
    assert 600 < lengths.sum(axis=1).min() < lengths.sum(axis=1).max() < 1200
    angles = np.unwrap(np.arctan2(tracks()[..., 1], tracks()[..., 0]), axis=1)
    assert (np.diff(angles, axis=1) > 0).all()  # a ray from the middle meets the track once: it does not cross itself
    np.testing.assert_allclose(angles[:, -1] - angles[:, 0], 2 * np.pi, atol=0.1)
    assert np.abs(tracks()).max() < car_racing.FIELD
    index = np.arange(car_racing.TILES)
    apart = np.abs(index[:, None] - index)
    far = np.minimum(apart, car_racing.TILES - apart) > 32
    for track in tracks()[:50]:
        assert np.linalg.norm(track[:, None] - track, axis=-1)[far].min() > 2 * PARAMS.road
    assert np.ptp(lengths.sum(axis=1)) > 200  # tracks differ


@pytest.mark.parametrize("track_radius", [PARAMS.track_radius, car_racing.LIMITS["track_radius"][0]])
def test_enough_tiles_are_drawn(track_radius):
    """All tiles that could show in a picture, whichever way the car looks, of the widest road and the densest track."""
    radius = np.sqrt(2) * car_racing.HALF_VIEW + car_racing.LIMITS["road"][1]
    for track in tracks() * track_radius / PARAMS.track_radius:
        for place in track[::16]:
            for angle in np.arange(0, 2 * np.pi, np.pi / 4):
                middle = place + car_racing.AHEAD * np.array([np.cos(angle), np.sin(angle)])
                assert (np.linalg.norm(track - middle, axis=1) < radius).sum() <= car_racing.NEAREST


def race_on(track):
    """At rest on its first tile."""
    ahead, still = track[1] - track[0], jnp.zeros(())
    car = car_racing.Car(track[0], jnp.arctan2(ahead[1], ahead[0]), jnp.zeros(2), still, still)
    return car_racing.Race(track, jnp.zeros(car_racing.TILES, bool), car)


def pursue(race):
    """Steer for a point ahead on the track, at a speed that the bend before it allows."""
    car, track = race.car, race.track
    nearest = jnp.argmin(jnp.sum((track - car.position) ** 2, axis=1))
    speed = jnp.linalg.norm(car.velocity)
    offset = track[(nearest + 4) % len(track)] - car.position
    error = (jnp.arctan2(offset[1], offset[0]) - car.heading + jnp.pi) % (2 * jnp.pi) - jnp.pi
    bend = track[(nearest + jnp.array([0, 6, 12])) % len(track)]
    one, two = bend[1] - bend[0], bend[2] - bend[1]
    turn = jnp.abs(jnp.arctan2(one[0] * two[1] - one[1] * two[0], one @ two))
    wanted = jnp.clip(12.0 / (turn + 1e-3), 14.0, 45.0)
    return jnp.stack([jnp.clip(-2.0 * error, -1, 1), 1.0 * (speed < wanted), 1.0 * (speed > 1.2 * wanted)])


@jax.jit
def laps(keys):
    """Episodes of the driver without pictures: rewards [B, T], whether over [B, T], and visited tiles [B, TILES]."""

    def one(key):
        def step(carry, _):
            race, over = carry
            after, reward, terminated = car_racing.advance(PARAMS, race, pursue(race))
            race = jax.tree.map(lambda old, new: jnp.where(over, old, new), race, after)
            return (race, over | terminated), (jnp.where(over, 0.0, reward), over | terminated)

        race = race_on(car_racing.random_track(key, PARAMS.track_radius))
        (race, _), (rewards, over) = jax.lax.scan(step, (race, jnp.zeros((), bool)), length=1500)
        return rewards, over, race.visited

    return jax.vmap(one)(keys)


def test_a_driver_gets_round():
    """Ten tracks out of ten: all tiles visited, which ends the episode, and pays 1000 less 0.1 a step."""
    rewards, over, visited = (np.asarray(part) for part in laps(jax.random.split(jax.random.key(1), 10)))
    assert visited.all() and over[:, -1].all()
    steps = 1 + over.argmax(axis=1)
    np.testing.assert_allclose(rewards.sum(axis=1), 1000 - 0.1 * steps, atol=0.05)
    assert rewards.sum(axis=1).min() > 840


def test_standing_still_costs_a_tenth_a_step():
    """After the first step, which pays for the tiles under the car."""
    env = envs.make("car_racing", size=8, episode_length=20)
    first = jax.jit(env.reset)(jax.random.key(0))

    def stand(timestep, _):
        timestep = env.step(jax.random.key(0), timestep, jnp.zeros(3))
        return timestep, (timestep.reward, timestep.terminated)

    _, (rewards, ends) = jax.jit(lambda first: jax.lax.scan(stand, first, length=20))(first)
    under = np.sum(np.linalg.norm(first.state.inner.track - first.state.inner.track[0], axis=1) < PARAMS.road)
    assert rewards[0] == pytest.approx(1000 / car_racing.TILES * under - 0.1, rel=1e-5) and 3 <= under <= 6
    np.testing.assert_allclose(rewards[1:], -0.1, rtol=1e-5)
    assert not ends.any()


def straight(length=400.0):
    """A track that is one straight line along x (no real one is), and a race on it."""
    return race_on(jnp.stack([jnp.linspace(0.0, length, car_racing.TILES), jnp.zeros(car_racing.TILES)], axis=1))


@functools.partial(jax.jit, static_argnums=2)
def driven(race, action, steps):
    def step(race, _):
        race, reward, over = car_racing.advance(PARAMS, race, action)
        return race, (race.car, reward, over)

    return jax.lax.scan(step, race, length=steps)[1]


def test_speed_follows_the_closed_form():
    """From rest with engine a and drag c, v = sqrt(a / c) tanh(t sqrt(a c)); the brake then takes b / 2 an axle."""
    cars, _, _ = driven(straight(), jnp.array([0.0, 1.0, 0.0]), 200)
    times = car_racing.DT * np.arange(1, 201)
    top, rate = np.sqrt(PARAMS.engine / PARAMS.drag), np.sqrt(PARAMS.engine * PARAMS.drag)
    np.testing.assert_allclose(cars.velocity[:, 0], top * np.tanh(rate * times), rtol=0.01)
    np.testing.assert_allclose(cars.position[:, 1], 0.0, atol=1e-4)
    moving = straight()
    moving = moving._replace(car=moving.car._replace(velocity=jnp.array([30.0, 0.0])))
    cars, _, _ = driven(moving, jnp.array([0.0, 0.0, 1.0]), 100)
    stop = np.sqrt(PARAMS.drag / PARAMS.brake) * 30.0  # v = sqrt(b / c) tan(atan(v0 sqrt(c / b)) - t sqrt(b c))
    expected = np.tan(np.arctan(stop) - times[:30] * np.sqrt(PARAMS.brake * PARAMS.drag)) * 30.0 / stop
    np.testing.assert_allclose(cars.velocity[:30, 0], expected, rtol=0.02)
    assert abs(cars.velocity[-1, 0]) < 0.05


@pytest.mark.parametrize("grass", [False, True])
def test_tyres_hold_a_slow_car_and_slide_under_a_fast_one(grass):
    """A slow car turns on the circle of its steering, radius 2 AXLE / tan(steer); no car turns beyond its grip."""
    side = jnp.array([0.0, 100.0 if grass else 0.0])
    grip = 2 * PARAMS.grip * (PARAMS.grass if grass else 1.0)
    for speed in (4.0, 30.0):
        race = straight()
        race = race._replace(car=race.car._replace(position=side, velocity=jnp.array([speed, 0.0])))
        cars, _, _ = driven(race, jnp.array([-0.3, 0.0, 0.0]), 40)
        spin, pace = cars.spin[20:], np.linalg.norm(cars.velocity[20:], axis=1)
        acceleration = np.linalg.norm(np.diff(cars.velocity, axis=0), axis=1) / car_racing.DT
        assert acceleration.max() < 1.01 * grip + PARAMS.drag * speed**2
        if speed < 5.0:
            circle = 2 * car_racing.AXLE / np.tan(0.3 * car_racing.MAX_STEER)
            np.testing.assert_allclose(pace / spin, circle, rtol=0.15)  # slip of the tyres widens it
            assert (cars.position[-1, 1] > side[1]) and (spin > 0).all()  # -1 is left


def test_leaving_the_field_ends_at_a_price():
    race = straight()
    race = race._replace(car=race.car._replace(position=jnp.array([0.0, car_racing.FIELD - 2.0])))
    race = race._replace(car=race.car._replace(velocity=jnp.array([0.0, 60.0]), heading=jnp.asarray(np.pi / 2)))
    _, rewards, over = driven(race, jnp.zeros(3), 3)
    assert not over[0] and over.any()
    assert rewards[np.argmax(over)] == pytest.approx(-100.1)


def test_the_last_tile_ends_the_race():
    race = straight()
    race = race._replace(visited=jnp.ones(car_racing.TILES, bool).at[0].set(False))
    _, rewards, over = driven(race, jnp.zeros(3), 1)
    assert over[0] and rewards[0] == pytest.approx(1000 / car_racing.TILES - 0.1)


@pytest.mark.parametrize("index", [0, 100])
def test_the_picture_shows_the_road_where_it_is(index):
    """Road and grass by the distance of every pixel's point, put into the world in NumPy; the car at its place."""
    track = tracks()[index]
    race = race_on(jnp.asarray(track, jnp.float32))
    car = race.car._replace(heading=race.car.heading + 0.5, steer=jnp.asarray(0.4), spin=jnp.asarray(-1.0))
    picture = np.asarray(jax.jit(lambda race: raster.draw(car_racing.scene(PARAMS, race), 64))(race._replace(car=car)))
    x = (np.arange(64) + 0.5) / 64 * 62 - 31
    y = car_racing.AHEAD - x[:, None]
    heading = float(car.heading)
    forward, right = np.array([np.cos(heading), np.sin(heading)]), np.array([np.sin(heading), -np.cos(heading)])
    points = track[0] + (x + 0 * y)[..., None] * right + (y + 0 * x)[..., None] * forward
    distance = np.linalg.norm(points[:, :, None] - track, axis=-1).min(axis=-1)
    green = picture[..., 1].astype(int) - picture[..., 0] > 30
    scenery = (np.hypot(*(np.broadcast_arrays(x, y))) > 4) & (y + 0 * x > car_racing.AHEAD - 31 + 6)
    assert green[scenery & (distance > PARAMS.road + 0.8)].all()
    assert not green[scenery & (distance < PARAMS.road - 0.8)].any()
    red = (np.abs(picture - np.round(255 * np.array(palette.RED))) < 40).all(axis=-1) & ~green
    np.testing.assert_allclose([(x + 0 * y)[red].mean(), (y + 0 * x)[red].mean()], [0.0, 0.0], atol=0.8)


@pytest.mark.parametrize(("option", "value"), [("track_radius", 60.0), ("track_radius", 400.0), ("road", -3.0)])
def test_a_track_that_no_picture_shows_is_refused(option, value):
    with pytest.raises(ConfigError, match=rf"env.{option}: got {value}, needs"):
        envs.make("car_racing", **{option: value})
