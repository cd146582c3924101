"""Published volumes of the chambers of healthy adults, as limits that any heart phase and both sexes stay within.

A volume outside is unusual, not wrong; one inside says nothing about health. The aorta, the pulmonary artery and the
venae cavae have no range: what of them is in the scan decides their volume.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCES = {
    "Fuchs 2016": "Fuchs A et al., Eur Heart J Cardiovasc Imaging 2016;17(9):1009-1017 (CT, 569 healthy adults)",
    "Kang 2017": "Kang EJ et al., Korean J Radiol 2017;18(4):664-673, doi 10.3348/kjr.2017.18.4.664 (CT, 172 adults)",
    "Hudsmith 2005": (
        "Hudsmith LE et al., J Cardiovasc Magn Reson 2005;7:775-782, doi 10.1080/10976640500295516 (MR, 108 healthy "
        "adults)"
    ),
    "Järvinen 1994": (
        "Järvinen V et al., Radiology 1994;191(1):137-142, doi 10.1148/radiology.191.1.8134560 (MR, 8 healthy adults)"
    ),
    "Maceira 2013": (
        "Maceira AM et al., J Cardiovasc Magn Reson 2013;15:29, doi 10.1186/1532-429X-15-29 (body sizes of 120 healthy "
        "adults)"
    ),
    "Henriksen 2015": (
        "Henriksen E et al., Int J Cardiovasc Imaging 2015;31(1):57-64, doi 10.1007/s10554-014-0533-6 "
        "(echocardiography, 168 adults)"
    ),
    "Keller 2021": (
        "Keller K et al., Right atrium size in the general population, Sci Rep 2021 (echocardiography, 1942 healthy "
        "adults)"
    ),
}
"""References by author and year."""

SMALLEST_M2, LARGEST_M2 = 1.83 - 2 * 0.18, 1.83 + 2 * 0.18
"""Body surface, mean and 2 sd on either side: Maceira 2013."""
SMALLEST_M = 1.71 - 2 * 0.09
"""Height, likewise."""


class NormalRange(NamedTuple):
    """Limits in mL, and the names (of `SOURCES`) of who published them."""

    low_ml: float
    high_ml: float
    sources: tuple[str, ...]


RANGES: dict[str, NormalRange] = {
    # The smallest: end systole, women, mean - 2 sd. The largest: end diastole, men, the higher of mean + 2 sd
    # (Hudsmith) and the 97.5th percentile per m2 (Fuchs).
    "left_ventricle": NormalRange(
        33.7 - 2 * 12.2,
        max(160 + 2 * 29, 97 * LARGEST_M2),
        ("Kang 2017", "Hudsmith 2005", "Fuchs 2016", "Maceira 2013"),
    ),
    "right_ventricle": NormalRange(
        56 - 2 * 18,
        max(190 + 2 * 33, 120 * LARGEST_M2),
        ("Hudsmith 2005", "Fuchs 2016", "Maceira 2013"),
    ),
    # The smallest: by echocardiography at end systole, which measures atria smaller than CT does and so leaves room for
    # emptier phases (Henriksen: 15 mL/m2; Keller: 5th percentile of women, 12.7 mL per m of height). The largest: end
    # systole, the higher of mean + 2 sd (Hudsmith: men; Järvinen: 77 +- 11 mL/m2) and Fuchs, as above.
    "left_atrium": NormalRange(
        15 * SMALLEST_M2,
        max(103 + 2 * 30, 60 * LARGEST_M2),
        ("Henriksen 2015", "Hudsmith 2005", "Fuchs 2016", "Maceira 2013"),
    ),
    "right_atrium": NormalRange(
        12.7 * SMALLEST_M,
        max((77 + 2 * 11) * LARGEST_M2, 85 * LARGEST_M2),
        ("Keller 2021", "Järvinen 1994", "Fuchs 2016", "Maceira 2013"),
    ),
}
"""By structure of the heart's label set."""


def normal_range(name: str) -> tuple[float, float] | None:
    """Return the limits of a structure in mL, rounded; None where there are none."""
    found = RANGES.get(name)
    return (float(round(found.low_ml)), float(round(found.high_ml))) if found else None


def range_sources(name: str) -> list[str]:
    """Return the references for a structure's limits."""
    found = RANGES.get(name)
    return [SOURCES[source] for source in found.sources] if found else []
