"""The review page: what it holds and may do; how it is drawn is tested in a browser by test_review_in_browser.py."""

import base64
import gzip
import hashlib
import importlib.util
import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from heartseg_jax.errors import UserError
from heartseg_jax.export import review_page
from heartseg_jax.export.page import content, images, surfaces, valves, viewer
from heartseg_jax.export.registry import EXPORTERS, Options, exporters_for
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure import status
from heartseg_jax.measure.results import REFUSED, ValveMeasurement
from heartseg_jax.measure.valves import valves_of_labels
from tests.export import studies
from tests.valves import saddle


@pytest.fixture(scope="module")
def case(case_of):
    return case_of("oblique7-3mm")


@pytest.fixture(scope="module")
def page(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    review_page.write_review(case.prediction, case.measurements, folder, Options())
    assert [path.name for path in folder.iterdir()] == ["review.html"]
    return (folder / "review.html").read_text("utf-8")


def block_of(page, name):
    """The text of a script element by its id."""
    (found,) = re.findall(rf'<script type="[^"]*" id="{name}">([^<]*)</script>', page)
    return found


def stored(page, name):
    return gzip.decompress(base64.b64decode(block_of(page, name)))


def test_it_is_made_of_every_input():
    assert EXPORTERS["review"].writes == "review.html"
    assert "review" in exporters_for("pictures", False)


def test_images_and_labels_of_a_small_volume_are_stored_unchanged(case, page):
    hu, labels = studies.phantom()
    for name, voxels in (("image-data", hu), ("label-data", labels)):
        data = stored(page, name)
        assert struct.unpack("<8h", data[40:56])[1:4] == voxels.shape[::-1]
        (start,) = struct.unpack("<f", data[108:112])
        assert (np.frombuffer(data[int(start) :], voxels.dtype).reshape(voxels.shape) == voxels).all()


def test_the_content_is_that_of_the_measurements(case, page):
    said = json.loads(block_of(page, "content"))
    rows = said["measurements"]["structures"]
    assert [one["name"] for one in said["structures"]] == list(rows)
    assert said["structures"][2]["rgb"] == [165, 47, 56]
    assert rows["left_ventricle"]["volume_ml"] == round(case.measurements.of("left_ventricle").volume_ml, 3)
    assert said["measurements"]["warnings"] == [studies.WARNING]
    assert said["statement"][0].startswith("Research use only")
    assert any("ab12" * 4 in line for line in said["statement"])


def test_nothing_names_the_patient_or_a_path(case, page):
    assert "zwicknagl" not in page.lower()
    header = case.prediction.intake.files[0]
    assert str(header)[-20:] not in page
    for name in ("image-data", "label-data"):
        described = stored(page, name)[148:348]
        assert not described[:80].strip(b"\0")  # descrip
        assert not described[80:104].strip(b"\0")  # aux_file


def test_its_policy_allows_its_own_scripts_only(page):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; ")
    assert "connect-src" not in policy
    assert "unsafe" not in policy
    run = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(run) == 2
    for code in (*run, re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]):
        assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() in policy


def test_the_licence_of_niivue_goes_along(page):
    said = json.loads(block_of(page, "content"))
    assert "Redistributions in binary form" in said["licence"]
    assert "Niivue" in said["licence"]


EVIL = "</script><script>alert(1)</script><!-- \u2028 {{LABELS}} & 'x' \"y\""


def test_what_strings_hold_stays_in_them(case, tmp_path):
    measurements = replace(studies.with_row(case.measurements, "left_atrium", reason=EVIL), warnings=(EVIL,))
    review_page.write_review(case.prediction, measurements, tmp_path, Options(language="es"))
    page = (tmp_path / "review.html").read_text("utf-8")
    said = json.loads(block_of(page, "content"))
    assert said["measurements"]["warnings"] == [EVIL]
    assert said["measurements"]["structures"]["left_atrium"]["reason"] == EVIL
    assert said["language"] == "es"
    assert page.count("alert(1)") == 2  # the row and the warning
    assert page.count("<script") == page.count("</script>") == 7


def test_what_is_withheld_is_not_shown(case, tmp_path):
    measurements = studies.with_row(
        case.measurements, "left_ventricle", status="refused", reason="no contrast", withheld=True
    )
    review_page.write_review(case.prediction, measurements, tmp_path, Options())
    page = (tmp_path / "review.html").read_text("utf-8")
    data = stored(page, "label-data")
    assert 3 in studies.phantom()[1]
    assert 3 not in np.frombuffer(data[352:], np.uint8)
    assert "3" not in json.loads(block_of(page, "meshes"))
    assert json.loads(block_of(page, "content"))["structures"][2]["centre_mm"] is None


