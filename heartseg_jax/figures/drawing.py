"""Shared by all figures: style, colours, overlays and the canvas. matplotlib is imported only when drawing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
ERRORS = (
    ("#E69F00", "false positive (truth is background)"),
    ("#56B4E9", "false negative (prediction is background)"),
    ("#D55EAA", "wrong structure"),
)
"""Colour and meaning of the values 1, 2 and 3 of `slices.error_map`."""
IGNORED_TEXT = "ignored (not scored)"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8),
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
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "hatch.linewidth": 0.5,
}


def load() -> None:
    """Import what every picture needs, which takes a second: for a thread that has nothing else to do."""
    import matplotlib.backends.backend_agg
    import matplotlib.contour
    import matplotlib.figure  # noqa: F401


@contextmanager
def canvas(path: str | Path, width: float, height: float, said: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield a matplotlib Figure of `width` x `height` inches in the common style; at the end it is written to `path`.

    The object-oriented interface with Agg: no display, no global state of pyplot. The file's kind is its suffix's.
    `said` are texts beside the picture of a PNG, by keyword such as 'Comment'.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        with writing(path) as partial:
            figure.savefig(partial, dpi=DPI, metadata=dict(said) if said else None)


class Palette(NamedTuple):
    """The structures that a figure shows and their colours, by a scheme of `LabelSet.colour`."""

    labels: LabelSet
    scheme: str

    def colour(self, structure: Structure) -> tuple[float, float, float]:
        """Return a structure's colour, each part from 0 to 1."""
        red, green, blue = self.labels.colour(structure.label, self.scheme)
        return red / 255, green / 255, blue / 255

    @property
    def note(self) -> str:
        """The line of a legend that says whose colours these are."""
        notes = {"display": "colours for display, not those of the masks", "masks": "the masks' own colours"}
        return notes[self.scheme]


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
        inside, rgb = labels == structure.label, palette.colour(structure)
        tint[inside] = (*rgb, fill)
        if inside.any():
            # Along the picture's edge too.
            rows, columns = np.arange(-1, labels.shape[0] + 1), np.arange(-1, labels.shape[1] + 1)
            axes.contour(columns, rows, np.pad(inside, 1).astype(float), levels=[0.5], colors=[rgb], linewidths=width)
    axes.imshow(tint, interpolation="nearest")
    axes.set(xlim=(-0.5, labels.shape[1] - 0.5), ylim=(labels.shape[0] - 0.5, -0.5))
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


def legend_name(structure: Structure) -> str:
    """Return a structure as legends write it: `LV  left ventricle`."""
    return f"{structure.short}  {structure.name.replace('_', ' ')}"


def label_handles(palette: Palette, maps: Iterable[np.ndarray], *, every: bool = False) -> list:
    """Return legend patches of the structures in label maps (or of `every` one), and of the ignored zone if any has it.

    They stand in the order of the label set, so that two figures of one dataset are read alike.
    """
    from matplotlib.patches import Patch

    present = {int(value) for labels in maps for value in np.unique(labels)}
    handles = [
        Patch(facecolor=palette.colour(s), edgecolor=INK, linewidth=0.5, label=legend_name(s))
        for s in palette.labels.foreground
        if every or s.label in present
    ]
    ignored = Patch(facecolor="#999999", edgecolor="white", hatch="/////", label=IGNORED_TEXT)
    return handles + ([ignored] if IGNORED in present else [])
