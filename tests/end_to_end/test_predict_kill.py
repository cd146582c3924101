"""A batch of predictions killed again and again ends as one that never was, but for times and UIDs."""

import gzip
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.studies import write_study
from tests.verbs.predicting import unpack_run

ROOT = Path(__file__).resolve().parents[2]
STUDIES = 5
MOMENTS = 10
PATIENCE_S = 120.0
"""Nothing here takes as long; a process that hangs ends the test."""
TIMES = ("DA", "TM", "DT")


def start(archive, run, output):
    words = [f"--input={archive}", f"--output={output}", f"--workdir={run}"]
    return subprocess.Popen(
        [sys.executable, "main.py", "predict", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def begun(process, seen, line):
    """Whether the process has said a line that begins so; `seen` collects what it says."""
    while select.select([process.stderr], [], [], 0)[0] and (content := os.read(process.stderr.fileno(), 4096)):
        seen.extend(content)
    return any(said.startswith(line) for said in bytes(seen).splitlines())


def partial_files(output):
    """How many files lie in folders that are still being written."""
    return sum(len(list(folder.iterdir())) for folder in output.glob(".partial-*") if folder.is_dir())


def finished(output):
    return sorted(path.parent.name for path in output.glob("*/report.json"))


def wait_for(process, happened):
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def without_times(value):
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        if "outputs" in value:  # their digests: times and UIDs are in the files
            value = value | {"outputs": sorted(value["outputs"])}
        return {key: without_times(inner) for key, inner in value.items() if key != "seconds"}
    return value


def plain(dataset):
    """All elements of a DICOM object but UIDs and times, and lists of texts that hold them."""
    found = []
    for element in dataset:
        if element.VR == "SQ":
            found.append((element.tag, [plain(item) for item in element.value]))
        elif element.VR not in ("UI", *TIMES):
            found.append((element.tag, element.value))
    return found


def content(path):
    """What a file says but for times and UIDs."""
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".dcm":
        return plain(pydicom.dcmread(path))
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".nrrd":  # comments of its header have the time
        head, data = path.read_bytes().split(b"\n\n", 1)
        return [line for line in head.split(b"\n") if not line.startswith(b"#")], data
    return path.read_bytes()


def everything(output):
    files = [path for path in sorted(output.rglob("*")) if path.is_file()]
    return {path.relative_to(output).as_posix(): content(path) for path in files}


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_no_trace(tmp_path):
    run, archive = unpack_run(tmp_path), tmp_path / "archive"
    for number in range(STUDIES):
        write_study(archive / f"case_{number}", number % 3, number=number)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(archive, run, whole)
    assert process.wait(PATIENCE_S) == 0, process.stderr.read().decode()
    process.stderr.close()
    most = len(list((whole / "case_0").iterdir()))

    rng = np.random.default_rng(0)
    kills = []
    for number in range(MOMENTS):
        study, files = number // 2, int(rng.integers(1, most))
        while_writing = number % 2 == 1
        process, seen = start(archive, run, killed), bytearray()
        if while_writing:  # the files of a study are being written: so many are there
            wait_for(process, lambda files=files: partial_files(killed) >= files)
        else:  # it reads, predicts or measures a study
            line = f"{study + 1} of {STUDIES}".encode()
            wait_for(process, lambda process=process, seen=seen, line=line: begun(process, seen, line))
        os.killpg(process.pid, signal.SIGKILL)
        assert b"Traceback" not in process.communicate()[1]
        kills.append((study, while_writing and files, len(finished(killed))))
        for name in finished(killed):  # what is there is whole
            assert {path.name for path in (killed / name).iterdir()} == {p.name for p in (whole / name).iterdir()}
    print(kills)
    assert len(finished(killed)) < STUDIES
    process = start(archive, run, killed)
    said = process.communicate(timeout=PATIENCE_S)[1].decode()
    assert process.returncode == 0, said
    assert finished(killed) == [f"case_{number}" for number in range(STUDIES)]
    assert not list(killed.rglob(".partial-*"))
    shutil.rmtree(killed / ".predict")
    shutil.rmtree(whole / ".predict")
    expected, found = everything(whole), everything(killed)
    assert list(found) == list(expected)
    for name, one in expected.items():
        assert found[name] == one, name
