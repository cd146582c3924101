"""The floors of the house, read from the imports: who may know what. See CONTRIBUTING."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "heartseg_jax"
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "chex"}
FILES = {"os", "pathlib", "io", "shutil", "tempfile", "glob", "json", "h5py", "pydicom", "nibabel", "PIL", "orbax"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
MODULES |= {"main": ROOT / "main.py"} if (ROOT / "main.py").exists() else {}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def imports(name, everywhere=True):
    """Full names that a module imports: everywhere in it, or only where importing it runs them."""
    found = set()
    todo = list(TREES[name].body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            # `from package import module` imports the module; `from module import thing` does not.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif everywhere or not is_deferred(node):
            todo.extend(ast.iter_child_nodes(node))
    return found


def is_deferred(node):
    """Whether a node's imports do not run when the module is imported."""
    only_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return only_for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def packages(name, everywhere=True):
    return {full.split(".")[0] for full in imports(name, everywhere)}


def own(name, everywhere):
    return {full for full in imports(name, everywhere) if full in MODULES and full != name}


def below(*prefixes):
    return [name for name in MODULES for prefix in prefixes if name == prefix or name.startswith(f"{prefix}.")]


def reachable(name):
    """All modules of the package that importing one loads, packages' own files included."""
    seen, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        todo += own(current, everywhere=False) | {current.rpartition(".")[0]}
    return seen


NO_JAX = [
    f"{PACKAGE}.{part}" for part in ("anatomy", "errors", "findings", "privacy", "config", "workdir", "imaging")
]  # fmt: skip
NO_FILES = [
    f"{PACKAGE}.{part}"
    for part in (
        "models",
        "preprocess.augment",
        "training.losses",
        "training.counts",
        "training.phases",
        "training.steps",
        "training.guards",
    )
]
ALONE = {
    "orbax": [f"{PACKAGE}.training.checkpoints"],
    "tensorstore": [f"{PACKAGE}.training.saved"],
    "matplotlib": [f"{PACKAGE}.figures"],
    "tqdm": [f"{PACKAGE}.progress"],
    "grain": [f"{PACKAGE}.data.pipeline"],
    "pydicom": [f"{PACKAGE}.imaging.dicom", f"{PACKAGE}.export"],
    "highdicom": [f"{PACKAGE}.export"],
    "nrrd": [f"{PACKAGE}.imaging.nrrd"],
    "trimesh": [f"{PACKAGE}.export"],
    "dicomweb_client": [f"{PACKAGE}.export"],
    "requests": [f"{PACKAGE}.export"],
    "nibabel": [f"{PACKAGE}.imaging.nifti"],
    "h5py": [f"{PACKAGE}.interop.keras_file"],
}


def test_the_package_is_found():
    assert f"{PACKAGE}.models.unet" in MODULES
    assert "jax" in packages(f"{PACKAGE}.models.unet")
    assert f"{PACKAGE}.anatomy" in own(f"{PACKAGE}.training.losses", everywhere=True)


@pytest.mark.parametrize("name", below(*NO_JAX))
def test_the_ground_floor_knows_no_jax(name):
    loaded = {module: packages(module) & JAX for module in reachable(name)}
    assert not any(loaded.values()), f"{name} brings in {loaded}"


