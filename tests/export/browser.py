"""Debian's chromium, without a network and without a graphics card, that opens pages from disk."""

import contextlib
import io
import time

import numpy as np
from PIL import Image

from tests.programs import needed

FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)
LONGEST_S = 240  # on a busy machine, where everything is drawn by the processor


@contextlib.contextmanager
def chromium():
    """Start it."""
    path = needed("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A review page in the browser; what it asked of the network and said on the console is kept."""

    def __init__(self, browser, path, width=1366, height=768):
        self.requests, self.said = [], []
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_offline(True)
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * LONGEST_S)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.goto(path.as_uri())
        self.wait("Boolean(document.body.dataset.ready)")
        self.state = self.page.evaluate("document.body.dataset.ready")

    @property
    def fetched(self):
        """What was asked for beyond the file itself and what it holds."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def wait(self, expression):
        """Wait for a JavaScript expression: the page's policy forbids playwright's own way, which needs eval."""
        end = time.monotonic() + LONGEST_S
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            self.page.wait_for_timeout(50)

    def scene(self, expression):
        """Evaluate JavaScript on the scene, `scene`."""
        return self.page.evaluate(f"(() => {{ const scene = review.scene; return {expression}; }})()")

    def pixels(self, panel):
        """Return what is drawn in a panel, RGB `[H, W, 3]`, without its border."""
        box = self.page.locator(f"#{panel}").bounding_box()
        # A frame later all is drawn.
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        image = Image.open(io.BytesIO(self.page.screenshot(clip=box)))
        return np.asarray(image.convert("RGB")).astype(int)[4:-4, 4:-4]

    def close(self):
        self.page.context.close()
