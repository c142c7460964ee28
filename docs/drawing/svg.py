"""A sheet that is drawn twice, in the colours of a light page and in those of a dark one.

Each picture has a ground of its own, so that it can be read also where a page's colours are not
those that the reader's system asks for. 520 units wide is what a phone shows without the text
becoming too small to read.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Callable

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

THEMES = {
    "light": {
        "ground": "#f7f8fa",
        "edge": "#d0d5dd",
        "ink": "#1d2430",
        "soft": "#566070",
        "faint": "#e3e7ee",
        "card": "#ffffff",
        "good": "#0f7b4f",
        "good-ground": "#e2f5ec",
        "bad": "#b42335",
        "bad-ground": "#fdeaec",
        "note": "#8a5a00",
        "note-ground": "#fdf3dc",
        "blue": "#1f5fbf",
        "blue-ground": "#e6effb",
        "violet": "#6b46b0",
    },
    "dark": {
        "ground": "#1a1d23",
        "edge": "#3a414d",
        "ink": "#e6e9ef",
        "soft": "#a3adbb",
        "faint": "#2a2f38",
        "card": "#22262e",
        "good": "#5fd3a0",
        "good-ground": "#173529",
        "bad": "#ff8b98",
        "bad-ground": "#40202a",
        "note": "#f0c263",
        "note-ground": "#3b301a",
        "blue": "#86b6ff",
        "blue-ground": "#1c2d47",
        "violet": "#bda2f5",
    },
}


class Sheet:
    """One picture in one theme. Colours are given by name; see `THEMES`."""

    def __init__(self, theme: str, width: float, height: float, title: str) -> None:
        self.colours = THEMES[theme]
        self.width, self.height = width, height
        self._parts: list[str] = []
        self._title = title
        self.box(0.5, 0.5, width - 1, height - 1, "ground", "edge", radius=10)

    def colour(self, name: str) -> str:
        """Return the colour of that name in this theme."""
        return self.colours.get(name, name)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "card",
        stroke: str = "edge",
        *,
        radius: float = 6,
        dashed: bool = False,
        line: float = 1,
    ) -> None:
        """Draw a rectangle."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
            f'fill="{self.colour(fill)}" stroke="{self.colour(stroke)}" '
            f'stroke-width="{line:g}"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "ink",
        *,
        size: float = 14,
        bold: bool = False,
        mono: bool = False,
        anchor: str = "start",
    ) -> None:
        """Write a line of text."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-family="{MONO if mono else FONT}" '
            f'font-size="{size:g}" fill="{self.colour(colour)}" text-anchor="{anchor}"{weight} '
            f'xml:space="preserve">{escape(text)}</text>'
        )

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        colour: str = "edge",
        *,
        width: float = 1,
        dashed: bool = False,
    ) -> None:
        """Draw a straight line."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" '
            f'stroke="{self.colour(colour)}" stroke-width="{width:g}"{dash}/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str = "soft") -> None:
        """Draw a line with a head; down, or to the right."""
        self.line(x1, y1, x2, y2, colour, width=1.6)
        tips = (
            f"{x2 - 5:g},{y2 - 8:g} {x2 + 5:g},{y2 - 8:g}"
            if abs(y2 - y1) > abs(x2 - x1)
            else f"{x2 - 8:g},{y2 - 5:g} {x2 - 8:g},{y2 + 5:g}"
        )
        self._parts.append(f'<polygon points="{x2:g},{y2:g} {tips}" fill="{self.colour(colour)}"/>')

    def dot(self, x: float, y: float, radius: float, fill: str, stroke: str = "none") -> None:
        """Draw a filled circle."""
        self._parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{self.colour(fill)}" '
            f'stroke="{self.colour(stroke)}"/>'
        )

    def mark(self, x: float, y: float, good: bool | None) -> None:
        """Draw a tick, a cross, or (None) a dash, around a point."""
        if good is None:
            self.line(x - 4, y, x + 4, y, "soft", width=2)
        elif good:
            self._parts.append(
                f'<polyline points="{x - 5:g},{y:g} {x - 1.5:g},{y + 4:g} {x + 5:g},{y - 4:g}" '
                f'fill="none" stroke="{self.colour("good")}" stroke-width="2.2"/>'
            )
        else:
            self.line(x - 4, y - 4, x + 4, y + 4, "bad", width=2.2)
            self.line(x - 4, y + 4, x + 4, y - 4, "bad", width=2.2)

    def __str__(self) -> str:
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" role="img">\n'
            f"<title>{escape(self._title)}</title>\n{body}\n</svg>\n"
        )


def draw_both(
    name: str, title: str, width: float, height: float, draw: Callable[[Sheet], None]
) -> dict[str, str]:
    """Draw a picture in each theme; return NAME-light.svg and NAME-dark.svg with their text."""
    drawn = {}
    for theme in THEMES:
        sheet = Sheet(theme, width, height, title)
        draw(sheet)
        drawn[f"{name}-{theme}.svg"] = str(sheet)
    return drawn


def write(directory: Path, drawn: dict[str, str]) -> list[Path]:
    """Write what was drawn; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in drawn.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in drawn]
