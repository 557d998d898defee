"""Car racing from above, in the spirit of Gymnasium's CarRacing: a random closed track, seen in the frame of the car.

Actions are steering in [-1, 1] (left is -1), gas and brake in [0, 1]. Every tile of the track that is visited for the
first time pays 1000 / tiles, and every step costs 0.1. The episode terminates when all tiles have been visited, or, at
a price of 100, when the car leaves the field; grass has less grip than the road. Observations are pictures, in which
the car points up, with bars for what one picture does not show otherwise: speed, steering and rate of turn.

Differs from Gymnasium (whose sizes these are: 12 checkpoints, road 13.3 wide, field 667 wide, 50 steps a second, 1000
of them): the track is a B-spline of the checkpoints rather than the path of something that chases them, so that none is
rejected, and as it cuts their corners they are farther out (220 rather than 150); it has 256 tiles of equal length, and
one counts as visited when the car's middle passes within half of the road's width of the tile's; the car is two axles
under Coulomb friction rather than four wheels in Box2D.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.envs.pixels import raster
from jaxmbrl.envs.pixels.palette import FAINT, GOLD, GREEN, INK, RED, Color, from_hex
from jaxmbrl.envs.pixels.raster import Layer, Scene, View
from jaxmbrl.envs.wrappers import check_count, strongly_typed
from jaxmbrl.types import Array, Box, Environment, Key, Spec, TimeStep

NAMES = ("car_racing",)
SIZE = 64  # pixels
EPISODE_LENGTH = 1000
TILES, CHECKPOINTS = 256, 12
FIELD = 2000.0 / 6.0  # from the middle of the field to its edges
DEGREE, DOUBLINGS = 5, 5  # of the track's B-spline, and of its checkpoints: 384 points
DT, SUBSTEPS = 0.02, 4
AXLE, TURNING = 1.6, 2.0  # from the middle of the car to either axle; yaw inertia of a car of mass 1
MAX_STEER, STEER_SPEED = 0.4, 3.0  # rad, rad/s
SLIP = 25.0  # friction per unit of a tyre's sideways speed, 1/s, until it slides
FAR = 1e6  # beyond all squared distances in a picture
HALF_VIEW, AHEAD = 31.0, 15.0  # of the picture's width, and from the car to the picture's middle
NEAREST = 64  # tiles that are drawn: a view holds no more than 56 (of 300 random tracks)
LIMITS = {"track_radius": (200.0, 330.0), "road": (1.0, 10.0)}  # few enough tiles in a view; a track within the field
ROAD, DARK_ROAD, GRASS, PATCH = from_hex("#8d9299"), from_hex("#7f848b"), from_hex("#6fae6a"), from_hex("#7fba78")
BAR = from_hex("#11161b")


class Params(NamedTuple):
    """Physical parameters, per unit of the car's mass.

    Attributes:
        track_radius: of the farthest checkpoint.
        road: half of the road's width.
        grip: largest acceleration that an axle's friction gives, 1/s^2.
        grass: share of it on grass.
        engine: acceleration at gas 1, 1/s^2.
        brake: deceleration at brake 1, 1/s^2.
        drag: deceleration per squared speed; with the engine it sets the top speed.
    """

    track_radius: float = 220.0
    road: float = 40.0 / 6.0
    grip: float = 25.0
    grass: float = 0.5
    engine: float = 18.0
    brake: float = 35.0
    drag: float = 0.0025


class Car(NamedTuple):
    """The state of the car.

    Attributes:
        position: [2].
        heading: [], rad, from the x axis.
        velocity: [2], in the world.
        spin: [], of the heading, rad/s.
        steer: [], angle of the front axle, rad, positive to the left.
    """

    position: Array
    heading: Array
    velocity: Array
    spin: Array
    steer: Array


class Race(NamedTuple):
    """The state of the simulator.

    Attributes:
        track: [TILES, 2], the middle of each tile.
        visited: bool [TILES].
        car: the car.
    """

    track: Array
    visited: Array
    car: Car


@jax.jit  # one program for those who call the environment outside of one, too
def random_track(key: Key, radius: Array | float) -> Array:
    """A closed track, counter-clockwise around the middle, as TILES points at equal distances, [TILES, 2].

    Checkpoints lie at random angles within their twelfths, at random distances of a third to all of the radius. The
    track is their closed quintic B-spline, so that a ray from the middle meets it once, as it does their polygon: it
    never crosses itself.
    """
    key_angle, key_distance = jax.random.split(key)
    share = jax.random.uniform(key_angle, (CHECKPOINTS,))
    angles = 2.0 * jnp.pi / CHECKPOINTS * (jnp.arange(CHECKPOINTS) + share)
    distances = radius * jax.random.uniform(key_distance, (CHECKPOINTS,), minval=1.0 / 3.0)
    points = distances[:, None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    for _ in range(DOUBLINGS):  # each doubles the control points of the same curve (Lane and Riesenfeld 1980)
        points = jnp.repeat(points, 2, axis=0)
        for _ in range(DEGREE):
            points = 0.5 * (points + jnp.roll(points, -1, axis=0))
    closed = jnp.concatenate([points, points[:1]])
    steps = jnp.linalg.norm(jnp.diff(closed, axis=0), axis=1)
    length = jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
    at = jnp.arange(TILES) * length[-1] / TILES
    return jnp.stack([jnp.interp(at, length, column) for column in closed.T], axis=1)


def drive(params: Params, car: Car, action: Array, on_road: Array) -> Car:
    """One step of a car of two axles, each with a tyre that slides beyond its grip.

    A tyre brakes its own sideways speed, and drives or brakes along its direction; together no more than its grip.

    Args:
        params: physical parameters.
        car: before the step.
        action: [3], steering, gas, brake.
        on_road: bool [2], of the front and the rear axle.
    """
    grip = params.grip * jnp.where(on_road, 1.0, params.grass)
    target, gas, brake = -MAX_STEER * action[0], action[1], 0.5 * params.brake * action[2]
    dt = DT / SUBSTEPS

    def advance(car: Car, _: None) -> tuple[Car, None]:
        steer = car.steer + jnp.clip(target - car.steer, -STEER_SPEED * dt, STEER_SPEED * dt)
        forward, left = _axes(car.heading)
        along, across = car.velocity @ forward, car.velocity @ left
        stopping = -brake * jnp.clip(along / 0.5, -1.0, 1.0)  # to a halt, not backwards
        turned = jnp.stack(_axes(steer))  # of the front wheel, in the frame of the car
        slide_front = turned[1] @ jnp.stack([along, across + AXLE * car.spin])
        front = _tyre(stopping, slide_front, grip[0]) @ turned
        rear = _tyre(stopping + params.engine * gas, across - AXLE * car.spin, grip[1])
        push = front + rear - params.drag * along * jnp.abs(along) * jnp.array([1.0, 0.0])
        velocity = car.velocity + dt * (push[0] * forward + push[1] * left)
        spin = car.spin + dt * AXLE * (front[1] - rear[1]) / TURNING
        return Car(car.position + dt * velocity, car.heading + dt * spin, velocity, spin, steer), None

    return jax.lax.scan(advance, car, None, length=SUBSTEPS, unroll=True)[0]


def _tyre(along: Array, slide: Array, grip: Array) -> Array:
    """Force [2] along a tyre's direction and to its left, within its grip."""
    force = jnp.stack([along, -SLIP * slide])
    return force * jnp.minimum(1.0, grip / jnp.sqrt(jnp.sum(force**2) + 1e-9))


