"""An episode of a Brax environment as one HTML file that plays by itself, without a network.

The file holds the geometry, the pose of every body at every step, the rewards, and a small WebGL player. Opened at
``episode.html#120`` it starts paused at step 120.
"""

import html
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.envs import brax
from jaxmbrl.envs.quiet import quiet
from jaxmbrl.types import PyTree

# MuJoCo's mjtGeom numbers of the shapes that the player draws. A mesh is drawn as its bounding box.
SHAPES = {0: "plane", 2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box", 7: "mesh"}
DIGITS = 4  # of positions (0.1 mm) and quaternions in the file


def write_html(
    path: str | Path,
    env: Any,
    states: PyTree,
    rewards: Sequence[float] | np.ndarray,
    *,
    title: str | None = None,
    **options: Any,
) -> Path:
    """Write an episode viewer.

    Args:
        path: the file to write; missing folders are made.
        env: a name that ``envs.make`` takes (``"brax/ant"``), or a Brax ``Env``.
        states: the episode's ``TimeStep``s or their states, stacked [T + 1, ...] (the reset first) or [T, ...]; states
            inside wrappers' states are found.
        rewards: [T], of each step.
        title: shown on the page; the environment's name where None.
        **options: with a name, the options it was made with, above all ``backend``.

    Returns:
        The path.

    Raises:
        ConfigError: an unknown name, states without Brax poses, lengths that do not fit, or a pose that is not finite.
    """
    simulator = brax.simulator(env, **options) if isinstance(env, str) else env
    title = title or (env if isinstance(env, str) else type(simulator.unwrapped).__name__)
    page = render(title, episode(simulator, states, rewards))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def episode(simulator: Any, states: PyTree, rewards: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """What the player needs, as JSON-ready values.

    Args:
        simulator: a Brax ``Env``.
        states: as for `write_html`.
        rewards: [T].

    Returns:
        ``dt`` (s a step), ``geoms`` (shape, link, root of the link's tree, pos, rot, size, color), ``links`` (their
        number), ``frames`` (a list of x y z, then w x y z of the rotation, for each link in turn), ``rewards`` (one a
        frame, of the step that led there).
    """
    position, rotation = poses(states)
    paid = np.asarray(rewards, np.float64)
    if paid.ndim != 1 or len(position) - len(paid) not in (0, 1):
        raise ConfigError(f"rewards: got shape {paid.shape}, needs one a step for {len(position)} states")
    frames = np.concatenate([position, rotation], axis=-1).reshape(len(position), -1)
    broken = ~np.isfinite(frames).all(axis=1)
    if broken.any():
        raise ConfigError(f"states: the pose of frame {broken.argmax()} is not finite, needs a finite episode")
    paid = np.concatenate([np.zeros(len(position) - len(paid)), np.nan_to_num(paid)])
    return {
        "dt": float(simulator.dt),
        "links": position.shape[1],
        "geoms": geometry(simulator.sys.mj_model),
        "frames": [_rounded(frame) for frame in frames],
        "rewards": _rounded(paid),
    }


def poses(states: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """Positions [T, L, 3] in m and rotations [T, L, 4] (quaternions, w first) of the L links.

    Raises:
        ConfigError: ``states`` holds no stacked Brax state.
    """
    with quiet():
        from brax.base import State
    nodes = jax.tree.leaves(states, is_leaf=lambda node: isinstance(node, State))
    found = [node for node in nodes if isinstance(node, State)]
    if not found or np.ndim(found[0].x.pos) != 3:
        raise ConfigError("states: needs the states of one Brax episode, stacked along time")
    return np.asarray(found[0].x.pos), np.asarray(found[0].x.rot)


def geometry(model: Any) -> list[dict[str, Any]]:
    """Every visible shape of a MuJoCo model, posed in its link's frame."""
    shapes = []
    for index in range(model.ngeom):
        kind = SHAPES.get(int(model.geom_type[index]))
        if kind is None or model.geom_rgba[index, 3] == 0.0:
            continue
        body = int(model.geom_bodyid[index])
        position, rotation, size = model.geom_pos[index], model.geom_quat[index], model.geom_size[index]
        if kind == "mesh":
            centre, size = model.geom_aabb[index, :3], model.geom_aabb[index, 3:]
            kind, position = "box", position + _rotate(rotation, centre)
        shapes.append(
            {
                "shape": kind,
                "link": body - 1,  # MuJoCo counts the world as body 0; here it is -1
                "root": int(model.body_rootid[body]) - 1,
                "pos": _rounded(position),
                "rot": _rounded(rotation),
                "size": _rounded(size),
                "color": _rounded(model.geom_rgba[index]),
            }
        )
    return shapes


def render(title: str, data: dict[str, Any]) -> str:
    """The page: shell, player and episode in one text that refers to nothing outside."""
    files = importlib.resources.files("jaxmbrl.diagnostics")
    shell, player = (files.joinpath(name).read_text(encoding="utf-8") for name in ("viewer.html", "viewer.js"))
    # Inside a script element only "</" could end the data early; JSON reads the escaped slash as a slash.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    parts = {"{{title}}": html.escape(title), "{{player}}": player, "{{episode}}": text}
    for mark, part in parts.items():
        shell = shell.replace(mark, part)
    return shell


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def _rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """``vector`` turned by a unit quaternion, w first."""
    axis = quaternion[1:]
    return vector + 2.0 * np.cross(axis, np.cross(axis, vector) + quaternion[0] * vector)
