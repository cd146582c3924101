"""A real archive for tests: Debian's Orthanc with its DICOMweb plugin, on loopback, with folders of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import needed

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(folder: Path, users: dict[str, str] | None = None) -> Iterator[str]:
    """Yield the root of the DICOMweb service of an empty archive, which is stopped at the end.

    `users` are passwords by name.
    """
    program = needed("Orthanc")
    if not PLUGIN.exists():
        message = "Orthanc has no DICOMweb plugin: apt-get install orthanc-dicomweb"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    port = free_port()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": users is not None,
        "RegisteredUsers": users or {},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    process = subprocess.Popen([program, str(file)], stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert process.stderr
        said = []
        for line in process.stderr:  # until it ends, or is ready
            said.append(line)
            if "Orthanc has started" in line:
                break
        else:
            pytest.fail("Orthanc did not start:\n" + "".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(30)