def _axes(angle: Array) -> tuple[Array, Array]:
    """The unit vectors [2] forward and to the left."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cosine, sine]), jnp.stack([-sine, cosine])


def scene(params: Params, race: Race) -> Scene:
    """The field from above in the frame of the car, which points up, and the bars of its instruments below."""
    car = race.car
    forward, left = _axes(car.heading)
    seen = (race.track - car.position) @ jnp.stack([-left, forward], axis=1)
    distance = jnp.sum((seen - jnp.array([0.0, AHEAD])) ** 2, axis=1)
    _, nearest = jax.lax.top_k(-distance, NEAREST)
    bottom = AHEAD - HALF_VIEW
    speed = jnp.sqrt(jnp.sum(car.velocity**2))

    def ground(x: Array, y: Array, pixel: Array) -> Array:
        east = car.position[0] - left[0] * x + forward[0] * y
        north = car.position[1] - left[1] * x + forward[1] * y
        patches = raster.square_wave(east, 20.0, pixel) * raster.square_wave(north, 20.0, pixel)
        light, dark = _to_road(seen[nearest], nearest, x, y)
        road = jnp.where((dark < light)[..., None], jnp.asarray(DARK_ROAD), jnp.asarray(ROAD))
        on_road = jnp.clip((params.road - jnp.minimum(light, dark)) / pixel + 0.5, 0.0, 1.0)[..., None]
        return raster.mix(patches, GRASS, PATCH) * (1.0 - on_road) + road * on_road

    layers = [
        Layer(lambda x, y, pixel: jnp.ones_like(x + y), ground),
        *[
            Layer(raster.box((x, y), 0.45, 0.9, angle), INK)
            for y, angle in ((AXLE, car.steer), (-AXLE, 0.0))
            for x in (-1.3, 1.3)
        ],
        Layer(raster.box((0.0, 0.0), 1.1, 2.6), RED),
        Layer(raster.box((0.0, bottom), HALF_VIEW, 5.0), BAR),
        _bar(-28.0, 0.22 * speed, bottom, FAINT),
        _bar(5.0, -9.0 * car.steer / MAX_STEER, bottom, GREEN),
        _bar(22.0, -3.0 * car.spin, bottom, GOLD),
    ]
    return Scene(View(0.0, AHEAD, HALF_VIEW), layers, GRASS)


def _to_road(points: Array, index: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Distances [H, W] from the nearest light and the nearest dark tile's middle: they change every four tiles."""

    def nearer(least: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
        point, is_dark = tile
        square = (x - point[0]) ** 2 + (y - point[1]) ** 2
        return jnp.minimum(
            least, square + jnp.where(is_dark, jnp.array([FAR, 0.0]), jnp.array([0.0, FAR]))[:, None, None]
        ), None

    start = jnp.full((2, *jnp.broadcast_shapes(x.shape, y.shape)), FAR)
    least, _ = jax.lax.scan(nearer, start, (points, index // 4 % 2 == 1), unroll=8)
    return jnp.sqrt(least[0]), jnp.sqrt(least[1])


def _bar(start: float, length: Array, bottom: float, color: Color) -> Layer:
    """A bar from ``start`` to the right, or to the left where its length is negative."""
    return Layer(raster.box((start + 0.5 * length, bottom + 2.5), 0.5 * jnp.abs(length) + 0.01, 1.0), color)


def make(name: str = "car_racing", *, size: int = SIZE, **params: Any) -> Environment:
    """Make the environment, as yet without a time limit.

    Args:
        name: ``car_racing``.
        size: pixels along each side of a picture.
        **params: some of `Params`; they may be tracers.

    Raises:
        ConfigError: ``size`` is below 1, or a track that a picture could not show whole.
    """
    check_count("env.size", size)
    physics = Params(**params)
    for option, (low, high) in LIMITS.items():
        value = getattr(physics, option)
        if isinstance(value, int | float) and not low <= value <= high:
            raise ConfigError(f"env.{option}: got {value}, needs {low} to {high}")

    picture = jax.jit(lambda race: raster.draw(scene(physics, race), size))

    def show(race: Race, reward: Array, terminated: Array) -> TimeStep:
        return TimeStep(race, picture(race), reward, terminated, jnp.zeros((), bool))

    def reset(key: Key) -> TimeStep:
        track = random_track(key, physics.track_radius)
        ahead = track[1] - track[0]
        still = jnp.zeros(())
        car = Car(track[0], jnp.arctan2(ahead[1], ahead[0]), jnp.zeros(2), still, still)
        return show(Race(track, jnp.zeros(TILES, bool), car), still, jnp.zeros((), bool))

    def step(key: Key, timestep: TimeStep, action: Array) -> TimeStep:
        del key  # nothing is random but the track
        race, reward, terminated = advance(physics, timestep.state, jnp.clip(action, BOX.low, BOX.high))
        return show(race, reward, terminated)

    observation = jax.ShapeDtypeStruct((size, size, raster.CHANNELS), jnp.uint8)
    return strongly_typed(Environment(Spec(name, observation, BOX, EPISODE_LENGTH), reset, step))


@jax.jit
def advance(params: Params, race: Race, action: Array) -> tuple[Race, Array, Array]:
    """The race after a step, its reward [] and whether it is over, bool []."""
    forward, _ = _axes(race.car.heading)
    axles = race.car.position + AXLE * jnp.stack([forward, -forward])
    on_road = jnp.min(_distances(axles, race.track), axis=1) < params.road
    car = drive(params, race.car, action, on_road)
    touched = _distances(car.position[None], race.track)[0] < params.road
    visited = race.visited | touched
    new = jnp.sum(visited & ~race.visited)
    outside = jnp.any(jnp.abs(car.position) > FIELD)
    reward = 1000.0 / TILES * new - 0.1 - 100.0 * outside
    return Race(race.track, visited, car), reward, outside | jnp.all(visited)


def _distances(points: Array, track: Array) -> Array:
    """From each of P points to each tile, [P, TILES]."""
    return jnp.sqrt(jnp.sum((points[:, None] - track) ** 2, axis=-1))


def options(name: str) -> dict[str, Any]:
    """What `make` takes, with the defaults."""
    del name
    return {**Params()._asdict(), "size": SIZE}


def episode_length(name: str) -> int:
    """Steps of an episode by default."""
    del name
    return EPISODE_LENGTH


BOX = Box(np.array([-1.0, 0.0, 0.0], np.float32), np.array([1.0, 1.0, 1.0], np.float32))
