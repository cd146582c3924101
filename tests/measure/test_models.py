"""What several models give of a valve: their range, and doubts where they disagree."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.imaging.phantom.annulus import AnnulusSpec, draw_pose, make_annulus
from heartseg_jax.measure.json_form import to_json
from heartseg_jax.measure.models import with_models, with_range
from heartseg_jax.measure.results import MEASURED, REFUSED, UNCERTAIN, Quantity, ValveMeasurement
from heartseg_jax.measure.volumes import measure
from tests.measure.predictions import unchecked
from tests.valves import saddle

REFUSAL = ValveMeasurement("mitral", REFUSED, "they do not touch")


def of_area(area, height=5.0):
    return saddle(quantities={"area_cm2": Quantity(area, area - 0.1, area + 0.1), "height_mm": Quantity(height)})


def test_each_quantity_has_the_range_of_the_models():
    found = with_models(of_area(10.0), [of_area(9.7, 4.0), of_area(10.4, 7.0), of_area(10.1, 3.5)])
    assert (found.status, found.reason) == (MEASURED, "")
    assert found.quantities["area_cm2"] == Quantity(10.0, 9.9, 10.1, 9.7, 10.4)
    assert found.quantities["height_mm"] == Quantity(5.0, None, None, 3.5, 7.0)


def test_models_that_disagree_make_a_valve_uncertain():
    found = with_models(of_area(10.0), [of_area(9.3), of_area(10.6)])  # 13 % of the area
    assert (found.status, "9.3 to 10.6 cm2" in found.reason) == (UNCERTAIN, True)
    doubtful = dataclasses.replace(of_area(10.0), status=UNCERTAIN, reason="coarse")
    assert with_models(doubtful, [of_area(9.3), of_area(10.6)]).reason.startswith("coarse; ")
    assert with_models(doubtful, [of_area(10.0), of_area(10.0)]).reason == "coarse"


def test_a_model_that_shows_no_valve_leaves_no_range():
    found = with_models(of_area(10.0), [of_area(10.1), REFUSAL])
    assert (found.status, "1 of 2 models" in found.reason, "touch" in found.reason) == (UNCERTAIN, True, True)
    assert found.quantities["area_cm2"].models_low is None
    assert with_models(REFUSAL, [of_area(10.1)]) is REFUSAL
    assert with_models(None, []) is None


def test_a_quantity_that_one_model_lacks_has_no_range():
    assert with_range(Quantity(5.0), [Quantity(4.0), None]) == Quantity(5.0)
    assert with_range(None, [Quantity(4.0)]) is None
    assert with_range(Quantity(5.0), [Quantity(4.0), Quantity(6.0)]) == Quantity(5.0, None, None, 4.0, 6.0)


@pytest.fixture(scope="module")
def labels():
    """In voxels of 2 mm, of which there are few."""
    return make_annulus(
        AnnulusSpec(22.0, 28.0, 5.0), draw_pose(np.random.default_rng(3)), (2.0, 2.0, 2.0)
    ).volume.voxels


def test_the_labels_of_each_model_are_measured(labels):
    absent = np.where(labels == 2, 0, labels)
    mm = (2.0, 2.0, 2.0)
    each = ((labels, labels), (labels, absent))
    twice, once = (measure(unchecked(labels, mm, by_model=np.stack(both))) for both in each)
    area = twice.mitral.quantities["area_cm2"]
    assert area.low < area.models_low == area.value == area.models_high < area.high
    assert (twice.mitral.status, once.mitral.status) == (MEASURED, UNCERTAIN)
    assert "1 of 2 models show no valve: there is no left_atrium" in once.mitral.reason
    content = to_json(unchecked(labels, mm), twice)["mitral_valve"]["quantities"]["area_cm2"]
    assert content["models_low"] == content["models_high"] == content["value"]
    assert measure(unchecked(labels, mm)).mitral.quantities["area_cm2"].models_low is None
