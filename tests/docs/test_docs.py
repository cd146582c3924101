"""Everything that the pages name exists: links, anchors, pictures, commands, flags, fields, files, modules."""

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load, schema
from heartseg_jax.errors import UserError
from heartseg_jax.export.registry import EXPORTERS
from heartseg_jax.imaging.masks.palette import IGNORED_RGB
from tests.docs.markdown import anchors, links, main_commands, quoted, read_page, shell_lines, slug

ROOT = Path(__file__).resolve().parents[2]
PATHS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "heartseg_jax").rglob("*.md")),
]
WRITTEN = ("docs/messages.md",)
"""Pages of commands that are wrong on purpose; a test of their own compares them with what is printed."""
PAGES = {path.relative_to(ROOT).as_posix(): read_page(path) for path in PATHS}
FIELDS = dict(load.fields(schema.defaults()))
GROUPS = {field.rpartition(".")[0] for field in FIELDS} - {""}
OTHER_FLAGS = {
    "spacing",
    "upgrade",
    "durations",
    "members",
    "model",
    "mutants",
    "seed",
    "ml",
    "volume",
    "known",
    "part",
    "shape",
    "looks",
    "nets",
    "sides",
    "work",
    "threads",
    "allocator",
    "rounds",
    "seconds",
    "index",
    "rows",
    "labelled",
    "structure",
    "study",
    "steps",
    "calls",
    "run",
}
"""Flags of other programs that the pages name: pip, pytest, benchmarks, TotalSegmentator."""

pages = pytest.mark.parametrize("name", PAGES)
right_pages = pytest.mark.parametrize("name", [name for name in PAGES if name not in WRITTEN])


def where(name, number):
    return f"{name}:{number}"


def is_file(text):
    return text.rpartition(".")[2] in {"csv", "json", "md", "npz", "png", "py"}


@pages
def test_relative_links_and_their_anchors_resolve(name):
    page = PAGES[name]
    for number, target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.path.parent / file).resolve() if file else page.path
        assert path.exists(), f"{where(name, number)}: no {target}"
        assert path.is_relative_to(ROOT), f"{where(name, number)}: {target} leads out of the project"
        if anchor:
            assert anchor in anchors(read_page(path)), f"{where(name, number)}: no heading for #{anchor} in {path.name}"


@right_pages
def test_commands_parse_and_their_configs_load(name):
    for number, words in main_commands(PAGES[name]):
        if "..." in words:
            continue
        if "--help" in words:
            continue
        try:
            _, values = main.parse(
                [re.sub(r"^--config=FILE$", "--config=configs/quickstart.py", word) for word in words]
            )
            if "config" in values and values.config:
                load.config_of(values)
        except UserError as error:
            pytest.fail(f"{where(name, number)}: {error}")


@right_pages
def test_fields_of_the_config_exist(name):
    page = PAGES[name]
    for number, line in [*page.prose, *page.code]:
        for field in re.findall(r"(?<![\w/.])(?:--)?config\.((?:[a-z]\w*\.)*[a-z]\w*)", line):
            assert field in FIELDS or field in GROUPS or field == "json", f"{where(name, number)}: no field {field}"
    for number, text in quoted(page):
        field = text.partition("=")[0]
        if re.fullmatch(r"[a-z_]+(\.[a-z]\w*)+", field) and field.split(".")[0] in GROUPS and not is_file(field):
            assert field in FIELDS or field in GROUPS, f"{where(name, number)}: no field {field}"


@right_pages
def test_flags_exist(name):
    known = set().union(*map(main.flags_of, main.VERBS)) | OTHER_FLAGS | {"help"}
    page = PAGES[name]
    for number, text in [*quoted(page), *shell_lines(page)]:
        for flag in re.findall(r"(?<![\w-])--([a-z]\w*)", text):
            assert flag in known, f"{where(name, number)}: no flag --{flag}"


@right_pages
def test_files_of_the_project_exist(name):
    page = PAGES[name]
    folders = "benchmarks|configs|docs|heartseg_jax|tests"
    for number, text in [*quoted(page), *shell_lines(page)]:
        for path in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]+", text):
            assert (ROOT / path.rstrip(".")).exists(), f"{where(name, number)}: no {path}"


