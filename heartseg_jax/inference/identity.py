"""Which model made a prediction. Without JAX, for those who only read or name a model."""

from __future__ import annotations

from typing import NamedTuple


class ModelIdentity(NamedTuple):
    """Which model made a prediction.

    Attributes:
      run: its run's folder; a path, so never written into a file that leaves the machine.
      step: of its checkpoint.
      checkpoint_sha256: digest of the checkpoint's files; empty where it was never written.
      config_sha256: digest of the run's config.
      package, version, package_sha256: name, version and digest of the package that it was read from, or empty.
    """

    run: str
    step: int
    checkpoint_sha256: str = ""
    config_sha256: str = ""
    package: str = ""
    version: str = ""
    package_sha256: str = ""

    @property
    def digests(self) -> dict[str, str | int]:
        """What names the model in files that leave the machine; no path."""
        own: dict[str, str | int] = {
            "checkpoint_sha256": self.checkpoint_sha256,
            "config_sha256": self.config_sha256,
            "step": self.step,
        }
        packed: dict[str, str | int] = {
            "package": self.package,
            "version": self.version,
            "package_sha256": self.package_sha256,
        }
        return own | packed if self.package_sha256 else own
