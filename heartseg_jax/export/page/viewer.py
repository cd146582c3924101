"""NiiVue, which draws the review page: its code and its licence, out of the installed package `ipyniivue`."""

from __future__ import annotations

import functools
import importlib.util
import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from heartseg_jax.errors import UserError

PACKAGE = "ipyniivue"
INSTALL = 'pip install "ipyniivue>=2.4.4,<3"'
MODULE = re.compile(r'"([^"]*export%7B[^"]*%2CNiivue%2C[^"]*)"')
"""ipyniivue's widget holds NiiVue's own module as a URI-encoded string, which NiiVue puts into pages that it saves."""
EXPORTS = re.compile(r"export\{([^{}]*)\};?\s*$")
RENAMED = re.compile(r"([\w$]+) as ([\w$]+)")


class Viewer(NamedTuple):
    """NiiVue as a classic script that defines `niivue`, an object of its exports; the text of its licence."""

    script: str
    licence: str
    version: str


@functools.cache
def viewer() -> Viewer:
    """Return NiiVue as it is installed. The package itself is not imported: it would bring in Jupyter's.

    Raises:
      UserError: ipyniivue is not installed, or its files are not those that are known.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"review.html is drawn by NiiVue, and {PACKAGE} is not installed; {INSTALL}")
    version = metadata.version(PACKAGE)
    widget = Path(spec.submodule_search_locations[0]) / "static" / "widget.js"
    licence = metadata.distribution(PACKAGE).read_text("licenses/LICENSE")
    found = MODULE.search(widget.read_text(encoding="utf-8")) if widget.is_file() else None
    code = unquote(found[1]) if found else ""
    exports = EXPORTS.search(code)
    if exports is None or licence is None:
        raise UserError(f"NiiVue was not found in {PACKAGE} {version}, which review.html is drawn by; {INSTALL}")
    names = RENAMED.sub(r"\2:\1", exports[1])
    # In a function of its own, so that the thousands of names in it stay inside.
    script = f"const niivue=(()=>{{{code[: exports.start()]}\nreturn {{{names}}};}})();"
    return Viewer(in_script(script), licence, version)


def in_script(code: str) -> str:
    """Return JavaScript as it may stand in a page's script element: no string in it ends or comments the element."""
    return re.sub(r"<(?=/script|script|!--)", r"\\x3C", code, flags=re.IGNORECASE)
