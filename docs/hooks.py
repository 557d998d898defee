"""Pages of the documentation site that are made from the code and from the data beside it."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from jaxmbrl import agents, envs
from jaxmbrl.config import describe

DOCS = Path(__file__).parent
ROOT = DOCS.parent
EXAMPLE = "pendulum"  # whose preset a system's page shows
EXAMPLES = {"dqn": "gymnax/CartPole-v1"}  # to run what does not fit it; the presets' numbers are the same
CURVES = DOCS / "figures" / "systems.csv"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every system into the navigation."""
    for entry in config.nav or []:
        if "Systems" in entry:
            entry["Systems"] = [{name: f"systems/{name}.md"} for name in agents.SYSTEMS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each system, the figures, the design and the changelog."""
    curves = _curves()
    for name in agents.SYSTEMS:
        files.append(File.generated(config, f"systems/{name}.md", content=_system(name, name in curves)))
        if name in curves:
            files.append(File.generated(config, f"systems/{name}.svg", content=_draw(name, curves)))
    for picture in sorted((DOCS / "figures").glob("*.png")):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    files.append(File.generated(config, "design.md", content=_text_only(DOCS / "design.md")))
    files.append(File.generated(config, "changelog.md", content=_text_only(ROOT / "CHANGELOG.md")))
    return files


def _system(name: str, has_curve: bool) -> str:
    """A page: what the system is, its source, how to run it, its fields."""
    module = agents.load(name)
    title, _, rest = (module.__doc__ or "").partition("\n")
    preset, example = module.preset("small", envs.make(EXAMPLE).spec), EXAMPLES.get(name, EXAMPLE)
    lines = [f"# `{name}`", "", f"**{_linked(title)}**", "", _prose(rest), "", "## Run it", ""]
    lines += ["```bash", f"jaxmbrl train {name} {example} --seeds 4", "```", ""]
    if has_curve:
        lines += [f"![Learning curve of {name}]({name}.svg)", ""]
        lines += [f"*Return without exploration on `{EXAMPLE}`, preset `small`: median and interquartile range of 5"]
        lines += ["seeds; the other systems in grey. Data: `docs/figures/systems.csv`.*", ""]
    lines += ["## Fields", "", f"Defaults of the preset `small` on `{example}`; set as `--agent.FIELD`.", ""]
    lines += ["| field | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{path}` | `{value}` | {_cell(text)} |" for path, value, text in describe(preset.agent)]
    lines += ["", "## API", "", f"::: jaxmbrl.agents.{name}", "    options:", "      show_root_heading: false"]
    lines += ["      show_docstring_description: false", "      members: [make, preset, State]", ""]
    return "\n".join(lines)


def _prose(text: str) -> str:
    """A docstring as Markdown: what is indented is shown as it is, cross-references as code."""
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        indented = block.startswith("    ")
        blocks.append(f"```text\n{_dedented(block)}\n```" if indented else _linked(block))
    return "\n\n".join(blocks)


def _dedented(block: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in block.splitlines())


def _linked(text: str) -> str:
    """The numbers of papers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _text_only(path: Path) -> str:
    """A page whose links to files of the repository are their names."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", path.read_text(encoding="utf-8"))


def _curves() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each system: environment steps [epochs], returns [seeds, epochs]."""
    table: dict[str, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    with CURVES.open(newline="") as file:
        for row in csv.DictReader(file):
            table[row["system"]][int(row["seed"])][float(row["env_steps"])] = float(row["eval_return"])
    return {
        name: (_steps(seeds.values()), np.array([[*seed.values()] for seed in seeds.values()]))
        for name, seeds in table.items()
    }


def _steps(seeds: Iterable[dict[float, float]]) -> np.ndarray:
    return np.array([*next(iter(seeds))])


def _draw(name: str, curves: dict[str, tuple[Any, Any]]) -> str:
    """One system's curve among the others, as SVG."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": name})
    figure, axis = plt.subplots(figsize=(6.2, 3.2))
    for other, (steps, returns) in curves.items():
        if other != name:
            axis.plot(steps, np.nanmedian(returns, axis=0), color="#9aa3ad", linewidth=0.9, alpha=0.7)
    steps, returns = curves[name]
    low, middle, high = np.nanpercentile(returns, [25, 50, 75], axis=0)
    axis.fill_between(steps, low, high, color="#1f6feb", alpha=0.2, linewidth=0)
    axis.plot(steps, middle, color="#1f6feb", linewidth=2.2)
    axis.set(xlabel="environment steps", ylabel="return", title=f"{name} on {EXAMPLE}", xlim=(0, None))
    axis.grid(alpha=0.25)
    figure.tight_layout()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()
