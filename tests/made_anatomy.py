"""A made-up anatomy folder: a small trunk of boxes, one real heart, one with joined chambers, and modelled ones."""

import numpy as np

from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.volume import Volume

SHAPE = (72, 56, 70)
"""Towards right, anterior, superior, at 1.5 mm."""


def trunk():
    """Three label maps `[X, Y, Z]`: TotalSegmentator's values, the eight structures, the myocardium."""
    labels, eight, wall = (np.zeros(SHAPE, np.uint8) for _ in range(3))
    low, high = 20, 60
    labels[6:66, 6:50, low:high] = 54  # ribs, as a hollow box
    labels[9:63, 9:47, low:high] = 0
    labels[42:62, 12:45, low:high] = 46  # right lung
    labels[10:20, 12:45, low:high] = 45  # left lung
    labels[42:62, 12:45, 8:22] = 44  # liver
    labels[30:40, 6:14, :] = 106  # spine
    labels[30:40, 46:50, low:high] = 85  # sternum
    labels[34:37, 20:23, 50:68] = 91  # trachea
    labels[36:40, 30:34, 44:66] = 89
    labels[36:40, 26:30, :32] = 39
    eight[36:40, 30:34, 44:66] = 8
    eight[36:40, 26:30, 20:32] = 8
    eight[24:28, 15:19, :58] = 6
    eight[26:34, 18:26, 34:44] = 2
    wall[20:32, 24:36, 22:36] = 1
    eight[22:30, 26:34, 24:34] = 3
    eight[34:42, 26:36, 28:42] = 4
    eight[30:38, 36:44, 24:38] = 5
    eight[30:34, 30:34, 42:54] = 1
    eight[24:29, 34:38, 40:52] = 7
    labels[(labels == 0) & ((eight > 0) | (wall > 0))] = 28
    return labels, eight, wall


def heart():
    """One heart of boxes at 1 mm, `[X, Y, Z]`, labels 0 to 8; the left ventricle on the patient's left."""
    labels = np.zeros((60, 60, 84), np.uint8)
    labels[6:24, 18:34, 8:26] = 3
    labels[14:30, 8:17, 28:42] = 2
    labels[34:50, 18:36, 12:34] = 4
    labels[24:38, 38:54, 8:28] = 5
    labels[26:36, 22:32, 36:62] = 1
    labels[12:22, 2:12, 0:70] = 6
    labels[14:24, 30:40, 34:56] = 7
    labels[40:48, 22:30, 36:70] = 8
    return labels


def joined():
    """The same with both ventricles and atria joined, in the Toronto collection's own values; no aortic arch."""
    table = np.array([0, 5, 7, 7, 8, 8, 5, 6, 0], np.uint8)
    return table[heart()]


def modelled():
    """The same with walls and without what the modelled hearts lack, in the KCL collection's own values."""
    labels = np.array([0, 5, 3, 1, 4, 2, 0, 6, 0], np.uint8)[heart()]
    wide = np.zeros(labels.shape, bool)
    wide[4:26, 16:36, 6:28] = True
    labels[wide & (labels == 0)] = 9
    labels[:, :, 44:][labels[:, :, 44:] == 6] = 0
    return labels


def save(path, labels, spacing):
    """Write `[X, Y, Z]` (right, anterior, superior) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axial = labels.transpose(2, 1, 0)[:, ::-1, ::-1]
    write_nifti(Volume(np.ascontiguousarray(axial), (spacing,) * 3), path)


def write_folder(folder):
    """Write the whole folder, as `--source=anatomy` reads it."""
    names = ("totalseg_v2_gt", "8class", "myocardium")
    for name, labels in zip(names, trunk(), strict=True):
        save(folder / f"trunk/s0327_{name}.nii.gz", labels, 1.5)
    save(folder / "toronto/labelmaps_8class/toronto_2018012.nii.gz", heart(), 1.0)
    save(folder / "toronto/labelmaps_8class/toronto_2018013.nii.gz", heart(), 1.0)
    save(folder / "toronto/labelmaps/toronto_2018012.nii.gz", joined(), 1.0)
    save(folder / "toronto/labelmaps/toronto_2018017.nii.gz", joined(), 1.0)
    save(folder / "kcl/labelmaps/kcl_01.nii.gz", modelled(), 1.0)
    save(folder / "kcl/random/kclrand_00.nii.gz", modelled(), 1.0)
    return folder
