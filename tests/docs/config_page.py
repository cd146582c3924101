"""docs/config.md, written from the schema: `python -m tests.docs.config_page > docs/config.md`."""

from __future__ import annotations

from itertools import groupby

from heartseg_jax.config.load import is_resumable
from heartseg_jax.config.schema import TABLE, Field

INTRODUCTION = """\
# Configuration

Every field of a config, with its default and the values that are accepted. A field is changed on the command line:

```
python main.py --config=configs/quickstart.py --config.train.epochs=8 --config.data.window_hu=-100,500
```

`--config=FILE:VARIANT` selects a variant of a config file, such as `configs/scratch.py:small`. `python main.py check
--config=FILE` prints the resolved config with the size, memory and estimated time of the run, without training.

A config of your own is a Python file with `get_config()`. It starts from the defaults and changes what it must:

```python
from heartseg_jax.config import schema


def get_config(variant=""):
    config = schema.defaults()
    config.data.size = 256
    return config
```

Fields marked `*` may change when a run is resumed; a change of any other field needs another `--workdir`. This page is
written by `python -m tests.docs.config_page` from `heartseg_jax/config/schema.py`.
"""


def page() -> str:
    """Return the page as Markdown, one table per group of fields."""
    parts = [INTRODUCTION]
    for group, fields in groupby(TABLE, key=lambda field: field.name.rpartition(".")[0]):
        lines = [f"## {group or 'seed'}", "", "| field | default | accepted | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([*lines, *map(_row, fields), ""]))
    return "\n".join(parts)


def _row(field: Field) -> str:
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
    kind = {bool: "True, False", str: "text", tuple: "words, with commas"}.get(type(field.default), "")
    accepted = field.range or kind or "any number"
    if isinstance(field.default, tuple) and field.default:
        accepted = f"{len(field.default)} numbers, each {field.range}"
    accepted += f" ({field.unit})" if field.unit else ""
    name = f"`{field.name}`" + ("*" if is_resumable(field.name) else "")
    return f"| {name} | {f'`{default}`' if default else 'empty'} | {accepted} | {field.meaning} |"


if __name__ == "__main__":
    print(page(), end="")
