"""Which studies an input holds and what they are called; what is passed over; when a study is the same as before."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.verbs.predict_places import fingerprint, parsed_shard, places_of, shard_of
from tests.studies import write_study
from tests.verbs.predicting import volume, write_inputs


def called(path, how="auto"):
    found = places_of(path, Naming(how))
    return {place.name: place.path.relative_to(path).as_posix() for place in found.studies}, found.is_batch


def test_what_is_one_study_and_what_are_several(tmp_path):
    """A folder of slices, of series, and of patients with several studies."""
    one, other = tmp_path / "a" / "patient_1", tmp_path / "a" / "patient_2"
    write_study(one / "study_1" / "series_1", 0)
    assert called(one) == ({"": "."}, False)
    write_study(one / "study_1" / "series_2", 0)
    assert called(one / "study_1" / "series_1") == ({"": "."}, False)
    assert called(one) == ({"": "."}, False), "one study in a folder per series"
    write_study(one / "study_2", 0, number=2)
    write_study(other, 1)
    names = {
        "patient_1_study_1": "patient_1/study_1",
        "patient_1_study_2": "patient_1/study_2",
        "patient_2": "patient_2",
    }
    assert called(tmp_path / "a") == (names, True)
    write_study(tmp_path / "loose", 0)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "loose", target_is_directory=True)
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(called(tmp_path / "a")[0]) == 4


def test_a_disc_may_hold_several_studies(tmp_path):
    write_study(tmp_path / "disc" / "IMAGES" / "A", 0)
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    write_inputs(tmp_path / "made")
    (tmp_path / "made" / "png").rename(tmp_path / "disc" / "VIEWER")
    assert called(tmp_path / "disc") == ({"": "."}, False)
    write_study(tmp_path / "disc" / "IMAGES" / "B", 1)
    found, is_batch = called(tmp_path / "disc", "keep")
    assert is_batch
    assert set(found.values()) == {"IMAGES/A", "IMAGES/B"}


def test_every_format_is_a_study(tmp_path):
    write_inputs(tmp_path / "in")
    (tmp_path / "in" / "ct.nrrd").rename(tmp_path / "in" / "ct_2.nrrd")
    (tmp_path / "in" / ".hidden").mkdir()
    (tmp_path / "in" / "notes.csv").write_text("x")
    found, is_batch = called(tmp_path / "in", "keep")
    assert is_batch
    assert found == {"ct": "ct.nii.gz", "ct_2": "ct_2.nrrd", "dicom": "dicom", "packed": "packed.zip", "png": "png"}


def test_pictures_hide_no_study_below_or_beside_them(tmp_path):
    """A screenshot in a patient's folder, a logo at the archive's root, a volume beside pictures."""
    made = write_inputs(tmp_path / "made")
    archive = tmp_path / "in"
    for name in ("case_1", "case_2"):
        write_study(archive / name / "dcm", int(name[-1]) - 1)
        shutil.copy(made["pictures"] / "slice_9.png", archive / name / "shot0.png")
    one = places_of(archive / "case_1", Naming())
    assert (one.studies, one.is_batch) == ([("", archive / "case_1")], False)
    assert one.passed_over == "passed over: 1 picture"
    shutil.copy(made["pictures"] / "slice_9.png", archive / "logo.png")
    shutil.copytree(made["pictures"], archive / "case_3")
    assert called(archive) == ({"case_1": "case_1", "case_2": "case_2", "case_3": "case_3"}, True)
    assert places_of(archive, Naming()).passed_over == "passed over: 3 pictures"
    shutil.copy(made["nifti"], archive / "case_3" / "case.nii.gz")
    assert called(archive)[0]["case_3_case"] == "case_3/case.nii.gz"


def test_folders_of_pictures_below_pictures_are_counted(tmp_path):
    made = write_inputs(tmp_path / "made")["pictures"]
    shutil.copytree(made, made / "masks")
    assert called(made) == ({"": "."}, False)
    assert places_of(made, Naming()).passed_over == "passed over: 1 folder of pictures below others"


def test_what_is_not_read_is_counted(tmp_path):
    deep = tmp_path / "in" / "/".join("abcdefghi")
    write_nifti(volume(), tmp_path / "in" / "case_1.nii.gz")
    deep.mkdir(parents=True)
    for name in ("x.mha", "y.MHA", "a/z.7z", "a/z.hdr", "a/z.img", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"x")
    write_nifti(volume(), deep / "case_2.nii.gz")
    said = (
        "1 .7z file, 1 .hdr file, 1 .img file, 2 .mha files, 1 folder too deep (studies are looked for 8 levels deep)"
    )
    found = places_of(tmp_path / "in", Naming())
    assert ([place.name for place in found.studies], found.passed_over) == (["case_1"], f"passed over: {said}")
    assert places_of(deep.parent.parent, Naming()).passed_over == ""
    (tmp_path / "in" / "case_1.nii.gz").unlink()
    with pytest.raises(UserError, match="2 .mha files"):
        places_of(tmp_path / "in", Naming())


def test_names_are_kept_where_they_are_codes(tmp_path):
    for name in ("case_1", "Meier_Anna", "1931-04-17"):
        write_nifti(volume(), tmp_path / f"{name}.nii.gz")
    found, _ = called(tmp_path)
    assert found["case_1"] == "case_1.nii.gz"
    assert sum(name.startswith("p") and len(name) == 13 for name in found) == 2
    assert found == called(tmp_path)[0]
    assert set(called(tmp_path, "keep")[0]) == {"case_1", "Meier_Anna", "1931-04-17"}
    assert "case_1" not in called(tmp_path, "key")[0]


def test_a_shard_is_every_nth():
    places = list(range(7))
    parts = [shard_of(places, (k, 3)) for k in (1, 2, 3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "9"} | {
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "4",
}
"""The third of -a 3-9:2, whose jobs are 3, 5, 7 and 9."""
STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (ARRAY, (3, 4)),
        (STEP, (2, 8)),
        (ARRAY | STEP, (2 * 8 + 2, 32)),  # two jobs of eight before it, and a task of its own
        (ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (3, 4)),  # a script outside srun
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "5"}, (1, 5)),
    ],
)
def test_a_scheduler_says_which_shard_this_is(environment, shard):
    assert parsed_shard("auto", environment) == shard


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
        {"JOB_COMPLETION_INDEX": "2"},
        ARRAY | {"SLURM_ARRAY_TASK_COUNT": "3"},
    ],
)
def test_nothing_is_guessed_where_no_scheduler_says_it(environment):
    with pytest.raises(UserError, match="--shard=K/N"):
        parsed_shard("auto", environment)


def test_the_fingerprint_is_of_content_and_not_of_names(tmp_path):
    for name in "ab":
        write_study(tmp_path / name, 0)
    first = next((tmp_path / "b").iterdir())
    first.rename(first.with_name("other.dcm"))
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    write_study(tmp_path / "c", 0, person="XX7741900")  # as long as the other
    assert fingerprint(tmp_path / "c") != fingerprint(tmp_path / "a")


def test_the_fingerprint_of_a_large_volume_is_not_only_of_its_air(tmp_path):
    """32 slices of 512 KB: a header, and a patient only in the middle rows of each, as both ends are air."""
    slices = np.zeros((32, 512, 512), np.int16)
    found = set()
    for value in (0, 1):
        slices[:, 192:320] = value
        (tmp_path / "ct.nii").write_bytes(bytes(352) + slices.tobytes())
        found.add(fingerprint(tmp_path / "ct.nii"))
    assert len(found) == 2


@pytest.mark.parametrize("name", [b"a" * 201, b"caf\xe9"], ids=["long", "no UTF-8"])
def test_a_name_that_outputs_cannot_have_is_refused_before_anything_is_done(tmp_path, name):
    place = os.fsencode(tmp_path) + b"/archive"
    os.mkdir(place)
    for file in (name + b".nii", b"case_1.nii"):
        Path(os.fsdecode(place + b"/" + file)).write_bytes(b"x")
    archive = Path(os.fsdecode(place))
    with pytest.raises(UserError, match="--names=key"):
        places_of(archive, Naming("keep"))
    assert len(places_of(archive, Naming("key")).studies) == 2
