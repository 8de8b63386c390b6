"""How the package is built: floors of packages, no circle, and tools at the rim. Read from the imports themselves."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

SOURCES = ROOT / "src" / "lenet"
FLOORS = (
    ("runtime",), ("arithmetic", "params"), ("digits", "kernels"), ("networks",), ("runs",), ("training",),
    ("evaluation",), ("inference",), ("report",), ("tracking",), ("cluster",), ("pipeline",),
    ("cards", "experiments", "sweep", "reproduce"), ("canvas", "registry"), ("cli",),
)  # fmt: skip
"""From below; a package imports from its own floor only itself."""
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}
MODULES = {
    ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES.rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports, wherever in it; of `from a import b` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


IMPORTS = {name: imported(path) for name, path in MODULES.items()}
EDGES = {
    name: {other.removeprefix("lenet.") for other in found if other.removeprefix("lenet.") in MODULES} - {name}
    for name, found in IMPORTS.items()
}


def package(module: str) -> str:
    return module.partition(".")[0]


def test_the_graph_sees_modules_of_packages() -> None:
    assert "networks.fast" in EDGES["training.fast_module"]
    assert "tracking.live" in EDGES["tracking.logger"]
    assert {package(name) for name in MODULES} - {"__init__", "__main__"} == {*FLOOR}
    assert {path.parent for path in SOURCES.glob("*.py")} == {SOURCES}
    assert {path.name for path in SOURCES.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_import_leads_to_a_higher_floor() -> None:
    up = [
        f"{name} → {other}"
        for name, found in EDGES.items()
        for other in found
        if package(name) in FLOOR and package(other) in FLOOR and package(name) != package(other)
        if FLOOR[package(other)] >= FLOOR[package(name)]
    ]
    assert up == []


def test_no_imports_form_a_circle() -> None:
    """Of modules; a package's own ``__init__`` that gathers its modules is no part of one."""
    TopologicalSorter({name: found - {package(name)} for name, found in EDGES.items()}).prepare()


def test_tools_stay_at_the_rim() -> None:
    def users(tool: str) -> set[str]:
        return {name for name, found in IMPORTS.items() if any(one.partition(".")[0] == tool for one in found)}

    assert {package(name) for name in users("mlflow")} == {"tracking"}
    assert {package(name) for name in users("optuna")} == {"sweep"}
    assert {package(name) for name in users("distributed") | users("dask")} == {"cluster"}
    lightning = {name for name in users("pytorch_lightning") if package(name) != "training"}
    assert lightning == {"digits.datamodule", "tracking.logger"}
    assert not users("yaml") | users("pickle") | users("torchvision")
    assert not {name for name in users("torch") if package(name) in {"params", "runtime", "cli"}}
