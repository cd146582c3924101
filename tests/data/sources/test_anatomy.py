"""Invented patients as a dataset of tissue maps."""

import numpy as np
import pytest

import main
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.data.sources.anatomy import anatomy
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.write_cases import write_cases
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.tissues import LABEL_OF
from tests.made_anatomy import heart, save, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("anatomy"))


def test_the_same_seed_gives_the_same_maps_and_a_larger_dataset_holds_the_smaller(folder, tmp_path):
    options = Options(input=folder, count=5, slices=3, size=48, seed=4)
    few = write_cases(tmp_path / "few", anatomy(options))
    more = write_cases(tmp_path / "more", anatomy(Options(**{**vars(options), "count": 8})))
    other = write_cases(tmp_path / "other", anatomy(Options(**{**vars(options), "seed": 5})))
    images = {p.id: more.images(k).tobytes() for k, p in enumerate(more.patients)}
    assert {p.id for p in few.patients} == {f"anatomy_{k:04d}" for k in range(5)}
    assert all(images[p.id] == few.images(k).tobytes() for k, p in enumerate(few.patients))
    assert few.images(0).shape == (3, 48, 48)
    assert few.intensity == "tissue"
    assert all((LABEL_OF[few.images(k)] == few.labels(k)).all() for k in range(5))
    assert all(images[p.id] != other.images(k).tobytes() for k, p in enumerate(other.patients))
    assert any("CC BY 4.0" in line for line in few.source["attribution"])


def test_all_patients_with_one_persons_heart_are_in_one_split(folder, tmp_path):
    source = anatomy(Options(input=folder, count=30, slices=1, size=32))
    persons = {case.person for case in source.cases}
    assert persons == {"trunk", "toronto_2018012", "toronto_2018017", "kcl_01", "kclrand_00"}
    hearts = {case.where.split()[-1] for case in source.cases}
    assert {"toronto_2018012", "toronto_2018013"} <= hearts


def test_the_command(folder, tmp_path, capsys):
    words = [f"--input={folder}", f"--output={tmp_path / 'ds'}", "--count=4", "--slices=2", "--size=32"]
    assert main.main(["prepare", "--source=anatomy", *words]) == 0
    assert "tissue" in capsys.readouterr().out
    dataset = read_dataset(tmp_path / "ds")
    assert sum(patient.num_slices for patient in dataset.patients) == 8
    assert dataset.source["maps"] == {"count": 4, "slices": 2, "size": 32, "seed": 0}


@pytest.mark.parametrize("part", ["trunk/s0327_8class.nii.gz", "kcl/random/kclrand_00.nii.gz"])
def test_a_folder_that_lacks_a_part_is_refused(tmp_path, part):
    folder = write_folder(tmp_path)
    (folder / part).unlink()
    with pytest.raises(UserError, match=part.rpartition("/")[0]):
        anatomy(Options(input=folder))


def test_another_trunk_and_an_empty_heart_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    save(folder / "toronto/labelmaps_8class/toronto_2018012.nii.gz", 0 * heart(), 1.0)
    save(folder / "toronto/labelmaps_8class/toronto_2018013.nii.gz", 0 * heart(), 1.0)
    source = anatomy(Options(input=folder, count=20, slices=1, size=32))
    with pytest.raises(UserError, match="no heart is labelled"):
        [case.read() for case in source.cases if case.person == "toronto_2018012"]
    save(folder / "trunk/s0327_8class.nii.gz", heart(), 1.0)
    with pytest.raises(UserError, match="not on one grid"):
        anatomy(Options(input=folder, count=1)).cases[0].read()


@pytest.mark.slow
def test_the_real_folder(shared):
    folder = shared / "data/anatomy"
    source = anatomy(Options(input=folder, count=60, slices=8, size=128))
    assert len({case.person for case in source.cases}) > 20
    read = [next(c for c in source.cases if c.person.startswith(word)).read() for word in ("toronto", "kcl")]
    for one in read:
        labels = np.unique(one.labels)
        assert {1, 2, 3, 4, 5, 6, 7, 8} <= set(labels.tolist())
        left, right = (np.argwhere(one.labels == label).mean(axis=0)[2] for label in (3, 4))
        assert left > right
