"""A bounded part of the fuzz of damaged studies (`benchmarks/fuzz_dicom.py` runs it in full)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import fuzz_dicom


def test_damaged_studies_end_in_a_volume_or_a_refusal(shared):
    counts, bad = fuzz_dicom.run(shared / "data" / "dicom", range(300), seed=0)
    assert bad == []
    assert sum(counts.values()) == 300
    # Mutants that are all refused, or all read, would test nothing.
    assert counts["read"] > 5
    assert sum(count for said, count in counts.items() if said.startswith("refused")) > 100
