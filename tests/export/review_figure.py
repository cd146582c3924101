"""Makes docs/figures/review.png, the review page of a phantom: `python -m tests.export.review_figure`."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from heartseg_jax.export.registry import Options
from heartseg_jax.export.review_page import write_review
from heartseg_jax.imaging.intake import of_volume
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.volumes import measure
from heartseg_jax.preprocess.contract import Contract
from tests.export.browser import Opened, chromium
from tests.export.studies import MODEL
from tests.preprocess.specs import spec

FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "review.png"


def main():
    made = generate(5, 2, PhantomSpec((100, 160, 160), (1.5, 1.5, 1.5)))
    volume = replace(made.volume, voxels=np.maximum(made.volume.voxels, -1024).astype(np.int16))
    labels = np.where(made.labels == 255, 0, made.labels).astype(np.uint8)
    intake = of_volume(volume)
    contract = Contract(spec("-1,0,1"), "heart", "phantom", "abc", 5)
    prediction = Prediction(labels, None, intake, contract, (MODEL,), intake.findings)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        write_review(prediction, measure(prediction), Path(folder), Options())
        opened = Opened(browser, Path(folder) / "review.html")
        opened.page.get_by_role("button", name="Mitral valve").click()
        opened.pixels("axial")
        opened.page.screenshot(path=FIGURE)
        opened.page.get_by_role("button", name="Español").click()
        opened.page.screenshot(path=Path(tempfile.gettempdir()) / "review_es.png")


if __name__ == "__main__":
    main()
