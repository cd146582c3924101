"""Names, codes and numbers of sources; what they do not label is unknown."""

import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import (
    AORTA,
    APPENDAGE,
    INFERIOR_CAVA,
    OWN,
    SUPERIOR_CAVA,
    by_number,
    meaning_of,
    merge_for,
    paint,
    read_label_map,
    resolve_parts,
    translated,
)
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("left_ventricle", 3),
        ("Left Ventricle", 3),
        ("LV", 3),
        ("superior vena cava", SUPERIOR_CAVA),
        ("aorta", AORTA),
        ("myocardium", 0),
        ("ignored", 255),
        ("liver", None),
    ],
)
def test_words(word, label):
    assert meaning_of(word) == label


def test_what_is_not_known_is_not_background_but_unknown():
    assert merge_for({2, 3, 4, 5}) == (0, 0, 2, 3, 4, 5, 0, 0, 0)
    assert merge_for(set(range(1, 9))) == tuple(range(9))
    assert merge_for({AORTA, 255, 0}) == (0, 1, 0, 0, 0, 0, 1, 0, 0)


def test_half_a_structure_is_not_known():
    """To call the other half background would teach that there is none."""
    assert merge_for({INFERIOR_CAVA, 3}) == (0, 0, 0, 3, 0, 0, 0, 0, 0)
    assert merge_for({INFERIOR_CAVA, SUPERIOR_CAVA}) == (0, 0, 0, 0, 0, 0, 0, 0, 8)
    assert merge_for({APPENDAGE}) == (0,) * 9
    assert merge_for({APPENDAGE, 2}) == (0, 0, 2, 0, 0, 0, 0, 0, 0)
    parts = np.array([[[INFERIOR_CAVA, SUPERIOR_CAVA, APPENDAGE, 2, 255]]], np.uint8)
    known = merge_for({INFERIOR_CAVA, SUPERIOR_CAVA, 2})
    assert resolve_parts(parts, None, known).labels.tolist() == [[[8, 8, 2, 2, 255]]]
    assert resolve_parts(parts, None, merge_for({INFERIOR_CAVA, APPENDAGE})).labels.tolist() == [[[0, 0, 0, 2, 255]]]
    # Said by hand: the cava counts as the right atrium.
    assert resolve_parts(parts, None, (0, 1, 2, 3, 4, 5, 6, 7, 4)).labels.tolist() == [[[8, 8, 2, 2, 255]]]


def test_painting_by_hand():
    labels = np.array([0, 2, APPENDAGE, 3, 255], np.uint8)
    inside = np.array([True, True, True, True, True])
    np.testing.assert_array_equal(paint(labels, inside, 2), [False, False, False, True, False])
    assert labels.tolist() == [2, 2, 2, 2, 2]


def test_an_undivided_aorta_is_divided_or_counted_as_one():
    labels = generate(3, 0, PhantomSpec((45, 55, 55), (5.0, 4.0, 4.0))).labels
    aorta = (labels == 1) | (labels == 6)
    whole = np.where(aorta, AORTA, labels).astype(np.uint8)
    divided = resolve_parts(whole, (5.0, 4.0, 4.0), (0, 1, 2, 3, 4, 5, 1, 7, 8))
    assert divided.merge == tuple(range(9))
    assert (divided.labels == labels).mean() > 0.999
    assert divided.aorta == "divided at the middle of the arch"
    for spacing, part in ((None, whole), ((5.0, 4.0, 4.0), np.where(labels == 6, AORTA, 0).astype(np.uint8))):
        one = resolve_parts(part, spacing, tuple(range(9)))
        assert one.merge == (0, 1, 2, 3, 4, 5, 1, 7, 8)
        assert (one.labels == np.where(part == AORTA, 1, part)).all()
        assert one.aorta
    assert resolve_parts(labels, None, tuple(range(9))).aorta == ""


def test_a_label_map(tmp_path):
    path = tmp_path / "map.json"
    path.write_text('{"500": "left ventricle", "820": "aorta", "7": "ignored"}')
    meanings = by_number(read_label_map(path), path)
    assert meanings == {0: 0, 500: 3, 820: AORTA, 7: 255}
    np.testing.assert_array_equal(translated(np.array([0, 820, 500, 7]), meanings, "a.nii"), [0, AORTA, 3, 255])
    with pytest.raises(UserError, match=r"a\.nii has values without a meaning: 501; .*--labels"):
        translated(np.array([501, 0]), meanings, "a.nii")


@pytest.mark.parametrize(
    "text",
    [
        *("nothing", "[1, 2]", '{"x": "left_ventricle"}', '{"5": "left_ventrikel"}', "[" * 9999),
        '{"5": "left_ventricle", "5": "left_atrium"}',
        '{"5": "left_ventricle", "05": "left_atrium"}',
        '{"5": "left_ventricle", " 5": "left_ventricle"}',
    ],
)
def test_label_maps_that_are_none(tmp_path, text):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"map\.json"):
        by_number(read_label_map(path), path)


def test_a_label_map_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "map.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"5": "left_ventricle"}')
    assert by_number(read_label_map(path), path) == {0: 0, 5: 3}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_black_and_white_is_a_structure_or_a_zone_to_ignore(dtype):
    for values in ([0, 255], [255, 255]):
        with pytest.raises(UserError, match=r"a\.nii .*--labels"):
            translated(np.array(values, dtype), OWN, "a.nii")
    for values in ([0, 0], [0, 1, 255], [0, 8]):
        np.testing.assert_array_equal(translated(np.array(values, dtype), OWN, "a.nii"), values)
    np.testing.assert_array_equal(translated(np.array([0, 255], dtype), {0: 0, 255: 2}, "a.nii"), [0, 2])
    np.testing.assert_array_equal(translated(np.array([0, 255], dtype), {0: 0, 255: 255}, "a.nii"), [0, 255])
