"""The table for the terminal."""

from dataclasses import replace

from heartseg_jax.measure.report import WIDTH, table
from heartseg_jax.measure.volumes import measure
from tests.measure.predictions import of_phantom


def test_every_structure_has_its_line_with_aligned_columns(phantom):
    measurements = measure(of_phantom(phantom))
    lines = table(measurements).splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    mL = lines[0].index("mL") + 2
    status = lines[0].index("status")
    for row in measurements.structures:
        (line,) = [line for line in lines if line.startswith(row.name)]
        assert line[:mL].split()[-1] == f"{row.volume_ml:.1f}"
        assert line[status:].startswith(row.status)


def test_refusals_and_warnings_are_said_whole(phantom):
    measurements = measure(of_phantom(phantom, labels=0 * phantom.labels))
    text = " ".join(table(measurements).split())
    assert text.count(measurements.structures[0].reason) == 1, "all share it"
    one = measurements.structures[0]
    mixed = replace(measurements, structures=(replace(one, reason="its own"), *measurements.structures[1:]))
    assert all(row.reason in " ".join(table(mixed).split()) for row in mixed.structures)
    assert all(f"warning: {warning}" in text for warning in measurements.warnings)
    assert measurements.warnings
