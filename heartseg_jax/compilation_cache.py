"""JAX's persistent compilation cache: on by default, in the user's cache folder, bounded; a run never fails for it.

It holds compiled programs: no image, no label, no weight, no name. JAX runs what it finds there, so the folder is the
user's own (mode 0700).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from heartseg_jax.progress import say

OFF = "off"
SETTINGS = {
    "jax_compilation_cache_max_size": 2**29,  # bytes; beyond it JAX removes the programs unused for longest
    "jax_persistent_cache_min_compile_time_secs": 0.1,  # what compiles faster is not kept
}
"""JAX's own settings for a folder of ours; the environment variables of the same names go before them."""
UNUSED_DAYS = 60.0
"""After so many days the programs of another machine (or of this one before an upgrade) are removed."""
LOCK_S = 10.0
USED = ".used"


def open_cache(asked: str | None = None) -> Path | None:
    """Turn the cache on, before anything is compiled; return its folder, None where programs are not kept.

    Args:
      asked: the flag --compilation_cache: a folder, 'off', or None. Then a setting of JAX's own, such as the variable
        JAX_COMPILATION_CACHE_DIR, is left as it is; without one the programs are kept in `default_folder()`.
    """
    import jax

    if asked == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    enabled, own = (
        getattr(jax.config, f"jax_{name}") for name in ("enable_compilation_cache", "compilation_cache_dir")
    )
    if asked is None and not enabled:
        return None
    if asked is None and own:
        return Path(own)
    try:
        folder = (default_folder() if asked is None else Path(asked).expanduser().absolute()) / machine()
        _prepare(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        reason = getattr(error, "strerror", None) or str(error)
        say(f"compiled programs are not kept ({reason}); --compilation_cache=DIR names another folder")
        return None
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    return folder


def default_folder() -> Path:
    """Return `heartseg_jax/` in the user's cache folder: XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative XDG_CACHE_HOME is invalid and to be ignored (XDG Base Directory Specification).
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "heartseg_jax"


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the architecture and a digest of the processor's model and instructions.

    A program for a CPU contains instructions that another CPU may lack; machines that share a home folder each have
    their own folder of programs. JAX's own key does not tell them apart.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    known = {line for line in lines if line.lower().startswith(("flags", "features", "model name"))}
    return f"{platform.machine()}-{hashlib.sha256(os.linesep.join(sorted(known)).encode()).hexdigest()[:10]}"


def _prepare(folder: Path) -> None:
    """Make the folder; remove what a killed process left half written, and what other machines have long not used.

    Raises:
      OSError: the folder cannot be written to, or locked.
    """
    from filelock import FileLock  # JAX's bound on the size needs it

    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / ".lockfile", timeout=LOCK_S):  # JAX's own lock: nobody is writing now
        (folder / USED).touch()
        for entry in folder.glob("*-cache"):
            # JAX writes a program first and its time of use after it, and never replaces a program.
            if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").is_file():
                entry.unlink(missing_ok=True)
    for other in folder.parent.glob(f"*/{USED}"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > UNUSED_DAYS * 86_400:
                shutil.rmtree(other.parent)


class Requests:
    """The programs that this thread needed: how many, and how many of them the cache had."""

    def __init__(self) -> None:
        self.made = 0
        self.found = 0

    @property
    def all_found(self) -> bool:
        """Whether nothing had to be compiled."""
        return 0 < self.made == self.found


@contextlib.contextmanager
def requests() -> Iterator[Requests]:
    """Count the programs that this thread compiles or finds in the cache within the block."""
    from jax import monitoring

    counted, own = Requests(), threading.get_ident()

    def find(event: str, **_: object) -> None:
        counted.found += threading.get_ident() == own and event == "/jax/compilation_cache/cache_hits"

    def make(event: str, duration_secs: float, **_: object) -> None:
        counted.made += threading.get_ident() == own and event == "/jax/core/compile/backend_compile_duration"

    monitoring.register_event_listener(find)
    monitoring.register_event_duration_secs_listener(make)
    try:
        yield counted
    finally:
        monitoring.unregister_event_listener(find)
        monitoring.unregister_event_duration_listener(make)
