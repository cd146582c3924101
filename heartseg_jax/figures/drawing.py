"""Shared by all figures: style, colours, overlays and the canvas. matplotlib is imported only when drawing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED, LabelSet, Structure
from heartseg_jax.files import writing

DPI = 150
INK = "#222222"
FAINT = "#8a8a8a"

# Okabe and Ito's palette: distinguishable in all common kinds of colour vision, on grey too.
ERRORS: tuple[tuple[str, str, str], ...] = (
    ("false_positive", "#E69F00", "false positive (truth is background)"),
    ("false_negative", "#56B4E9", "false negative (prediction is background)"),
    ("wrong_structure", "#D55EAA", "wrong structure"),
)
IGNORED_TEXT = "ignored (not scored)"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.5,
}


@contextmanager
def canvas(path: str | Path, width: float, height: float) -> Iterator[Any]:
    """Yield a matplotlib Figure of `width` x `height` inches in the common style; at the end it is written to `path`.

    The object-oriented interface with Agg: no display, no global state of pyplot. The file's kind is its suffix's.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        with writing(path) as partial:
            figure.savefig(partial, dpi=DPI)


class Palette(NamedTuple):
    """The structures that a figure shows and their colours: scheme 'display' (colour-blind-safe) or 'masks'."""

    labels: LabelSet
    scheme: str

    def colour(self, structure: Structure) -> tuple[float, float, float]:
        """Return a structure's colour, each part from 0 to 1."""
        red, green, blue = self.labels.colour(structure.label, self.scheme)
        return red / 255, green / 255, blue / 255

    @property
    def note(self) -> str:
        """The line of a legend that says whose colours these are."""
        return {"display": "colours for display, not those of the masks", "masks": "the masks' own colours"}[
            self.scheme
        ]


def picture_axes(axes) -> None:
    """Remove everything from an axes except its picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def show_image(axes, image: np.ndarray, low: float = 0.0, high: float = 1.0) -> None:
    """Draw a slice [H, W] in grey, always on the same scale, so that brightness can be compared."""
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    picture_axes(axes)


def show_labels(axes, labels: np.ndarray, palette: Palette, fill: float = 0.38, width: float = 1.0) -> None:
    """Draw labels [H, W] over a picture: a transparent tint, and the outline in full colour."""
    tint = np.zeros((*labels.shape, 4))
    for structure in palette.labels.foreground:
        tint[labels == structure.label] = (*palette.colour(structure), fill)
    if fill:
        axes.imshow(tint, interpolation="nearest")
    for structure in palette.labels.foreground:
        outline(axes, labels == structure.label, palette.colour(structure), width)
    show_ignored(axes, labels)


def show_ignored(axes, labels: np.ndarray) -> None:
    """Hatch the zone that is not scored."""
    zone = labels == IGNORED
    if zone.any():
        veil = np.zeros((*zone.shape, 4))
        veil[zone] = (0.6, 0.6, 0.6, 0.45)
        axes.imshow(veil, interpolation="nearest")
        hatched = axes.contourf(zone.astype(float), levels=[0.5, 1.5], colors="none")
        hatched.set_hatch("/////")
        hatched.set_edgecolor("white")
        hatched.set_linewidth(0.0)


def outline(axes, mask: np.ndarray, rgb, width: float) -> None:
    """Draw the border of a mask, also along the picture's edge."""
    if mask.any():
        padded = np.pad(mask, 1).astype(float)
        rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        axes.contour(columns, rows, padded, levels=[0.5], colors=[rgb], linewidths=width)
        axes.set_xlim(-0.5, mask.shape[1] - 0.5)
        axes.set_ylim(mask.shape[0] - 0.5, -0.5)


def structure_handles(palette: Palette, present: set[int] | None = None) -> list:
    """Return legend patches of the structures (all, or those `present`), as `LV left ventricle`."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=palette.colour(s), edgecolor=INK, linewidth=0.5, label=f"{s.short}  {s.name.replace('_', ' ')}")
        for s in palette.labels.foreground
        if present is None or s.label in present
    ]


def labels_present(labels: np.ndarray) -> set[int]:
    """Return the structures' labels that occur in a map."""
    return {int(v) for v in np.unique(labels)} - {0, IGNORED}
