"""All that a page tells of one run: what lies in its directory, and what its latest checkpoint shows."""

import base64
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmbrl.config import ConfigError
from jaxmbrl.report import probe
from jaxmbrl.report.probe import Findings
from jaxmbrl.report.windows import Episodes
from jaxmbrl.training import examine, manifest, metrics, runner
from jaxmbrl.training.manifest import Run
from jaxmbrl.training.metrics import Row
from jaxmbrl.training.progress import say
from jaxmbrl.types import PyTree

STREAM = 0x7265706F  # Folded into the key, so that a report's episodes are of no training and of no evaluation.
RETURNS = ("eval_return", "episode_return")  # The first that a run measured is its learning curve.


class Picture(NamedTuple):
    """A file that is shown on the page: its name, its media type, and its content."""

    name: str
    media: str
    content: bytes

    @property
    def uri(self) -> str:
        """The content inside a reference to it."""
        return f"data:{self.media};base64,{base64.b64encode(self.content).decode()}"


class Curve(NamedTuple):
    """A metric over a run: env_steps [E], and values [S, E] with nan where nothing was measured."""

    env_steps: np.ndarray
    values: np.ndarray


class Story(NamedTuple):
    """One run.

    Attributes:
        directory: its own.
        run: its configuration.
        versions: under which it was started.
        rows: its metrics.
        sessions: one for each process that ran it.
        epoch: of the checkpoint that was examined; None without.
        examined: seeds of which episodes were run.
        findings: of those seeds together; None without a checkpoint.
        pictures: of an episode, and of what was imagined of it.
        why: what kept the checkpoint from being examined, or ''.
    """

    directory: Path
    run: Run
    versions: dict[str, Any]
    rows: list[Row]
    sessions: list[dict[str, Any]]
    epoch: int | None = None
    examined: tuple[int, ...] = ()
    findings: Findings | None = None
    pictures: tuple[Picture, ...] = ()
    why: str = ""


def read(directory: Path) -> Story:
    """What a run's directory says, nothing computed. Raises ConfigError where it holds no run."""
    run, versions = manifest.read(directory)
    sessions = directory / runner.SESSIONS
    try:
        rows = metrics.read(directory / runner.METRICS)
        lines = sessions.read_text(encoding="utf-8").splitlines() if sessions.exists() else []
        return Story(directory, run, versions, rows, [json.loads(line) for line in lines])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory}: damaged ({type(error).__name__}: {error})") from error


def examined(story: Story, episodes: int, seeds: int, seed: int) -> Story:
    """Add what fresh episodes from the latest checkpoint show; a run that has none, or a damaged one, says so.

    Args:
        story: of `read`.
        episodes: for each seed; 0 to compute nothing.
        seeds: the first so many of the run.
        seed: of the episodes.
    """
    if not episodes:
        return story._replace(why="no episodes were asked for")
    say(f"examining {story.directory}")
    try:
        epoch, program, state = examine.load(story.directory, story.run)
    except ConfigError as error:
        return story._replace(why=str(error))
    each = examine.seeds_first(story.run, (state.agent, state.replay))
    asked = probe.make(program, episodes)
    found, best = [], None
    key = jax.random.fold_in(jax.random.key(seed), STREAM)
    for number in range(min(seeds, story.run.seeds)):
        agent_state, replay = jax.device_put(jax.tree.map(lambda leaf, i=number: leaf[i], each), jax.devices()[0])
        key_record, key_judge = jax.random.split(jax.random.fold_in(key, number))
        recorded = asked.record(agent_state, key_record)
        found.append(jax.device_get(asked.judge(agent_state, replay, key_judge, recorded)))
        if best is None or found[-1].returns.max() > best[0]:
            best = (found[-1].returns.max(), int(found[-1].returns.argmax()), recorded, agent_state)
    assert best is not None  # a run has a seed
    pictures = _pictures(story, program, *best[1:])
    seen = tuple(story.run.all_seeds)[:seeds]
    return story._replace(epoch=epoch, examined=seen, findings=probe.pool(found), pictures=pictures)


def curve(rows: Sequence[Row], name: str) -> Curve | None:
    """A metric by seed and epoch; None where it was never measured."""
    if not any(row.get(name) is not None for row in rows):
        return None
    seeds, epochs = sorted({row["seed"] for row in rows}), sorted({row["epoch"] for row in rows})
    values = np.full((len(seeds), len(epochs)), np.nan)
    steps = np.zeros(len(epochs))
    for row in rows:
        place = seeds.index(row["seed"]), epochs.index(row["epoch"])
        steps[place[1]] = row["env_steps"]
        values[place] = np.nan if row.get(name) is None else row[name]
    return Curve(steps, values)


def learning(story: Story) -> Curve | None:
    """The learning curve: of evaluation episodes where there are any, else of training."""
    return next((found for name in RETURNS if (found := curve(story.rows, name))), None)


def _pictures(
    story: Story, program: runner.Program, which: int, recorded: Episodes, agent_state: PyTree
) -> tuple[Picture, ...]:
    """The best episode, as a page or an animation, and what the model imagined of it where it tells observations."""
    length = int(recorded.length[which])
    timesteps = jax.device_get(jax.tree.map(lambda leaf: leaf[which][: length + 1], recorded.timesteps))
    with tempfile.TemporaryDirectory() as folder:
        files = [examine.view(story.run, timesteps, Path(folder))]
        files += examine.imagined(
            program, agent_state, jax.random.key(0), timesteps, recorded.actions[which], Path(folder)
        )
        return tuple(Picture(file.name, _MEDIA[file.suffix], file.read_bytes()) for file in files)


_MEDIA = {".html": "text/html", ".gif": "image/gif", ".png": "image/png"}
