"""The valves in the review page, as a browser draws them: over the slices, in 3D, and in the table."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.export.markups import COLOURS
from heartseg_jax.export.registry import Options
from heartseg_jax.export.review_page import write_review
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import REFUSED, ValveMeasurement
from heartseg_jax.preprocess.contract import Contract
from tests.export import studies
from tests.export.browser import Opened, chromium
from tests.export.test_review_in_browser import near
from tests.preprocess.specs import spec
from tests.valves import TRICUSPID, saddle

pytestmark = pytest.mark.system
BALL_MM, RING_MM, BEHIND_MM = 8.0, 16.0, 5.0
"""A ball of the right atrium, and round it the annulus, its centre farther to Posterior; its plane is sagittal."""
RA, ORANGE = np.array(HEART.colour(4, "display")), np.array(COLOURS["tricuspid"])


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder, shape, spacing = tmp_path_factory.mktemp("valves"), (30, 40, 40), (2.0, 1.75, 1.5)
    direction, middle = studies.WAYS["negated"], (np.array(shape) - 1) // 2
    offsets = (np.moveaxis(np.indices(shape), 0, -1) - middle) * spacing @ direction.T  # mm in the patient, LPS
    labels = np.where(np.linalg.norm(offsets, axis=-1) < BALL_MM, 4, 0).astype(np.uint8)
    volume = Volume(np.where(labels > 0, 300, 40).astype(np.int16), spacing, (-31.0, 17.0, 5.0), direction)
    at = volume.origin_mm + direction @ (middle * spacing)
    ring = saddle(
        at + [0, BEHIND_MM, 0], (1, 0, 0), (0, 1, 0), (RING_MM, RING_MM), 0.0, valve="tricuspid", quantities=TRICUSPID
    )
    contract = Contract(spec("-1,0,1"), "heart", "/data/ds", "abc", 5)
    prediction = Prediction(labels, None, Intake("nifti", volume), contract, (studies.MODEL,), ())
    refused = ValveMeasurement("mitral", REFUSED, "the contact is open")
    measurements = dataclasses.replace(studies.measured(labels, volume), tricuspid=ring, mitral=refused)
    write_review(prediction, measurements, folder, Options())
    with chromium() as browser:
        one = Opened(browser, folder / "review.html")
        one.page.evaluate(f"review.scene.goTo({(at * [-1, -1, 1]).tolist()})")
        one.page.locator("#opacity").fill("100")
        yield one
        one.close()


def dots(pixels):
    """Middles (x, y) of the discs in the annulus's colour, without the thinner line of the plane."""
    from scipy import ndimage

    found, count = ndimage.label(ndimage.binary_opening(near(pixels, ORANGE, 25), np.ones((3, 3))))
    return np.array(ndimage.center_of_mass(found > 0, found, range(1, count + 1))).reshape(-1, 2)[:, ::-1]


def ball(pixels):
    """Middle (x, y) of the ball; lines cross it, and the longest rows and columns stay."""
    y, x = np.nonzero(near(pixels, RA))
    return np.array([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2])


def per_mm(pixels):
    """Pixels per mm of a picture that is not enlarged: the volume is 60 mm high and wide, and grey on black."""
    grey = (np.abs(pixels - pixels[-20, pixels.shape[1] // 2 - 30]) < 3).all(-1)
    return grey.any(0).sum() / 60


@pytest.mark.parametrize("zoom", [1, 1.25])
def test_the_annulus_is_drawn_where_it_passes_through_the_slice(opened, zoom):
    """In the axial slice through the ball's middle it is a chord of the ring: two dots, above and below the ball."""
    scale = per_mm(opened.pixels("axial")) * zoom
    opened.scene(f"scene.zoom({zoom})")
    pixels = opened.pixels("axial")
    opened.scene("scene.zoom(0.1)")  # it stays at least 1
    found = dots(pixels)
    found = (found[found[:, 1].argsort()] - ball(pixels)) / scale
    # Turned by 3.5 degrees, which moves the dots to the sides; below is Posterior.
    np.testing.assert_allclose(found[0], [0, BEHIND_MM - RING_MM], atol=1.5)
    if zoom == 1:  # enlarged, the lower one leaves the panel
        np.testing.assert_allclose(found[1:], [[0, BEHIND_MM + RING_MM]], atol=1.5)


def test_enlarging_keeps_the_crosshair_in_its_place(opened):
    """The scan may lie far from the origin of its coordinates."""
    place = "[...review.scene.slices.frac2canvasPos(review.scene.slices.scene.crosshairPos)]"
    before = opened.page.evaluate(place)
    opened.scene("scene.zoom(3)")
    enlarged = opened.page.evaluate(place)
    opened.scene("scene.zoom(0.1)")
    np.testing.assert_allclose(enlarged, before, atol=0.5)
    np.testing.assert_allclose(opened.page.evaluate(place), before, atol=1e-6)


def test_what_runs_within_the_slice_is_drawn_on_the_ring(opened):
    """A sagittal slice leaves the ring, turned by 3.5 degrees, 12 mm before and behind the line where both meet."""
    pixels = opened.pixels("sagittal")
    scale = 60 / np.ptp(np.nonzero((pixels.max(-1) > 40).any(1))[0])  # mm per pixel
    y, x = np.nonzero(near(pixels, ORANGE, 25))
    offsets = (np.stack([x, y], 1) - ball(pixels)) * scale
    ring = np.abs(np.linalg.norm(offsets - [-BEHIND_MM, 0], axis=1) - RING_MM) < 1
    assert ring.sum() > 150
    assert np.abs(offsets[ring][:, 1]).max() > 12
    assert offsets[ring][:, 0].max() == pytest.approx(RING_MM - BEHIND_MM, abs=1)  # Anterior is to the right
    assert opened.scene("scene.marks.shown.coronal.tricuspid") == 2


def test_it_is_hidden_and_shown(opened):
    page = opened.page
    before, turning = near(opened.pixels("axial"), ORANGE, 25).sum(), opened.pixels("turning")
    page.locator("#axial").focus()
    page.keyboard.press("v")
    assert near(opened.pixels("axial"), ORANGE, 25).sum() == 0
    assert (opened.pixels("turning") != turning).any()
    box = page.get_by_role("checkbox", name="Tricuspid valve")
    assert not box.is_checked()
    box.check()
    assert near(opened.pixels("axial"), ORANGE, 25).sum() == before
    assert opened.scene("scene.turning.meshes.length") == 2


def test_the_valves_name_leads_to_its_centre(opened):
    page = opened.page
    page.get_by_role("button", name="Tricuspid valve").click()
    opened.wait("Math.abs(review.scene.place()[1] - review.content.valves[0].centre_mm[1]) < 1")
    assert page.get_by_role("checkbox", name="Mitral valve").is_disabled()


def test_the_table_has_its_figures_in_both_languages(opened):
    page, table = opened.page, opened.page.locator("#valves")
    text = table.inner_text()
    assert "11.2 cm²" in text
    assert "10.0–12.1" in text
    assert "Largest diameter" in text
    assert "The contact is open." in text
    page.get_by_role("button", name="Español").click()
    text = table.inner_text()
    assert "Válvula tricúspide" in text
    assert "11,2 cm²" in text
    assert opened.scene("scene.marks.letters.tricuspid") == "VT"
    page.get_by_role("button", name="English").click()
    assert page.evaluate("document.querySelector('aside').scrollWidth <= document.querySelector('aside').clientWidth")


def test_nothing_was_fetched_or_said(opened):
    assert opened.fetched == []
    assert [line for line in opened.said if line.startswith(("error", "warning"))] == []
