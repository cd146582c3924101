"""The review page as a browser draws it: opened from disk without a network, pixels and state read back."""

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.export.registry import Options
from heartseg_jax.export.review_page import write_review
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.preprocess.contract import Contract
from tests.export import studies
from tests.export.browser import Opened, chromium
from tests.preprocess.specs import spec

pytestmark = pytest.mark.system
RA = np.array(HEART.colour(4, "display"))  # green, as nothing else is


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def opened(browser, case_of, tmp_path_factory):
    case, folder = case_of("axial-3mm"), tmp_path_factory.mktemp("review")
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    measurements = studies.with_row(case.measurements, "left_atrium", status="partial", reason=evil)
    write_review(case.prediction, measurements, folder, Options())
    one = Opened(browser, folder / "review.html")
    yield one
    one.close()


def near(pixels, rgb, tolerance=40):
    """Where pixels have about this colour."""
    return (np.abs(pixels - rgb) < tolerance).all(-1)


def test_it_opens_from_disk_and_asks_for_nothing(opened):
    assert opened.state == "true"
    assert opened.fetched == []
    assert [line for line in opened.said if line.startswith(("error", "warning"))] == []
    assert opened.page.locator("#loading").is_hidden()


def test_slices_scroll_by_keys_and_wheel(opened):
    page = opened.page
    before = opened.pixels("axial")
    page.locator("#axial").focus()
    at = opened.scene("scene.number('axial')")
    assert opened.scene("[scene.count('axial'), scene.count('coronal'), scene.count('sagittal')]") == [14, 45, 43]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert opened.scene("scene.number('axial')") == at + 2
    assert f"{at + 2} / 14" in page.locator("#axial h2").inner_text()
    assert (opened.pixels("axial") != before).any()
    page.keyboard.press("End")
    assert opened.scene("scene.number('axial')") == 14
    page.keyboard.press("PageDown")
    assert opened.scene("scene.number('axial')") == 4
    page.keyboard.press("Home")
    assert opened.scene("scene.number('axial')") == 1
    page.keyboard.press("c")
    page.keyboard.press("ArrowUp")
    assert opened.scene("scene.number('axial')") == 1
    box = page.locator("#axial").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, 120)
    opened.wait("review.scene.number('axial') !== 1")


def test_a_structure_is_found_hidden_and_shown(opened):
    page = opened.page
    page.get_by_role("button", name="Right atrium").click()
    opened.wait("document.getElementById('place').textContent.startsWith('Right atrium')")
    opened.page.locator("#opacity").fill("100")
    shown, turning = near(opened.pixels("axial"), RA).sum(), opened.pixels("turning")
    assert shown > 100
    page.locator("#axial").focus()
    page.keyboard.press("4")
    assert not page.get_by_role("checkbox", name="Show Right atrium").is_checked()
    assert near(opened.pixels("axial"), RA).sum() < shown / 20
    assert (opened.pixels("turning") != turning).any()
    page.get_by_role("checkbox", name="Show Right atrium").check()
    assert near(opened.pixels("axial"), RA).sum() == pytest.approx(shown, rel=0.02)
    page.keyboard.press("0")
    assert opened.scene("[...scene.hidden].length") == 8
    page.keyboard.press("0")
    assert opened.scene("[...scene.hidden].length") == 0


def test_windows_change_the_grey_of_the_images(opened):
    opened.page.locator("#preset").select_option("heart")
    heart = opened.pixels("axial")
    opened.page.locator("#preset").select_option("lung")
    assert opened.scene("scene.window()") == [1500, -600]
    assert opened.page.locator("#width").input_value() == "1500"
    assert opened.pixels("axial").mean() > heart.mean() + 10  # soft tissue is bright in it
    opened.page.locator("#level").fill("100")
    opened.page.locator("#level").press("Enter")
    assert opened.scene("scene.window()") == [1500, 100]
    opened.page.locator("#preset").select_option("heart")
    assert (np.abs(opened.pixels("axial") - heart) <= 2).all()


def test_surfaces_are_drawn_and_turn(opened):
    page = opened.page
    front = opened.pixels("turning")
    assert (front.max(-1) > 40).mean() > 0.05
    assert opened.scene("scene.turning.meshes.length") == 8
    page.locator("#turning").focus()
    page.keyboard.press("ArrowLeft")
    assert (opened.pixels("turning") != front).mean() > 0.01
    page.get_by_role("button", name="Front").click()
    assert (np.abs(opened.pixels("turning") - front) <= 2).mean() > 0.99


