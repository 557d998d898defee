"""A page in a headless browser: what it complains of, and how large things come out."""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")
IGNORED = ("measured", "GL Driver Message")  # our own, and what software WebGL says of its speed
MEASURE = """<script>
const measure = () => {
  const box = (node) => { const r = node.getBoundingClientRect(); return [r.width, r.height]; };
  console.log("measured" + JSON.stringify({
    width: innerWidth,
    content: document.documentElement.scrollWidth,
    drawings: [...document.querySelectorAll("figure > svg, figure img, figure > iframe")].map(box),
    right: Math.max(...[...document.querySelectorAll("figure, h1, h2, p")].map((n) => n.getBoundingClientRect().right)),
    text: Math.min(...[...document.querySelectorAll("svg text")].map((n) => n.getBoundingClientRect().height)),
    outside: [...document.querySelectorAll("figure > svg text")].filter((n) => {
      const a = n.getBoundingClientRect(), b = n.closest("svg").getBoundingClientRect();
      return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2;
    }).map((n) => n.textContent),
  }) + "end");
};
addEventListener("load", () => setTimeout(measure, 300));
</script>"""


def look(page, folder, width):
    """Open a page at a width, in pixels. Returns what was measured, and the lines of the console."""
    inner = html.escape(page.replace("</body>", f"{MEASURE}</body>"))  # in a frame, since a window has a least width
    frame = f'<!doctype html><link rel="icon" href="data:,"><iframe style="width: {width}px; height: 5000px; border: 0"'
    (folder / "page.html").write_text(f'{frame} srcdoc="{inner}"></iframe>')
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-unsafe-swiftshader",
        "--hide-scrollbars",
        "--window-size=1400,900",
        "--virtual-time-budget=5000",
    ]
    words += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", f"--screenshot={folder / 'page.png'}"]
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *words, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    measured = re.search(r"measured(.*?)end\"", done.stderr)
    assert measured, done.stderr
    return json.loads(measured.group(1)), [line for line in console if not any(word in line for word in IGNORED)]


def check(page, folder, drawings):
    """At a phone's and a desk's width: no complaints, every drawing shown, nothing beyond the edge, readable text."""
    for width in (390, 1280):
        seen, console = look(page, folder, width)
        assert console == []
        assert seen["width"] == width
        assert seen["content"] <= width and seen["right"] <= width
        assert len(seen["drawings"]) == drawings
        assert all(wide > 100 and high > 100 for wide, high in seen["drawings"])
        assert seen["text"] >= 9 and seen["outside"] == []
