"""What the pixel environments show: one picture of each, into ``docs/figures/pixels.png``.

    python experiments/pixel_tasks.py [--size 64] [--out docs/figures/pixels.png]

Each picture is taken after some random steps; Brax's on the ``spring`` backend, which compiles fastest.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageDraw

from jaxmbrl import envs
from jaxmbrl.envs import pixels
from jaxmbrl.training.loop import random_action
from jaxmbrl.types import Environment, TimeStep

NAMES = (*pixels.NAMES, "car_racing")
STEPS = 15
COLUMNS, GAP, LABEL, SCALE = 6, 12, 16, 3


def picture(env: Environment, seed: int) -> np.ndarray:
    """What is seen after ``STEPS`` random steps, uint8 [H, W, 3]."""

    def run(key: jax.Array) -> jax.Array:
        key_reset, key_action, key_steps = jax.random.split(key, 3)
        action = random_action(key_action, env.spec)  # one and the same, or not much would move

        def step(timestep: TimeStep, key: jax.Array) -> tuple[TimeStep, None]:
            return env.step(key, timestep, action), None

        return jax.lax.scan(step, env.reset(key_reset), jax.random.split(key_steps, STEPS))[0].obs

    return np.asarray(jax.jit(run)(jax.random.key(seed)))


def main() -> None:
    """Draw the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=pixels.SIZE)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/pixels.png"))
    arguments = parser.parse_args()
    side, rows = SCALE * arguments.size, -(-len(NAMES) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (side + GAP) + GAP, rows * (side + GAP + LABEL) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for index, name in enumerate(NAMES):
        options = {"backend": "spring"} if "brax/" in name else {}
        shown = picture(envs.make(name, size=arguments.size, **options), index)
        x, y = GAP + index % COLUMNS * (side + GAP), GAP + index // COLUMNS * (side + GAP + LABEL)
        sheet.paste(Image.fromarray(shown).resize((side, side), Image.Resampling.NEAREST), (x, y + LABEL))
        pen.text((x, y), name.removeprefix(pixels.PREFIX), fill="black")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
