"""A picture of a dataset: some slices of each patient with their labels, on one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg_jax.data.audit.near_duplicates import brightness
from heartseg_jax.data.dataset.records import Dataset, Patient
from heartseg_jax.figures import drawing
from heartseg_jax.findings import counted

MOST_PANELS, COLUMNS = 24, 6


def montage(dataset: Dataset, path: str | Path, title: str, colours: str) -> None:
    """Draw up to 24 slices, the same number per patient; of more than 24 patients, evenly spread ones."""
    palette = drawing.Palette(dataset.label_set, colours)
    number = len(dataset.patients)
    places = np.unique(np.linspace(0, number - 1, min(MOST_PANELS, number)).round().astype(int))
    patients = [dataset.patients[k] for k in places]
    each = max(1, min(12 if len(patients) == 1 else 4, MOST_PANELS // len(patients)))
    panels = [(patient, z) for patient in patients for z in slices_of(patient, each)]
    rows = -(-len(panels) // COLUMNS)
    shown = []
    columns = min(COLUMNS, len(panels))
    with drawing.canvas(path, max(7.0, 1.9 * columns), 2.15 * rows + 1.3) as figure:
        left_out = number - len(patients)
        head = title + (f" ({counted(left_out, 'patient')} not shown)" if left_out else "")
        figure.suptitle(head, x=0.01, ha="left", fontweight="bold")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (patient, z) in zip(grid, panels, strict=False):
            image, labels = dataset.images(patient)[z : z + 1], np.asarray(dataset.labels(patient)[z])
            drawing.show_image(axes, brightness(image, dataset.intensity)[0])
            drawing.show_labels(axes, labels, palette, fill=0.3, width=0.9)
            shown.append(labels)
            title = f"{_short(patient.id, 16)} · {_short(patient.slice_name(z), 12)}"
            axes.set_title(title, loc="center", fontsize=7.5)
            axes.set_xlabel(patient.splits[z], fontsize=7.5)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        if handles := drawing.label_handles(palette, shown):
            figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, title=palette.note)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.02)


def slices_of(patient: Patient, count: int) -> list[int]:
    """Return up to `count` slices, in order: evenly spread over those with the most structures of their kind."""
    labelled = [z for z, row in enumerate(patient.class_counts) if sum(row[1:-1])]
    if not labelled:
        return [patient.num_slices // 2]
    parts = np.array_split(np.array(labelled), min(count, len(labelled)))

    def richness(z: int) -> tuple[int, int]:
        row = patient.class_counts[z][1:-1]
        return sum(n > 0 for n in row), sum(row)

    return [int(max(part, key=richness)) for part in parts]


def _short(text: str, most: int) -> str:
    text = text.encode("utf-8", "replace").decode()  # names of files need not be text
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"
