"""The floors hold: who may import whom, walked with `ast`; nothing loads pickles or runs a stranger's code; importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {  # folder -> folders of ours it may import
    "hooks": {"hooks"},
    "probes": {"hooks", "probes"},
    "experiments": {"hooks", "probes", "experiments", "checkpoints"},
    "viz": {"viz"},
}
READS_VIZ = {
    "experiments/commands/seeing.py",
    "experiments/telling.py",
    "experiments/view_rows.py",
    "experiments/view_speed.py",
}
HEAVY = {"torch", "transformers", "safetensors", "nnsight", "transformer_lens"}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPICKLING = {("torch", "load"), ("torch", "save"), ("pd", "read_pickle"), ("pandas", "read_pickle")}
FILES = sorted(path for folder in FLOORS for path in (ROOT / folder).rglob("*.py"))


def imports(source: str, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Dotted names that `source`, the module or package at the path `module` inside thoughtlens, imports; relative ones resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ("thoughtlens", *module[: len(module) - node.level]) if node.level else ()
            stem = (*base, *(node.module or "").split(".")) if node.module else base
            yield from ((*stem, alias.name) for alias in node.names)


def violations(name: str, source: str) -> list[str]:
    """What a file may not do, given its path from the root."""
    floor, found = name.split("/")[0], []
    allowed = FLOORS[floor] | ({"viz"} if name in READS_VIZ else set())
    for target in imports(source, (*name.removesuffix(".py").split("/"),)):
        if target[0] == "thoughtlens" and (len(target) < 2 or target[1] not in allowed):
            found.append(f"imports {'.'.join(target)}")
        if floor == "viz" and target[0] in HEAVY:
            found.append(f"imports {target[0]}")
        if target[0] in PICKLERS:
            found.append(f"imports {target[0]}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in UNPICKLING:
            found.append(f"uses {node.value.id}.{node.attr}")
        if (
            isinstance(node, ast.keyword)
            and node.arg in ("trust_remote_code", "allow_pickle")
            and isinstance(node.value, ast.Constant)
            and node.value.value
        ):
            found.append(f"sets {node.arg}")
        if isinstance(node, ast.arguments):
            named = [*zip(reversed(node.args), reversed(node.defaults), strict=False), *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            if any(arg.arg == "trust_remote_code" and isinstance(value, ast.Constant) and value.value for arg, value in named):
                found.append("trusts remote code by default")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("import_module", "__import__"):
                found.append(f"calls {called}, which this walk cannot see through")
    return found


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down_the_floors(path: Path) -> None:
    assert violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) == []


def test_every_folder_of_code_is_on_a_floor() -> None:
    inside = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert inside == set(FLOORS) and len(FILES) > 40


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("hooks/a.py", "from ..probes.fit import fit_probes", ["imports thoughtlens.probes.fit.fit_probes"]),
        ("hooks/b/a.py", "from ...experiments import run", ["imports thoughtlens.experiments.run"]),
        ("hooks/a.py", "from .. import load", ["imports thoughtlens.load"]),
        ("hooks/a.py", "from .model import load\nfrom . import sites", []),
        ("probes/a.py", "def f():\n    from thoughtlens.viz import report", ["imports thoughtlens.viz.report"]),
        ("experiments/study.py", "from ..viz.report import report", ["imports thoughtlens.viz.report.report"]),
        ("experiments/telling.py", "from ..viz.report import report", []),
        ("experiments/organism/__init__.py", "from ...hooks.model import load", []),
        ("viz/a.py", "import torch.nn", ["imports torch"]),
        ("viz/a.py", "from ..hooks import model", ["imports thoughtlens.hooks.model"]),
        ("probes/a.py", "import pickle\ntorch.load(x)", ["imports pickle", "uses torch.load"]),
        ("hooks/a.py", "f(trust_remote_code=True)", ["sets trust_remote_code"]),
        ("hooks/a.py", "def f(a, *, trust_remote_code=True): ...", ["trusts remote code by default"]),
        ("hooks/a.py", "def f(a, *, trust_remote_code=False): g(trust_remote_code=trust_remote_code)", []),
        ("hooks/a.py", "import_module('torch')", ["calls import_module, which this walk cannot see through"]),
    ],
)
def test_the_walk_sees_what_it_must(name: str, source: str, found: list[str]) -> None:
    assert violations(name, source) == found


def test_importing_the_package_imports_nothing_heavy() -> None:
    told = run(
        "import sys, thoughtlens; print(sorted({'torch', 'transformers', 'pandas', 'plotly', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert told == "[]"


def test_viz_runs_without_torch() -> None:
    told = run(
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None; from thoughtlens.viz.report import report; print(report.__name__)"
    )
    assert told == "report"


def test_every_name_of_the_table_of_contents_is_there() -> None:
    import thoughtlens

    assert {name: getattr(thoughtlens, name).__name__ for name in thoughtlens.__all__} == {name: name for name in thoughtlens.__all__}
    assert set(thoughtlens.__all__) <= set(dir(thoughtlens))
    with pytest.raises(AttributeError, match="thoughtlens has no 'lode'; it offers"):
        thoughtlens.lode  # noqa: B018
