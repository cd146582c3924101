"""DICOM studies -> numbered 8-bit PNGs of their slices, with a table that leads back to the instances."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from heartseg_jax import findings, progress
from heartseg_jax.data.sources.png_pairs import ORIENTATIONS
from heartseg_jax.data.sources.studies import Chosen
from heartseg_jax.data.sources.study_masks import COLUMNS, TABLE, position_of
from heartseg_jax.errors import UserError
from heartseg_jax.files import new_folder, write_json
from heartseg_jax.imaging.dicom.series import read_block
from heartseg_jax.imaging.orientation import AxisReorder, patient_axial

ABOUT = "export.json"


def export_png(chosen: Sequence[Chosen], output: str | Path, window_hu: tuple[float, float]) -> list[dict]:
    """Write `images/KEY_0001.png` and so on, slice by slice in the order of their positions, as they lie in the files.

    `instances.csv` has one row per picture: its file, the series' and the instance's UID, frame and position.
    `export.json` has the window and for each study its spacing, and the `--orientation` that `png_pairs` needs for it.
    Masks drawn on the pictures, with the same names, are read by `prepare --source=dicom --masks=FOLDER`. The ends of
    `window_hu` become 0 and 255; what lies between is rounded. The folder appears whole or not at all. What
    `export.json` says of each study is returned.

    Raises:
      UserError: the folder is taken, or a study is refused.
    """
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not empty: it was not changed; choose another --export_png")
    low, high = window_hu
    show = progress.bar("studies")
    with new_folder(output) as partial:
        (partial / "images").mkdir()
        rows, studies = [], []
        number: Counter[str] = Counter()
        for done, one in enumerate(chosen, 1):
            volume, values = read_block(one.series)
            findings.raise_refused(str(one.place.study), values)
            uid = one.series.frames[0].header.series_uid
            _, turn = patient_axial(volume)
            first = number[one.key] + 1
            assert one.series.stack is not None
            members = one.series.stack.frames
            for plane, frame, member in zip(volume.voxels, volume.frames, members, strict=True):
                number[one.key] += 1
                name = f"{one.key}_{number[one.key]:04d}.png"
                grey = np.rint(np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1) * 255)
                Image.fromarray(grey.astype(np.uint8)).save(partial / "images" / name)
                rows.append((name, uid, *frame, position_of(member)))
            studies.append(
                {
                    "patient": one.key,
                    "first": f"{one.key}_{first:04d}.png",
                    "slices": len(volume.voxels),
                    "spacing_mm": list(volume.spacing_mm),
                    "orientation": orientation_of(turn),
                }
            )
            show(done, len(chosen))
        with (partial / TABLE).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        write_json(partial / ABOUT, {"window_hu": [low, high], "studies": studies})
    return studies


def orientation_of(turn: AxisReorder) -> str | None:
    """Return the name of what brings a slice to the standard orientation, None where slices are not axial.

    Names are those of `png_pairs.ORIENTATIONS`; a slice that is mirrored about its other diagonal has none either.
    """
    if turn.axes[0] != 0:
        return None
    plane = np.arange(6).reshape(2, 3)
    wanted = turn._replace(flipped=(False, *turn.flipped[1:])).forth(plane[None])[0]
    return next((name for name, work in ORIENTATIONS.items() if np.array_equal(work(plane), wanted)), None)