def test_both_languages_have_every_text():
    texts = review_page.texts()
    own = {key for key in texts["es"] if key.startswith(("structure_", "reason_"))}  # English without them
    assert set(texts["es"]) - own == set(texts["en"])
    for key, text in texts["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", texts["es"][key])), key
    scripts = "".join(review_page._text(name) for name in (*review_page.SCRIPTS, "page.html"))
    named = re.findall(r'(?:\.of\(|data-text=|data-label=)"(\w+)"', scripts)
    assert len(named) > 30
    assert set(named) <= set(texts["en"])


@pytest.mark.parametrize(
    ("structure", "key", "values"),
    [
        ((0, None, None, None), "reason_absent", {}),
        ((9, 300.0, 0.123, None), "reason_border", {"share": "12"}),
        ((9, 300.0, 0.004, None), "reason_border_little", {}),
        ((9, 300.0, 0.0, 0.25), "reason_members", {"dice": "0.25"}),
        ((9, -20.0, 0.0, None), "reason_blood", {"hu": "-20"}),
    ],
)
def test_reasons_are_known_in_spanish(structure, key, values):
    reason = status.answer(*structure, [], True, True).reason
    assert known_in_spanish(reason) == {key: values}


def known_in_spanish(reason):
    """Which texts of the page a reason becomes, with what is filled in."""
    known = dict(re.findall(r"^  (reason_\w+): /(.*)/,$", review_page._text("table.js"), re.MULTILINE))
    found = {name: re.search(text.replace("(?<", "(?P<"), reason) for name, text in known.items()}
    found = {name: one.groupdict() for name, one in found.items() if one}
    for name, values in found.items():
        assert set(re.findall(r"\{(\w+)\}", review_page.texts()["es"][name])) == set(values)
    return found


CHAMBERS = np.zeros((8, 8, 8), np.uint8)
CHAMBERS[1:3, 1:3, 1:3], CHAMBERS[5:7, 5:7, 5:7] = 2, 3


@pytest.mark.parametrize(
    ("labels", "mm", "key", "values"),
    [
        (np.where(CHAMBERS == 2, 0, CHAMBERS), 1.0, "reason_no_chamber", {"structure": "left_atrium"}),
        (CHAMBERS, 3.0, "reason_untouched", {}),
        (CHAMBERS[2:3], 1.0, "reason_slice", {}),
        (CHAMBERS, 9.0, "reason_large_voxels", {"mm": "9"}),
    ],
)
def test_a_valves_reasons_are_known_in_spanish(labels, mm, key, values):
    found = valves_of_labels(Volume(labels, (mm, mm, mm)), labels).mitral
    assert found.status == REFUSED
    assert known_in_spanish(found.reason) == {key: values}


def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    viewer.viewer.cache_clear()
    with pytest.raises(UserError, match=r"pip install .ipyniivue"):
        viewer.viewer()
    viewer.viewer.cache_clear()


def test_a_bundle_of_another_form_is_refused(monkeypatch):
    monkeypatch.setattr(viewer, "MODULE", re.compile("never there (.*)"))
    viewer.viewer.cache_clear()
    with pytest.raises(UserError, match="ipyniivue"):
        viewer.viewer()
    viewer.viewer.cache_clear()


def test_code_in_a_script_element_cannot_end_it():
    assert viewer.in_script("a='</SCRIPT>';b='<!--';c=1<2") == r"a='\x3C/SCRIPT>';b='\x3C!--';c=1<2"


# Images that are too large


def test_blocks_are_as_cubic_as_can_be():
    volume = Volume(np.broadcast_to(np.int16(0), (300, 512, 512)), (1.0, 0.5, 0.5))
    assert images.block(volume, 24_000_000) == (1, 2, 2)
    assert images.block(volume, 80_000_000) == (1, 1, 1)
    thin = Volume(np.broadcast_to(np.int16(0), (1000, 512, 512)), (0.4, 0.4, 0.4))
    assert images.block(thin, 24_000_000) == (2, 2, 3)


def test_the_mean_of_blocks_with_a_border_that_repeats():
    voxels = np.array([[[0, 2, 10], [4, 6, 20]]], np.int16)
    assert images.mean_of_blocks(voxels, (1, 2, 2)).tolist() == [[[3, 15]]]
    assert images.mean_of_blocks(voxels, (2, 1, 1)).tolist() == voxels.tolist()


def test_the_label_of_a_block_is_that_of_most_of_it():
    labels = np.array([[[1, 1, 2, 0, 0, 0, 3, 3], [0, 2, 2, 1, 0, 4, 0, 0]]], np.uint8)
    # Background loses ties only: 2 of 4 voxels are enough, 1 of 4 is not.
    assert images.labels_of_blocks(labels, (1, 2, 2)).tolist() == [[[1, 2, 0, 3]]]


