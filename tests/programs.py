"""Programs of Debian packages that tests run: skipped with the reason where they are missing, but never in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "dciodvfy": "dicom3tools",
    "Orthanc": "orthanc orthanc-dicomweb",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "openssl": "openssl",
}


def needed(program: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails where `CI` is 'true'."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path:
        return path
    message = f"{program} is missing: apt-get install {PACKAGES[program]}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def dciodvfy(path: Path) -> list[str]:
    """Return the errors that dicom3tools find in a DICOM file; it writes all that it has to say to stderr."""
    run = subprocess.run([needed("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace")
    said = run.stderr + run.stdout
    assert said.strip(), "dciodvfy always names the kind of object"
    return [line for line in said.splitlines() if line.startswith(("Error", "Abort"))]
