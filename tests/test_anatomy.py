"""Label sets: what a label means, how a merge is checked, and what cannot be a label set."""

from __future__ import annotations

import pytest

from heartseg_jax.anatomy import HEART, LABEL_SETS, TUMOUR, LabelSet, Structure

GREY = (128, 128, 128)


def test_heart_has_the_documented_labels_and_codes():
    assert HEART.names[4] == "right_atrium"
    assert HEART.structures[6][1:3] + HEART.structures[6][5:] == ("descending_aorta", "DA", "281130003")
    assert HEART.all_known == (0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert [s.short for s in HEART.foreground] == ["AA", "LA", "LV", "RA", "RV", "DA", "PA", "VC"]
    assert HEART.colour(2, "masks") == (255, 0, 0)
    assert HEART.colour(2, "display") == (164, 28, 127)
    assert LABEL_SETS == {"heart": HEART, "tumour": TUMOUR}


def test_channels_without_a_structure_count_as_background():
    assert TUMOUR.names == ("background", "tumour")
    assert TUMOUR.num_classes == 9
    assert TUMOUR.all_known == (0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert TUMOUR.check_merge(TUMOUR.all_known) == TUMOUR.all_known


@pytest.mark.parametrize(
    "merge",
    [
        "012345678",
        (0,) * 8,
        (0, 1, 2, 3, 4, 5, 6, 7, 9),
        (1, 1, 2, 3, 4, 5, 6, 7, 8),
        (0, 0, 2, 3, 4, 5, 1, 7, 8),
        (True,) * 9,
    ],
)
def test_a_wrong_merge_is_refused(merge):
    with pytest.raises(ValueError, match="merge"):
        HEART.check_merge(merge)


@pytest.mark.parametrize(("rows", "classes"), [((1, 2), 9), ((0, 2), 9), ((0, 1), 1), ((0, 1), 256)])
def test_labels_count_up_from_background_within_the_classes(rows, classes):
    with pytest.raises(ValueError, match="odd"):
        LabelSet("odd", tuple(Structure(k, f"part {k}", f"P{k}", GREY, GREY, None) for k in rows), classes)
