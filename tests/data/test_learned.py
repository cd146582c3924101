"""What a run records of its data: which patients, by which images, and which structures they teach."""

import dataclasses

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.join import joined
from heartseg_jax.data.learned import learned_from, memorised, seen_before
from heartseg_jax.preprocess.learned import UNRECORDED, in_words, taught, trained_on
from tests.tiny import SLICES, write_tiny

NAMES = [structure.name for structure in HEART.foreground]
MERGED = (0, 1, 2, 3, 4, 5, 1, 7, 4)
"""The aorta is not divided, and the cava belongs to the right atrium."""


def test_only_training_patients_and_what_they_label_count(tmp_path):
    dataset = write_tiny(tmp_path / "hearts", merge=MERGED, relabel=lambda labels: labels * (labels != 7))
    (record,) = learned_from(dataset)
    assert (record.name, record.images, record.patients, record.slices) == ("hearts", "real", 3, 3 * SLICES)
    # 6 and 8 are labelled, but count as other structures; 7 is a structure of its own, and nowhere.
    counts = {name: 3 if name in ("left_atrium", "left_ventricle", "right_ventricle") else 0 for name in NAMES}
    counts |= {"ascending_aorta+descending_aorta": 3, "right_atrium+vena_cava": 3}
    assert record.structures == counts
    found = taught([record], NAMES)
    assert {name for name, kinds in found.items() if not kinds} == {"descending_aorta", "vena_cava", "pulmonary_artery"}
    assert record.images_sha256 == tuple(sorted(p.sha256["images"] for p in dataset.patients if p.id in "abc"))


def test_each_of_several_datasets_has_its_record(tmp_path):
    real = write_tiny(tmp_path / "real", splits={"a": "train", "b": "test"})
    drawn = write_tiny(tmp_path / "drawn", splits={"a": "train"}, relabel=lambda labels: labels * (labels < 3))
    drawn = dataclasses.replace(drawn, source={"kind": "phantom"})
    unseen = write_tiny(tmp_path / "unseen", splits={"a": "test"})
    records = learned_from(joined([real, drawn, unseen]))
    assert [(one.name, one.images) for one in records] == [("real", "real"), ("drawn", "synthesised")]
    found = taught(records, NAMES)
    assert found["left_atrium"] == ("real", "synthesised")
    assert found["vena_cava"] == ("real",)
    assert trained_on(records) == {d.patients[0].sha256["images"] for d in (real, drawn)}


def test_patients_that_were_trained_on_are_found_in_any_dataset(tmp_path):
    dataset = write_tiny(tmp_path / "one")
    again = write_tiny(tmp_path / "two", splits=dict.fromkeys("abcde", "test"))
    records = learned_from(dataset)
    assert seen_before(again.patients, records) == ["a", "b", "c"]
    (text,) = memorised(again.patients, records)
    assert "3 of 5" in text
    assert "(a, b, c)" in text
    assert memorised(again.patients[3:], records) == ()
    (text,) = memorised(again.patients[3:], (*records, UNRECORDED))
    assert "unknown" in text


def test_a_dataset_of_the_initial_weights_too_is_named_once(tmp_path):
    (record,) = learned_from(write_tiny(tmp_path / "hearts"))
    again = dataclasses.replace(record, inherited=True)
    other = dataclasses.replace(record, name="more", patients=9)
    assert in_words([record, other, again]) == "hearts (3 patients, real images); more (9 patients, real images)"
