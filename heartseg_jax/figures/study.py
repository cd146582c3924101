"""Figures of one predicted study."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.figures import drawing
from heartseg_jax.figures.drawing import Palette

WIDTH_IN = 11.0
LINE_WIDTH = 130
MARGIN_MM = 25.0
"""Shown around what is labelled."""
SIDES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""Left, right, upper and lower edge of each plane, as radiologists see it."""


class Shown(NamedTuple):
    """A patient-axial volume `[Z, Y, X]`, its labels, its spacing (z, y, x), and the values of black and white.

    `sides_known` is False where it is not known which side is the patient's left: none is marked then.
    """

    images: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    window: tuple[float, float]
    sides_known: bool = True


class Plane(NamedTuple):
    """One picture: `image` and `labels [H, W]`, height and width of a pixel in mm, and its title."""

    image: np.ndarray
    labels: np.ndarray
    pixel_mm: tuple[float, float]
    name: str
    title: str


def preview(
    shown: Shown,
    path: str | Path,
    label_set: LabelSet,
    notes: Mapping[int, str],
    lines: Sequence[str],
    *,
    slices: int = 6,
) -> None:
    """Draw three planes through the middle of what is labelled, a row of axial slices, and the legend.

    `notes` says what is known of each label, beside its name; `lines` are written below, the first as the title.
    """
    from matplotlib.patches import Patch

    palette = Palette(label_set, "display")
    box = _box(shown)
    middle = [(axis.start + axis.stop - 1) // 2 for axis in _labelled(shown.labels)]
    planes = [_plane(shown, box, name, middle[axis]) for name, axis in (("axial", 0), ("coronal", 1), ("sagittal", 2))]
    found = _labelled(shown.labels)[0]
    at = np.unique(np.linspace(found.start, found.stop - 1, slices + 2)[1:-1].round().astype(int))
    row = [_plane(shown, box, "axial", int(z)) for z in at]
    below = [wrapped for line in lines[1:] for wrapped in textwrap.wrap(line, LINE_WIDTH)]
    top, bottom = _height(planes), _height(row)
    with drawing.canvas(
        path, WIDTH_IN, top + bottom + 1.45 + 0.165 * len(below), {"Comment": "\n".join(lines)}
    ) as figure:
        figure.suptitle(lines[0], x=0.01, ha="left", fontweight="bold")
        upper, lower = figure.subfigures(2, 1, height_ratios=[top, bottom])
        for part, pictures in ((upper, planes), (lower, row)):
            ratios = [_width(picture) / _tall(picture) for picture in pictures] if part is upper else None
            axes = part.subplots(1, len(pictures), squeeze=False, width_ratios=ratios)[0]
            for one, picture in zip(axes, pictures, strict=True):
                _draw(one, picture, shown.window, palette)
                if shown.sides_known:
                    _mark_sides(one, SIDES[picture.name])
        handles = [
            Patch(
                facecolor=palette.colour(structure),
                edgecolor=drawing.INK,
                linewidth=0.5,
                label=f"{drawing.legend_name(structure)}  {notes.get(structure.label, '')}",
            )
            for structure in label_set.foreground
        ]
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=4,
            frameon=False,
            title="\n".join(below),
            alignment="left",
            title_fontsize=7.5,
        )


def _labelled(labels: np.ndarray) -> tuple[slice, ...]:
    """Return the box of what is labelled, or the whole."""
    sides = [np.flatnonzero(labels.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return tuple(
        slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0, n)
        for side, n in zip(sides, labels.shape, strict=True)
    )


def _box(shown: Shown) -> tuple[slice, ...]:
    """Return what is shown: what is labelled, and a margin."""
    margins = [round(MARGIN_MM / mm) for mm in shown.spacing_mm]
    return tuple(
        slice(max(axis.start - margin, 0), min(axis.stop + margin, n))
        for axis, margin, n in zip(_labelled(shown.labels), margins, shown.labels.shape, strict=True)
    )


def _plane(shown: Shown, box: tuple[slice, ...], name: str, at: int) -> Plane:
    """Return one plane of the box, as radiologists see it: the patient's right, or the front, on the left."""
    axis = ("axial", "coronal", "sagittal").index(name)
    index = tuple(at if k == axis else box[k] for k in range(3))
    image, labels = shown.images[index], shown.labels[index]
    height, width = [mm for k, mm in enumerate(shown.spacing_mm) if k != axis]
    if axis:  # the first axis runs towards Superior
        image, labels = image[::-1], labels[::-1]
    return Plane(image, labels, (height, width), name, f"{name} {at + 1}/{shown.labels.shape[axis]}")


def _tall(plane: Plane) -> float:
    return plane.image.shape[0] * plane.pixel_mm[0]


def _width(plane: Plane) -> float:
    return plane.image.shape[1] * plane.pixel_mm[1]


def _height(planes: Sequence[Plane]) -> float:
    """Return the height in inches of planes of one height that fill a row side by side, title included."""
    return float(np.clip(0.97 * WIDTH_IN / sum(_width(plane) / _tall(plane) for plane in planes), 1.0, 4.5)) + 0.25


def _draw(axes, plane: Plane, window: tuple[float, float], palette: Palette) -> None:
    drawing.show_image(axes, plane.image, *window)
    drawing.show_labels(axes, plane.labels, palette, fill=0.25, width=0.9)
    axes.set_aspect(plane.pixel_mm[0] / plane.pixel_mm[1])
    axes.set_title(plane.title, loc="left")


def _mark_sides(axes, letters: tuple[str, str, str, str]) -> None:
    from matplotlib.patheffects import withStroke

    left, right, upper, lower = letters
    style = {"color": "white", "fontsize": 8, "transform": axes.transAxes}
    style["path_effects"] = [withStroke(linewidth=2, foreground="black")]  # readable on bone
    axes.text(0.01, 0.5, left, ha="left", va="center", **style)
    axes.text(0.99, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.99, upper, ha="center", va="top", **style)
    axes.text(0.5, 0.01, lower, ha="center", va="bottom", **style)
