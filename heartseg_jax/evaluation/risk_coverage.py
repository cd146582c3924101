"""Whether a confidence finds the failures: the risk-coverage curve and the area under it. Pure numpy.

The confidences themselves come from elsewhere; what a case is (a structure in a patient, or in a slice) as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RiskCoverage(NamedTuple):
    """How well a confidence orders cases by their risk.

    Attributes:
      aurc: area under the risk-coverage curve; lower is better.
      random: what an order by chance gives on average: the mean risk.
      oracle: what ordering by the risk itself gives, the least there is.
    """

    aurc: float
    random: float
    oracle: float

    @property
    def gain(self) -> float | None:
        """Share of the way from chance (0) to the oracle (1); below 0 is worse than chance. None without such a way."""
        way = self.random - self.oracle
        return (self.random - self.aurc) / way if way > 1e-12 else None


def risk_coverage_curve(risks: np.ndarray, confidences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (coverage, risk), each `[n]`: the share of cases that are kept, and their mean risk.

    Cases are taken most confident first (El-Yaniv and Wiener, JMLR 2010; 11:1605-1641). Those of equal confidence come
    in random order, of which this is the mean: each has the mean risk of its equals.

    Raises:
      ValueError: the arrays are not one-dimensional, of one length above 0 and finite.
    """
    risks, confidences = np.asarray(risks, np.float64), np.asarray(confidences, np.float64)
    if risks.ndim != 1 or risks.shape != confidences.shape or not len(risks):
        raise ValueError(f"risks of shape {risks.shape} and confidences of shape {confidences.shape}")
    if not (np.isfinite(risks).all() and np.isfinite(confidences).all()):
        raise ValueError("a risk or a confidence is not finite; give a case without confidence the lowest one")
    _, group, sizes = np.unique(-confidences, return_inverse=True, return_counts=True)
    shared = np.bincount(group, weights=risks) / sizes
    taken = np.arange(1, len(risks) + 1)
    return taken / len(risks), np.cumsum(np.repeat(shared, sizes)) / taken


def risk_coverage(risks: np.ndarray, confidences: np.ndarray) -> RiskCoverage:
    """Return the area under the risk-coverage curve beside those of chance and of the oracle.

    The area is the mean of the curve over its n coverages (Geifman, Uziel and El-Yaniv, ICLR 2019). `risks` may be any
    loss, such as 1 - Dice, for `[n]` cases; `confidences` are comparable among them. Raises ValueError as
    `risk_coverage_curve`.
    """
    area = float(risk_coverage_curve(risks, confidences)[1].mean())
    best = float(risk_coverage_curve(risks, -np.asarray(risks, np.float64))[1].mean())
    return RiskCoverage(area, float(np.mean(risks)), best)


def risk_at(coverage: float, risks: np.ndarray, confidences: np.ndarray) -> float:
    """Return the mean risk of the most confident cases that make up at least the share `coverage` of all."""
    kept, risk = risk_coverage_curve(risks, confidences)
    return float(risk[np.flatnonzero(kept >= min(coverage, 1.0) - 1e-9)[0]])