def test_the_language_switches(opened):
    page = opened.page
    page.get_by_role("button", name="Español").click()
    assert page.locator("html").get_attribute("lang") == "es"
    assert "Ventrículo izquierdo" in page.locator("#structures").inner_text()
    assert "no para diagnóstico" in page.locator("#research").inner_text()
    page.locator("#axial").focus()
    page.keyboard.press("l")
    assert "Left ventricle" in page.locator("#structures").inner_text()


def test_what_strings_hold_is_shown_as_text(opened):
    assert "<img src=x onerror=alert(1)></script>" in opened.page.locator("#structures").inner_text()
    assert opened.page.locator("#structures img").count() == 0
    assert studies.WARNING in opened.page.locator("#warnings").inner_text()


def test_a_laptop_screen_shows_it_without_scrolling_sideways(opened):
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 1366
    assert page.evaluate("document.documentElement.scrollHeight") <= 768
    assert page.evaluate("document.querySelector('aside').scrollWidth <= document.querySelector('aside').clientWidth")
    for panel in ("axial", "coronal", "sagittal", "turning"):
        assert page.locator(f"#{panel}").bounding_box()["height"] > 250


def test_every_control_has_a_name_and_can_be_reached(opened):
    unnamed = opened.page.evaluate(
        "[...document.querySelectorAll('button, input, select, .panel')].filter((one) => !one.hidden && "
        "!(one.getAttribute('aria-label') || one.textContent.trim() || one.closest('label')?.textContent.trim()))"
        ".map((one) => one.outerHTML)"
    )
    assert unnamed == []
    opened.page.locator("#axial").focus()
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.id") == "coronal"


SAGITTAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # slices towards Right, rows towards Inferior
WAYS = {**studies.WAYS, "sagittal": SAGITTAL}
ARMS = {2: 4, 0: 1, 1: 6}
"""Labels of arms from the middle: green towards Superior, orange towards Left, yellow towards Posterior."""
SIDES = {"axial": {0: "right", 1: "below"}, "coronal": {0: "right", 2: "above"}, "sagittal": {1: "left", 2: "above"}}
"""Where they point in each panel: R is on the left, as radiologists read; Anterior is on the right of sagittal ones."""


@pytest.mark.parametrize("way", WAYS)
def test_every_side_of_the_patient_is_where_it_belongs(way, browser, tmp_path):
    direction, shape, spacing = WAYS[way], (30, 36, 40), (2.0, 1.75, 1.5)
    middle = (np.array(shape) - 1) / 2
    offsets = (np.moveaxis(np.indices(shape), 0, -1) - middle) * spacing @ direction.T  # mm in the patient, LPS
    labels = np.zeros(shape, np.uint8)
    for axis, label in ARMS.items():
        across = np.delete(offsets, axis, -1)
        labels[(offsets[..., axis] > 7) & (offsets[..., axis] < 19) & (np.abs(across) < 6).all(-1)] = label
    volume = Volume(np.where(labels > 0, 300, 40).astype(np.int16), spacing, (-31.0, 17.0, 5.0), direction)
    contract = Contract(spec("-1,0,1"), "heart", "/data/ds", "abc", 5)
    prediction = Prediction(labels, None, Intake("nifti", volume), contract, (studies.MODEL,), ())
    write_review(prediction, studies.measured(labels, volume), tmp_path, Options())
    opened = Opened(browser, tmp_path / "review.html", 1100, 600)
    try:
        assert opened.state == "true"
        at = (volume.origin_mm + direction @ (middle * spacing)) * [-1, -1, 1]  # NIfTI's axes
        opened.page.evaluate(f"review.scene.goTo({at.tolist()})")
        opened.page.locator("#opacity").fill("100")
        for panel, expected in SIDES.items():
            pixels = opened.pixels(panel)
            for axis, side in expected.items():
                found = np.argwhere(near(pixels, HEART.colour(ARMS[axis], "display")))
                assert len(found) > 20, (panel, side)
                row, column = found.mean(0) - np.array(pixels.shape[:2]) / 2
                where = (
                    ("right" if column > 0 else "left") if abs(column) > abs(row) else "below" if row > 0 else "above"
                )
                assert where == side, panel
        # A structure's own button leads into it, and the place is in the patient's mm.
        opened.page.get_by_role("button", name="Ascending aorta").click()
        opened.wait("document.getElementById('place').textContent.startsWith('Ascending aorta')")
        place = np.array(opened.page.evaluate("review.place.mm")) - at
        assert np.allclose(place, [-13, 0, 0], atol=2.5)  # the arm's middle, to a voxel: NIfTI's x runs to Right
    finally:
        opened.close()
