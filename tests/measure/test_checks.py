"""What the measurements themselves show to be doubtful."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.imaging.nifti import read_nifti
from heartseg_jax.measure import volumes
from heartseg_jax.measure.json_form import to_json
from heartseg_jax.measure.valves import Valves
from heartseg_jax.measure.volumes import measure, released
from heartseg_jax.preprocess.learned import Learned
from tests.measure.predictions import CONTRACT, of_phantom, unchecked

AA, LA, LV, RA, RV, DA, PA, VC = range(1, 9)


@pytest.fixture(autouse=True)
def no_valves(monkeypatch):
    """No warning depends on a valve, and `test_valves.py` measures them: here they would take most of the time."""
    monkeypatch.setattr(volumes, "measure_valves", lambda *_: Valves(None, None, None))


def labels_of(phantom):
    return np.where(phantom.labels == 255, 0, phantom.labels)


def doubts(prediction):
    found = measure(prediction).warnings
    return {text.partition(":")[0]: text for text in found}


def test_a_good_heart_is_not_doubted(phantom):
    assert doubts(of_phantom(phantom)) == {}


def test_real_anatomies_are_not_doubted_but_for_their_size(shared):
    maps = shared / "data/anatomy/toronto/labelmaps_8class"
    for name, expected in {
        "toronto_2018015": set(),
        "toronto_2018012": set(),
        "toronto_2018002": {"unusual_volume"},
    }.items():
        volume = read_nifti(maps / f"{name}.nii.gz")
        found = doubts(unchecked(volume.voxels.astype(np.uint8), volume.spacing_mm, direction=volume.direction))
        assert set(found) == expected, name


def test_few_structures(phantom):
    labels = labels_of(phantom)
    found = doubts(of_phantom(phantom, labels=np.where(np.isin(labels, (DA, VC)), labels, 0)))
    assert "2 of 8" in found["few_structures"]
    assert "descending_aorta, vena_cava" in found["few_structures"]


def test_dark_blood(phantom):
    hu = phantom.volume.voxels.copy()
    hu[labels_of(phantom) == RV] = 60
    found = doubts(unchecked(labels_of(phantom), (4.0, 4.0, 4.0), hu))
    assert "right_ventricle (60 HU)" in found["dim_blood"]
    assert "left_ventricle" not in found["dim_blood"]


def test_uneven_blood(phantom):
    hu = phantom.volume.voxels.copy()
    hu[(labels_of(phantom) == DA) & (np.arange(hu.shape[2]) % 2 == 0)] = 900
    found = doubts(unchecked(labels_of(phantom), (4.0, 4.0, 4.0), hu))
    assert "descending_aorta" in found["uneven"]
    assert "vena_cava" not in found["uneven"]


def test_what_is_withheld_is_not_doubted_as_well(phantom):
    labels = labels_of(phantom)
    labels[:6, :8, :8] = LA
    agreement = np.full(9, 0.9)
    agreement[LA] = 0.1
    assert set(doubts(of_phantom(phantom, labels=labels, agreement=agreement))) == {"low_agreement"}


def test_scattered(phantom):
    labels = labels_of(phantom)
    labels[:6, :8, :8] = LA  # a fifth of the atrium, far from it
    found = doubts(of_phantom(phantom, labels=labels))
    assert "left_atrium" in found["scattered"]
    assert "apart" not in found


def test_chambers_that_do_not_touch():
    labels = np.zeros((40, 40, 60), np.uint8)
    labels[5:35, 5:35, 5:15], labels[5:35, 5:35, 15:25] = RA, RV
    labels[5:35, 5:35, 30:40], labels[5:35, 5:35, 41:51] = LA, LV
    found = doubts(unchecked(labels, (2.0, 2.0, 2.0)))
    assert "left_atrium and left_ventricle" in found["apart"]
    assert "right_atrium" not in found["apart"]


def test_a_mirrored_patient(phantom):
    turned = phantom.volume.direction * np.array([1, 1, -1])  # columns run to the patient's right
    prediction = unchecked(labels_of(phantom), (4.0, 4.0, 4.0), direction=turned)
    assert "mirrored" in doubts(prediction)


def test_hardly_any(phantom):
    labels = labels_of(phantom)
    labels[labels == PA] = np.arange(np.count_nonzero(labels == PA)) < 20  # of 64 mm3; the rest is the aorta's
    labels[labels == 1] = np.where(phantom.labels[labels == 1] == PA, PA, AA)
    assert "pulmonary_artery (1.3 mL)" in doubts(of_phantom(phantom, labels=labels))["hardly_any"]


def test_much_changed_by_postprocessing(phantom):
    found = doubts(of_phantom(phantom, changed_voxels={"left_atrium": (5000, 3), "right_atrium": (1, 1)}))
    assert "left_atrium (5000 voxels removed, 3 added)" in found["much_changed"]
    assert "right_atrium" not in found["much_changed"]


def test_another_label_set_has_no_anatomy_to_doubt():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[3:5, 3:5, 3:5] = 1
    prediction = unchecked(labels, contract=dataclasses.replace(CONTRACT, task="tumour"))
    assert doubts(prediction) == {}
    assert [row.name for row in measure(prediction).structures] == ["tumour"]


def test_what_the_model_never_saw(phantom):
    """The arteries were labelled in phantoms only, the chambers in patients, the veins in none."""
    chambers = {"left_atrium": 3, "left_ventricle": 3, "right_atrium": 3, "right_ventricle": 3, "vena_cava": 0}
    arteries = {"ascending_aorta": 9, "descending_aorta": 9, "pulmonary_artery": 9}
    records = (
        Learned("a", "real", 3, 30, chambers, ("1" * 64,)),
        Learned("b", "synthesised", 9, 90, arteries | {"left_atrium": 9}, ("2" * 64,)),
    )
    contract = dataclasses.replace(CONTRACT, learned_from=records)
    prediction = of_phantom(phantom, contract=contract)
    found = doubts(prediction)
    assert set(found) == {"untaught", "synthesised_only"}
    assert "vena_cava" in found["untaught"]
    assert all((name in found["synthesised_only"]) == (name in arteries) for name in [*arteries, *chambers])
    measured = measure(prediction)
    rows = {row.name: row for row in measured.structures}
    assert [name for name, row in rows.items() if row.status == "refused"] == ["vena_cava"]
    assert rows["vena_cava"].withheld
    assert (released(prediction, measured).labels != VC).all()
    none = of_phantom(phantom, contract=contract, labels=np.where(labels_of(phantom) == VC, 0, labels_of(phantom)))
    assert {row.name: row for row in measure(none).structures}["vena_cava"].status == "refused"  # not 'absent'
    taught = to_json(prediction, measured)["model"]
    assert taught["taught"]["left_atrium"] == ["real", "synthesised"]
    assert taught["taught"]["vena_cava"] == []
    assert taught["learned_from"] is None  # a run's folders may be called after anyone


def test_what_was_taught_jointly_is_said(phantom):
    counts = {
        structure.name: 3 for structure in HEART.foreground if structure.name not in ("right_atrium", "vena_cava")
    }
    record = Learned("a", "real", 3, 30, counts | {"right_atrium+vena_cava": 3}, ("1" * 64,))
    contract = dataclasses.replace(CONTRACT, learned_from=(record,))
    assert contract.merge == (0, 1, 2, 3, 4, 5, 6, 7, RA)
    found = doubts(of_phantom(phantom, contract=contract, labels=np.array(contract.merge)[labels_of(phantom)]))
    assert "vena_cava from right_atrium" in found["joined"]
    assert "untaught" not in found
    assert CONTRACT.merge == HEART.all_known