def test_blocks_lie_where_their_voxels_do():
    direction = studies.WAYS["oblique30"]
    volume = Volume(np.zeros((4, 6, 6), np.int16), (2.0, 1.0, 0.5), (10.0, 20.0, 30.0), direction)
    small = images.on_blocks(volume, images.mean_of_blocks(volume.voxels, (2, 3, 2)), (2, 3, 2))
    assert small.spacing_mm == (4.0, 3.0, 1.0)
    # The middle of voxels 0..1, 0..2 and 0..1.
    assert np.allclose(small.origin_mm, np.array([10, 20, 30]) + direction @ [1.0, 1.0, 0.25])


def test_values_are_rounded_until_they_fit():
    noise = np.random.default_rng(0).normal(100, 30, (24, 64, 64)).astype(np.int16)
    volume = Volume(noise, (1.0, 1.0, 1.0))
    shown = images.shown(volume, np.zeros(noise.shape, np.uint8), most_bytes=60_000)
    assert shown.step == 16
    assert not (shown.images.voxels % 16).any()
    assert np.abs(shown.images.voxels - noise).max() <= 8
    assert len(images.packed(shown.images)) <= 70_000
    assert images.shown(volume, np.zeros(noise.shape, np.uint8)).step == 1
    assert images.rounded(np.array([255, 3], np.uint8), 4).tolist() == [255, 4]


@pytest.mark.parametrize("way", studies.WAYS)
def test_surfaces_lie_around_their_voxels_and_face_outwards(way, case):
    labels = np.zeros((24, 30, 36), np.uint8)
    labels[6:14, 10:20, 20:30] = 3
    volume = Volume(labels, (3.0, 2.0, 1.5), (5.0, -7.0, 11.0), studies.WAYS[way])
    prediction = replace(case.prediction, labels=labels, intake=Intake("nifti", volume))
    points, faces = from_mz3(surfaces.packed_surfaces(prediction)[3])
    middle = np.array([9.5, 14.5, 24.5]) * volume.spacing_mm
    expected = (np.array(volume.origin_mm) + volume.direction @ middle) * [-1, -1, 1]
    assert np.allclose(points.mean(0), expected, atol=0.3)
    a, b, c = (points[faces[:, k]] - expected for k in range(3))
    volume_mm3 = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume_mm3 == pytest.approx(8 * 10 * 10 * 9, rel=0.08)  # positive: it faces outwards


def test_a_tube_is_closed_and_faces_outwards():
    """A torus of 20 and 1 mm has 2 pi^2 R r^2; a decagon has 10/2 sin(36 deg) / pi of its circle."""
    angle = 2 * np.pi * np.arange(96) / 96
    circle = 20 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) + [5, 6, 7]
    for points in (circle, circle[::-1]):
        mesh = trimesh.Trimesh(*valves.tube(points, np.array([0.0, 0, 1]), 1.0), process=False)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(2 * np.pi**2 * 20 * 0.9355, rel=0.005)
        assert np.allclose(mesh.center_mass, [5, 6, 7], atol=1e-6)


def test_valves_are_drawn_in_niftis_axes_and_refused_ones_not(case):
    refused = ValveMeasurement("tricuspid", REFUSED, "a chamber is missing")
    measurements = replace(case.measurements, mitral=saddle((10, 20, 30)), tricuspid=refused)
    (found,) = valves.drawn(measurements)
    assert found["name"] == "mitral"
    assert found["centre_mm"] == [-10, -20, 30]
    assert found["curve_mm"][0] == [-25, -20, 33]  # 15 mm along x, on the saddle's height
    corners = np.array(found["square_mm"]) - [-10, -20, 30]
    assert np.allclose(np.abs(corners), [0.65 * 38, 0.65 * 38, 0], atol=1e-3)
    assert np.allclose(np.linalg.norm(np.diff(corners, axis=0), axis=1), 1.3 * 38, atol=1e-3)  # in order round it
    points, _ = from_mz3(valves.packed_tubes(measurements)["mitral"])
    assert np.linalg.norm(points[:10] - [-25, -20, 33], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert valves.packed_tubes(case.measurements) == {}


def from_mz3(data):
    data = gzip.decompress(data)
    magic, kind, faces, points, skipped = struct.unpack("<HHIII", data[:16])
    assert (magic, kind, skipped) == (0x5A4D, 3, 0)
    triangles = np.frombuffer(data, "<i4", 3 * faces, 16).reshape(-1, 3)
    return np.frombuffer(data, "<f4", 3 * points, 16 + 12 * faces).reshape(-1, 3).astype(float), triangles


def test_centres_lie_in_their_structure():
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[1, 1:8, 1:8] = 2
    labels[1, 2:7, 2:7] = 0  # a ring: its centre of mass is not in it
    volume = Volume(labels, (1.0, 2.0, 3.0))
    x, y, z = content.centres(volume)[2]
    assert labels[round(z), round(-y / 2), round(-x / 3)] == 2
