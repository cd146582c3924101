"""The JSON form against its schema, the table over studies, and what never enters either."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.findings import NOTE, WARN, Finding
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure import json_form
from heartseg_jax.measure.json_form import COLUMNS, rows, to_json
from heartseg_jax.measure.volumes import measure
from heartseg_jax.preprocess.learned import Learned
from tests.measure.predictions import CONTRACT, MODEL, of_phantom, predicted, unchecked

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "measurements.schema.json").read_text())


def content_of(prediction):
    content = to_json(prediction, measure(prediction))
    jsonschema.validate(content, SCHEMA, jsonschema.Draft202012Validator)
    return json.loads(json.dumps(content, allow_nan=False))


def kinds(phantom):
    """Predictions of every sort: whole, cut, empty, refused, of pictures, by members that disagree, postprocessed."""
    yield of_phantom(phantom)
    yield of_phantom(phantom, labels=np.zeros_like(phantom.labels))
    yield of_phantom(phantom, agreement=np.array([1, np.nan, 0.1, 0.7, 1, 1, 1, 1, 0.0]), models=())
    yield of_phantom(phantom, confidence=np.array([np.nan, 0.9, 0.8, 1, 0.5, 0.9, np.nan, 0.2, 0.7]))
    yield of_phantom(phantom, changed_voxels={"left_atrium": (500, 20)})
    pictures = Volume(np.full((6, 40, 40), 90, np.uint8), (1.0, 1.0, 1.0))
    yield predicted(Intake("pictures", pictures, spacing_known=False), np.full((6, 40, 40), 3))
    few = Finding(WARN, "too_few_slices", "only 6 slices", fix="give more")
    yield unchecked(np.full((6, 9, 9), 3), findings=(few, Finding(NOTE, "cardiac_phase", "75 %")))


def test_the_schema_itself_is_one_and_describes_every_key():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def described(part):
        for name, inner in part.get("properties", {}).items():
            assert inner.get("description"), name
            described(inner)
            described(inner.get("items", {}))

    described(SCHEMA)
    described(SCHEMA["$defs"]["structure"])


def test_every_kind_of_outcome_has_the_form(phantom):
    contents = [content_of(prediction) for prediction in kinds(phantom)]
    said = {row["status"] for content in contents for row in content["structures"].values()}
    assert said == {"measured", "partial", "absent", "refused"}
    assert [list(content["structures"]) for content in contents] == [[s.name for s in HEART.foreground]] * len(contents)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("structures", "left_atrium", "volume_ml"), "12 mL"),
        (("structures", "left_atrium", "status"), "fine"),
        (("structures", "left_atrium", "volume"), 12),
        (("input", "spacing_mm"), [1, 1]),
        (("patient",), "ana"),
    ],
)
def test_the_schema_refuses_another_form(phantom, place, value):
    content = to_json(of_phantom(phantom), measure(of_phantom(phantom)))
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)


def test_values_are_those_measured_and_null_is_not_zero(phantom):
    prediction = of_phantom(phantom)
    measured, content = measure(prediction).of("left_ventricle"), content_of(prediction)
    found = content["structures"]["left_ventricle"]
    assert found["volume_ml"] == pytest.approx(measured.voxels * 0.064)
    assert found["extent_right_left_mm"] == measured.extent_mm[0]
    assert (found["normal_range_ml"], found["confidence"]) == ([9, 218], None)
    assert found["normal_range_sources"]
    assert content["structures"]["vena_cava"]["normal_range_ml"] is None
    assert content["mitral_valve"] is None
    assert content["mitral_valve_reason"]
    assert content["model"]["members"] == [{"checkpoint_sha256": "c" * 64, "config_sha256": "d" * 64, "step": 120}]
    assert content["input"]["spacing_mm"] == [4, 4, 4]
    empty = content_of(of_phantom(phantom, labels=np.zeros_like(phantom.labels)))["structures"]["left_atrium"]
    assert (empty["status"], empty["volume_ml"], empty["mean_hu"]) == ("absent", None, None)


def test_a_package_is_named_with_what_it_learned_from(phantom):
    model = MODEL._replace(package="heart_v1", version="1", package_sha256="f" * 64)
    record = Learned("hearts", "real", 7, 31, {"left_atrium": 7}, ("1" * 64,), licence="CC BY 4.0, A. Author")
    contract = dataclasses.replace(CONTRACT, learned_from=(record,))
    found = content_of(of_phantom(phantom, models=(model, model), contract=contract))["model"]
    assert [(one["package"], one["version"], one["package_sha256"]) for one in found["members"]] == 2 * [
        ("heart_v1", "1", "f" * 64)
    ]
    assert found["learned_from"] == [
        {"name": "hearts", "images": "real", "patients": 7, "slices": 31, "licence": "CC BY 4.0, A. Author"}
    ]
    mixed = content_of(of_phantom(phantom, models=(model, MODEL), contract=contract))["model"]
    assert mixed["learned_from"] is None


def test_no_path_and_no_file_name_enters(phantom):
    secret = Finding(WARN, "copies", "2 files left out", example="DOE_JANE_0001.dcm")
    prediction = of_phantom(phantom, findings=(secret,))
    text = json.dumps(content_of(prediction))
    assert "copies" in text
    assert not any(part in text for part in ("DOE", "JANE", "ana", "/home", "data"))


def test_every_warning_is_carried_with_its_fix(phantom):
    found = (
        Finding(WARN, "no_contrast", "no chamber is bright", fix="choose another"),
        Finding(NOTE, "padding", "3 %"),
    )
    content = content_of(of_phantom(phantom, findings=found))
    assert "no_contrast: no chamber is bright; choose another" in content["warnings"]
    assert not any(text.startswith("padding") for text in content["warnings"])
    assert content["input"]["fit_for"] == ["slices"]
    assert {one["status"] for one in content["structures"].values()} == {"refused"}


def test_rows_make_one_table_over_studies(phantom):
    contents = [content_of(prediction) for prediction in kinds(phantom)]
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for number, content in enumerate(contents):
        writer.writerows(rows(f"study {number}", content))
    lines = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert len(lines) == 8 * len(contents)
    first = contents[0]["structures"]["left_ventricle"]
    line = next(one for one in lines if one["study"] == "study 0" and one["structure"] == "left_ventricle")
    assert float(line["volume_ml"]) == first["volume_ml"]
    assert (line["normal_range_low_ml"], line["normal_range_high_ml"]) == ("9.0", "218.0")
    assert {one["volume_ml"] for one in lines if one["status"] in ("absent", "refused")} == {""}
    assert set(SCHEMA["$defs"]["structure"]["properties"]) - {"normal_range_ml", "normal_range_sources"} <= set(COLUMNS)


def test_rows_of_an_earlier_version_have_their_agreement_where_it_is_now(phantom):
    content = content_of(of_phantom(phantom))
    for structure in content["structures"].values():
        del structure["agreement"]
        structure["confidence"] = 0.8  # which was what is called agreement now
    found = rows("study", content | {"version": 1})
    assert {(row["confidence"], row["agreement"]) for row in found} == {("", 0.8)}


def test_a_number_that_is_not_finite_is_null():
    assert json_form._rounded(float("nan"), 2) is None
    assert json_form._rounded(float("inf"), 2) is None
    assert json_form._rounded(1.23456, 2) == 1.23