@pages
def test_modules_and_folders_of_the_package_exist(name):
    kinds = r"[\w/]+\.py|[a-z_]\w*(/\w+)*/" if name == "CONTRIBUTING.md" else r"[\w/]+\.py"
    for number, text in quoted(PAGES[name]):
        if re.fullmatch(kinds, text) and "NAME" not in text:
            places = [ROOT / text, ROOT / "heartseg_jax" / text]
            assert any(place.exists() for place in places), f"{where(name, number)}: no {text}"


@pages
def test_examples_in_python_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGES[name].path.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        images, labels = np.zeros((2, 512, 512), np.int16), np.zeros((2, 512, 512), np.uint8)
        exec(block, {"images": images, "labels": labels, "names": ["1", "2"]})


@pages
def test_modules_that_the_pages_name_exist(name):
    for _, dotted in quoted(PAGES[name]):
        if match := re.match(r"heartseg_jax(\.[A-Za-z_]+)+", dotted):
            assert resolves(match[0]), f"{name}: no {dotted}"


def resolves(dotted):
    """Whether a dotted name is a module, or something in one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, thing = dotted.rpartition(".")
        return hasattr(importlib.import_module(module), thing)
    return True


@pages
def test_lines_wrap_and_name_no_machine(name):
    page = PAGES[name]
    for number, line in [*page.prose, *page.code]:
        assert line.startswith("|") or len(line) <= 120, f"{where(name, number)}: {len(line)} characters"
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|mnt|Users)/", line), where(name, number)


def test_every_picture_is_shown_somewhere():
    shown = {Path(target).name for page in PAGES.values() for _, target in links(page)}
    assert {path.name for path in (ROOT / "docs" / "figures").glob("*")} <= shown


def rows(name):
    """The cells of all table rows of a page."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for _, line in PAGES[name].prose if line[:1] == "|"]


def test_the_table_of_colours_is_that_of_the_code():
    stated = {row[0]: row[1:] for row in rows("docs/data.md") if row[0].isdecimal()}
    for structure in HEART.foreground:
        name, mask, figure = stated[str(structure.label)]
        assert name == f"{structure.name} ({structure.short})"
        assert mask.startswith("`#{:02x}{:02x}{:02x}`".format(*structure.mask_rgb))
        assert figure.startswith("`#{:02x}{:02x}{:02x}`".format(*structure.display_rgb))
    assert stated["255"][1].startswith("`#{:02x}{:02x}{:02x}`".format(*IGNORED_RGB))


def test_every_guard_has_its_row():
    guards = {field.removeprefix("guards.") for field, value in FIELDS.items() if value in ("stop", "warn", "off")}
    assert {row[0].strip("`") for row in rows("docs/guards.md")[2:]} == guards & set(schema.defaults().guards)


def test_every_exporter_has_its_row():
    stated = {row[1].strip("`") for row in rows("docs/predict.md") if len(row) == 4}
    assert set(EXPORTERS) <= stated, "docs/predict.md has no row for an exporter"


def literals():
    """Every string that the package's code holds as a whole, and the beginnings of those it completes."""
    for path in (ROOT / "heartseg_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_checks_that_the_pages_name_exist():
    named = [row[0] for name in ("docs/data.md", "docs/reliability.md") for row in rows(name) if len(row) == 2]
    checks = {check for cell in named for check in re.findall(r"`([a-z_]+)`", cell)}
    known = set(literals())
    assert {"gaps", "leak"} <= checks
    assert not {check for check in checks - known if f"{check.split('_')[0]}_" not in known}


def test_every_check_of_images_is_explained():
    """The names that `check --json` gives are for programs: each is in a page."""
    named = {name for page in ("docs/data.md", "docs/reliability.md") for _, name in quoted(PAGES[page])}
    found = set()
    for path in (ROOT / "heartseg_jax" / "imaging").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                found |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()
    assert not found - named


def test_anchors_are_those_of_github():
    assert slug("DICOM studies (`dicom`)") == "dicom-studies-dicom"
    assert slug("Is it fit? The audit") == "is-it-fit-the-audit"
    assert slug("The original's black mask, made again") == "the-originals-black-mask-made-again"
    assert slug("[Keep](https://x.org) *a* log_book – 1.1") == "keep-a-log_book--11"
