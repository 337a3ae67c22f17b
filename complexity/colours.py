"""The colours that people name, and which of them a pixel has."""

from functools import lru_cache

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {  # name -> a typical red, green and blue
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (245, 220, 50),
    "green": (44, 150, 60),
    "cyan": (60, 205, 220),
    "blue": (40, 80, 210),
    "purple": (128, 45, 160),
    "pink": (250, 155, 195),
    "brown": (125, 75, 40),
    "gray": (135, 135, 135),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
}


@lru_cache(maxsize=1)
def colour_names() -> np.ndarray:
    """Table from a colour's code to its name: (512,) uint8 index into `COLOURS`, the nearest in CIE Lab.

    A code is `red * 64 + green * 8 + blue`, each in 8 steps.
    """
    steps = (np.arange(8) + 0.5) / 8
    codes = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    prototypes = _lab(np.array(list(COLOURS.values())) / 255)
    return np.linalg.norm(_lab(codes)[:, None] - prototypes, axis=2).argmin(axis=1).astype(np.uint8)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to CIE Lab under D65 (CIE 15:2004); (..., 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    cube = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(cube, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