@pytest.mark.parametrize("name", below(*NO_FILES))
def test_models_and_pure_training_know_no_files(name):
    assert not packages(name) & FILES
    store = {full for full in imports(name) if full.startswith((f"{PACKAGE}.data", f"{PACKAGE}.workdir"))}
    assert all(full.startswith(f"{PACKAGE}.preprocess.augment") for full in store)
    calls = {
        node.func.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in calls


@pytest.mark.parametrize("library", ALONE)
def test_a_library_lives_in_its_room_alone(library):
    users = {name for name in MODULES if library in packages(name)}
    assert users <= set(below(*ALONE[library]))


FLOORS = (
    (
        "allocator",
        "anatomy",
        "compilation_cache",
        "distributed",
        "errors",
        "files",
        "interrupts",
        "machine",
        "progress",
        "threads",
    ),
    ("config", "findings", "privacy", "workdir"),
    ("imaging",),
    ("preprocess",),
    ("data",),
    ("models",),
    ("native",),
    ("interop",),
    ("preprocess.device", "preprocess.augment"),
    ("inference",),
    ("figures",),
    ("evaluation",),
    ("measure",),
    ("export",),
    ("training",),
    ("lab", "benchmarking"),
    ("verbs",),
)
"""Each floor may import from those before it. The most specific entry counts."""


def floor_of(name):
    """The floor of a module, from 1; 0 for the package itself, the highest for main."""
    if name == "main":
        return len(FLOORS) + 1
    inner = name.removeprefix(PACKAGE).lstrip(".")
    found = [
        (len(room), number)
        for number, rooms in enumerate(FLOORS, 1)
        for room in rooms
        if inner == room or inner.startswith(f"{room}.")
    ]
    assert found or not inner, f"{name} has no floor in FLOORS"
    return max(found)[1] if inner else 0


@pytest.mark.parametrize("name", MODULES)
def test_no_import_goes_up(name):
    assert not {other for other in own(name, everywhere=True) if floor_of(other) > floor_of(name)}


def test_the_training_loop_loads_no_reader_of_medical_files():
    """A fresh process imports the loop: at most 70 modules of the package, none of the readers."""
    code = f"import {PACKAGE}.training.train, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert not {"pydicom", "nibabel", "PIL", "highdicom"} & set(loaded)
    assert len([name for name in loaded if name.split(".")[0] == PACKAGE]) <= 70


def test_no_module_is_called_utils():
    assert not [name for name in MODULES if name.split(".")[-1] in {"utils", "util", "helpers", "misc", "common"}]


def test_imports_have_no_cycles():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(own(name, everywhere=True)):
            visit(other)
        path.pop()
        done.add(name)

    for name in MODULES:
        visit(name)


@pytest.mark.parametrize("name", MODULES)
def test_rooms_are_small(name):
    limit = 250 if name == f"{PACKAGE}.training.train" else 320
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= limit, f"{name} has {lines} lines, {limit} at most"


def test_importing_the_ground_floor_leaves_jax_out():
    names = below(*NO_JAX)
    code = f"import sys\nimport {', '.join(names)}\nprint(sorted({JAX!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


NO_DEVICE = f"import {PACKAGE}.machine as m; m.has_only_cpu = lambda: True"
HEAVY = {"flax", "optax", "orbax", "grain", "scipy", "h5py", "matplotlib", "pydicom", "nibabel", "skimage"}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import main; main.main(['--help'])", set()),
        ("import main; main.main(['train', '--help'])", set()),
        # With an accelerator JAX says which; that there is none is known without it.
        (f"{NO_DEVICE}; import main; assert main.main(['check', '--config=configs/quickstart.py']) == 0", set()),
        # A study is read by pydicom, and its patient looked for by scipy.
        ("import main; assert main.main(['check', '--input=missing']) == 2", {"pydicom", "scipy"}),
        (f"import {PACKAGE}.verbs.check_dataset", {"scipy"}),
        (f"import main; assert main.main(['inspect', '--workdir={PACKAGE}/weights/heart_v1']) == 0", set()),
        # What `inspect` reads a run with; tests/training/test_saved.py reads one so.
        (f"import {PACKAGE}.verbs.inspect, {PACKAGE}.training.networks", set()),
    ],
    ids=["help", "verb's help", "check", "of a study", "of a dataset", "inspect of a package", "inspect"],
)
def test_what_answers_at_once_loads_nothing_heavy(code, allowed):
    """Each of these libraries takes between a fifth of a second and a second to import."""
    code += f"; import sys; print(sorted({HEAVY | {'jax'}!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == str(sorted(allowed))
