"""Keys that replace patients' names, and the salt and the table that stay with the user. No images here."""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from heartseg_jax.errors import UserError
from heartseg_jax.files import writing

KEY_DIGITS = 12
"""Hexadecimal digits of a key: among 100,000 patients two share one with a chance of 2e-5."""
SALT_BYTES = 32


def config_folder() -> Path:
    """Return the user's own folder for this project's salt and tables: `$XDG_CONFIG_HOME/heartseg_jax`."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    base = Path(home) if os.path.isabs(home) else Path.home() / ".config"
    return base / "heartseg_jax"


def read_salt() -> bytes:
    """Return the user's salt; on the first call 32 random bytes are drawn and kept, readable by the user only.

    Raises:
      UserError: it cannot be read or written, or is no salt: with another one all patients would get other keys.
    """
    path = config_folder() / "salt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            half = path.with_name(f".salt.{os.getpid()}")
            with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(SALT_BYTES) + "\n")
            try:
                os.link(half, path)  # Unlike a rename this fails where another process was faster.
            except FileExistsError:
                pass
            finally:
                half.unlink()
        salt = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise UserError(
            f"the salt of patients' keys at {path} cannot be read or written ({error.strerror}); "
            "set XDG_CONFIG_HOME to a folder of your own"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore it, or remove it, and all patients get other keys") from error
    if len(salt) != SALT_BYTES:
        raise UserError(f"{path} is damaged: restore it, or remove it, and all patients get other keys")
    return salt


def patient_key(secret: str, salt: bytes) -> str:
    """Return the key that replaces a patient: `p` and twelve hexadecimal digits of HMAC-SHA-256.

    `secret` identifies the patient; composed and decomposed letters count as the same. Without the salt, names and
    numbers cannot be tried out.
    """
    # File names need not be UTF-8.
    content = unicodedata.normalize("NFC", secret).encode("utf-8", "surrogateescape")
    return "p" + hmac.new(salt, content, hashlib.sha256).hexdigest()[:KEY_DIGITS]


def keep_table(name: str, rows: Iterable[tuple[str, str, str]]) -> Path:
    """Write (key, patient, source) to `tables/NAME.csv` in the user's own folder, readable by the user only.

    Returns its path; rows of an older table of that name stay, so that no key is ever without its patient.

    Raises:
      UserError: the table cannot be read or written.
    """
    path = config_folder() / "tables" / f"{name}.csv"
    kept: dict[tuple[str, ...], None] = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = {tuple(row): None for row in list(csv.reader(file))[1:]}
        kept |= {tuple(row): None for row in rows}
        with writing(path) as partial:
            target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(target, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
                csv.writer(file).writerows([("key", "patient", "source"), *kept])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"the table {path} cannot be read or written ({error}); move it away and run again") from error
    return path
