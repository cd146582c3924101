"""What `pip install .` installs: dependencies declared once, every package, the weights; and that it runs elsewhere."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = [
    line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.strip() and not line.startswith("#")
]


def test_dependencies_are_declared_once():
    assert PROJECT["project"]["dynamic"] == ["dependencies"]
    assert "dependencies" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": "requirements.txt"}
    assert (ROOT / "requirements-dev.txt").read_text().splitlines()[0] == "-r requirements.txt"
    assert all(re.match(r"[\w-]+>=\d", line) for line in REQUIREMENTS)


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "heartseg_jax").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def normal(requirement):
    """The package and its limits, in any order and spelling."""
    name, *limits = re.split(r"(?=[<>=])|,", requirement.replace(" ", ""))
    return name.replace("_", "-").lower(), frozenset("".join(limits).replace("<", " <").replace(">", " >").split())


@pytest.mark.slow
def test_a_wheel_has_all_and_works_in_another_folder(tmp_path):
    source = tmp_path / "source"  # a build leaves folders beside what it builds
    shutil.copytree(ROOT / "heartseg_jax", source / "heartseg_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("heartseg_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        required = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
        archive.extractall(tmp_path / "site")
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "heartseg_jax").rglob("*") if path.is_file()}
    assert {name for name in own if "__pycache__" not in name} <= names
    assert not [name for name in names if name.startswith(("tests", "configs", "benchmarks"))]
    assert {normal(line) for line in required} == {normal(line) for line in REQUIREMENTS}
    code = (
        "import heartseg_jax; from heartseg_jax.config import load, schema; from heartseg_jax.interop.encoder import "
        "SHIPPED; print(heartseg_jax.__file__, schema.defaults().data.size, all(p.is_file() for p in SHIPPED.values()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(tmp_path / "site/heartseg_jax/__init__.py"), "512", "True"]
