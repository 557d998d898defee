"""Pieces of HTML."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaxmbrl.report.story import Picture

UNKNOWN = "\N{EN DASH}"


def figure(title: str, svg: str, caption: str) -> str:
    """A drawing with its title and how to read it."""
    label = html.escape(title)
    drawing = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return (
        f"<figure><h3>{label}</h3>{drawing}<figcaption>{html.escape(' '.join(caption.split()))}</figcaption></figure>"
    )


def picture(shown: Picture) -> str:
    """An episode: a page within the page, or an animation."""
    title, caption = _PICTURES[shown.name]
    if shown.media == "text/html":
        page = html.escape(shown.content.decode())
        body = f'<iframe title="{title}" srcdoc="{page}" loading="lazy"></iframe>'
    else:
        body = f'<img src="{shown.uri}" alt="{title}">'
    still = shown.media == "image/png"  # wide, with small texts: a narrow screen scrolls it
    body = f'<div class="scroll">{body}</div>' if still else body
    wide = ' class="wide"' if still or shown.media == "text/html" else ""
    return f"<figure{wide}><h3>{title}</h3>{body}<figcaption>{caption}</figcaption></figure>"


_PICTURES = {
    "episode.html": ("An episode", "The best of the fresh episodes; drag to turn, scroll or pinch to zoom."),
    "episode.gif": ("An episode", "The best of the fresh episodes; the bar below shows how much of it has passed."),
    "open_loop.png": ("Imagined and seen", "The model sees the first steps, and imagines the others from the actions."),
    "open_loop.gif": ("Imagined and seen", "What was seen, what the model imagined, and the difference."),
}


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, escaped: bool = False) -> str:
    """A table that scrolls within itself where it is too wide; numbers stand at the right.

    Args:
        heads: of the columns.
        rows: cells; the first of a row is its head.
        escaped: texts are HTML already.
    """
    body = "".join(f"<tr>{''.join(_cell(x, place == 0, escaped) for place, x in enumerate(row))}</tr>" for row in rows)
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(title: str, content: str) -> str:
    """What is shown when its title is opened."""
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def number(value: float) -> str:
    """Three digits, all of them where a few thousand are meant; a dash for what was not measured."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e5 else f"{value:.3g}"


def _cell(value: Any, head: bool, escaped: bool) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = number(value) if isinstance(value, float) else f"{value:,}"
        return f'<td class="number">{text}</td>'
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = text if escaped else html.escape(text)
    return f'<th scope="row">{text}</th>' if head else f"<td>{text}</td>"
