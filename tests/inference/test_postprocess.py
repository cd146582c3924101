"""Islands and holes of predicted labels, counted by hand."""

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.intake import Intake, of_volume
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.postprocess import Settings, enclosed, far_islands, postprocess, repaired, settings_of
from heartseg_jax.inference.study import Prediction
from heartseg_jax.preprocess.contract import Contract
from tests.preprocess.specs import spec

SPACING = (3.0, 1.0, 1.0)


def cube(shape=(12, 30, 30)):
    """A block of 4 x 10 x 10 voxels of label 3, from (2, 5, 5)."""
    labels = np.zeros(shape, np.uint8)
    labels[2:6, 5:15, 5:15] = 3
    return labels


@pytest.mark.parametrize(
    ("place", "size", "is_removed"),
    [
        ((slice(2, 3), slice(5, 6), slice(25, 27)), 2, True),  # 11 mm along x: the last voxel of the block is at 14
        ((slice(2, 3), slice(5, 6), slice(24, 26)), 2, False),  # 10 mm
        ((slice(9, 10), slice(5, 6), slice(5, 6)), 1, True),  # 4 slices of 3 mm
        ((slice(8, 9), slice(5, 6), slice(5, 6)), 1, False),  # 3 slices of 3 mm
        ((slice(2, 4), slice(5, 15), slice(26, 27)), 20, False),  # far, but 20 voxels are 5 % of 400
        ((slice(2, 3), slice(5, 15), slice(26, 27)), 10, True),
    ],
)
def test_small_islands_that_are_far_are_removed(place, size, is_removed):
    labels = cube()
    labels[place] = 3
    assert (labels == 3).sum() == 400 + size
    found, changed = repaired(labels, SPACING, [3], Settings())
    assert changed == {3: (size if is_removed else 0, 0)}
    assert bool((found[place] == 0).all()) == is_removed
    assert (found[2:6, 5:15, 5:15] == 3).all()


def test_an_island_at_the_border_of_the_block_is_no_special_case():
    labels = cube()
    labels[0, 0, 29] = labels[-1, -1, -1] = 3
    found = far_islands(labels == 3, SPACING, Settings())
    assert np.stack(found, axis=1).tolist() == [[0, 0, 29], [11, 29, 29]]


def test_holes_become_part_of_what_encloses_them_and_other_structures_stay():
    labels = cube()
    labels[3, 8, 8] = 0  # a hole
    labels[4, 10, 10] = 4  # another structure
    labels[2, 6, 6] = 0  # open towards the outside, as a tunnel is
    found, changed = repaired(labels, SPACING, [3, 4], Settings())
    assert changed == {3: (0, 1), 4: (0, 0)}
    assert found[3, 8, 8] == 3
    assert found[4, 10, 10] == 4
    assert found[2, 6, 6] == 0
    assert repaired(labels, SPACING, [3], Settings(fill_holes=False))[1] == {3: (0, 0)}


def test_a_cavity_that_opens_to_the_border_is_no_hole():
    mask = np.ones((3, 5, 5), bool)
    mask[1:, 2, 2] = False
    assert not enclosed(mask).any()
    mask[2, 2, 2] = True
    assert np.argwhere(enclosed(mask)).tolist() == [[1, 2, 2]]


def prediction(labels, **intake):
    volume = Volume(np.zeros(labels.shape, np.int16), SPACING)
    contract = Contract(spec(size=16), "heart", "/data/ds", "abc", 5)
    return Prediction(labels, None, Intake("nifti", volume, **intake), contract, (), ())


def test_the_change_is_reported_by_structure():
    labels = cube()
    labels[11, 29, 29] = 3
    labels[3, 8, 8] = 0
    given = prediction(labels)
    found = postprocess(given, Settings())
    assert found.changed_voxels["left_ventricle"] == (1, 1)
    assert set(found.changed_voxels) == {structure.name for structure in HEART.foreground}
    assert labels[11, 29, 29] == given.labels[11, 29, 29] == 3  # what was given stays
    left = postprocess(given, Settings(leave=(3,)))
    assert "left_ventricle" not in left.changed_voxels
    assert np.array_equal(left.labels, labels)


def test_slices_of_unknown_spacing_are_left_alone():
    labels = cube()
    labels[11, 29, 29] = 3
    found = postprocess(prediction(labels, spacing_known=False), Settings())
    assert np.array_equal(found.labels, labels)
    assert found.changed_voxels == {}


def test_the_settings_are_those_of_the_config():
    def of(**changes):
        words = {f"postprocess.{name}": value for name, value in changes.items()}
        return settings_of(load.load("configs/quickstart.py", words)[1], HEART)

    assert of() == Settings()
    assert of(on="false") is None
    assert of(island_mm="4", leave="vena_cava,left_atrium") == Settings(island_mm=4.0, leave=(8, 2))
    with pytest.raises(UserError, match="vena_cava"):
        of(leave="vena_cave")


def test_nothing_to_repair_is_no_change():
    assert repaired(np.zeros((3, 4, 5), np.uint8), SPACING, [1, 2], Settings())[1] == {1: (0, 0), 2: (0, 0)}
    assert of_volume(Volume(np.zeros((2, 64, 64), np.uint8), SPACING)).kind == "nifti"
