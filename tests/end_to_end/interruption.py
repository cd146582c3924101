"""A training that is interrupted at a chosen step."""

import pytest

import main
from heartseg_jax.training import metrics_log


def train_until_interrupted(words, step):
    """Run the command; Ctrl-C comes as `step` is recorded, and the exit status says so."""
    real = metrics_log.MetricsLog.record

    def record(self, number, current):
        if number == step:
            raise KeyboardInterrupt
        real(self, number, current)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_log.MetricsLog, "record", record)
        assert main.main(words) == 130
