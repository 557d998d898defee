"""The colours of pictures, as red, green and blue within [0, 1]."""

from typing import TypeAlias

Color: TypeAlias = tuple[float, float, float]


def from_hex(code: str) -> Color:
    """A colour written as ``#rrggbb``."""
    red, green, blue = (int(code[index : index + 2], 16) / 255.0 for index in (1, 3, 5))
    return red, green, blue


PAPER, INK, FAINT = from_hex("#fbfaf7"), from_hex("#22303c"), from_hex("#d5d9de")
RED, BLUE, GOLD, GREEN = from_hex("#cf4a5a"), from_hex("#3274a1"), from_hex("#e8a838"), from_hex("#4f9d7c")
VIOLET, GREY, CLAY, TEAL = from_hex("#7d5ba6"), from_hex("#6b7785"), from_hex("#c97b63"), from_hex("#2aa7b8")
SERIES = (BLUE, RED, GREEN, GOLD, VIOLET, GREY, CLAY, TEAL)
