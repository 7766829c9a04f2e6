"""Holds the table of rooms: who may import whom, which libraries stay inside functions, and that no import circle exists."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("shards", "pipelines", "concepts", "model", "trainers", "jobs")
MAY_IMPORT = {
    "shards": {"shards"},
    "model": {"model"},
    "pipelines": {"pipelines", "shards"},
    "concepts": {"concepts", "shards"},
    "trainers": {"trainers", "shards", "model"},
    "jobs": set(ROOMS),
}
TORCH_AT_TOP = {"model", "trainers"}
HEAVY = {
    "torch", "torchvision", "torchaudio", "torchcodec", "ray", "spacy", "open_clip", "timm", "transformers", "tokenizers",
    "webdataset", "av", "decord", "soundfile", "PIL", "fsspec", "s3fs", "matplotlib", "pandas", "tensorboard", "safetensors",
}  # fmt: skip
PARQUET_AT_TOP = {"shards"}
RAY_FILES = {"jobs/ray_executor.py", "jobs/ray_train.py"}

FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write the full path from the room"
            yield node.module or "", node


def module_level(tree: ast.Module) -> Iterator[str]:
    """Imports that run when the module is imported: not those inside functions, nor under `if TYPE_CHECKING`."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        pending.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    for name, node in imports(ast.parse(path.read_text(encoding="utf-8"))):
        top = name.partition(".")[0]
        if top in ROOMS:
            assert top in MAY_IMPORT[room_of(path)], f"{path}:{node.lineno} imports {name}"
            assert not (isinstance(node, ast.Import) and name in ROOMS), f"{path}:{node.lineno}: a bare `import {name}`"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    allowed = {"torch"} if room_of(path) in TORCH_AT_TOP else set()
    tops = {name.partition(".")[0] for name in module_level(ast.parse(path.read_text(encoding="utf-8")))}
    heavy = tops & HEAVY - allowed
    if room_of(path) not in PARQUET_AT_TOP:
        heavy |= tops & {"pyarrow"}
    assert not heavy, f"{path} imports {sorted(heavy)} at module level"


def test_ray_is_imported_in_two_files_only() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] == "ray"
    }
    assert users == RAY_FILES


def test_shards_never_imports_torch() -> None:
    for path in (ROOT / "shards").rglob("*.py"):
        tops = {name.partition(".")[0] for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))}
        assert "torch" not in tops, f"{path} imports torch"


def test_no_module_shadows_a_library_or_a_standard_module() -> None:
    taken = HEAVY | set(sys.stdlib_module_names) | {"pyarrow", "numpy", "yaml", "rich", "pydantic", "pytest"}
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))} | {
        path.stem for path in ROOT.glob("*.py")
    }
    assert not tops & taken
    assert not {path.stem for path in FILES} & HEAVY


def test_tests_hold_no_package_that_would_shadow_a_room() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_import_circle() -> None:
    graph: dict[str, set[str]] = {}
    known = {module_name(path) for path in FILES}
    for path in FILES:
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        graph[module_name(path)] = (targets & known) - {module_name(path)}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import circle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_no_catch_all_room() -> None:
    vague = {"utils", "util", "helpers", "common", "misc", "core"}
    assert not {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts} & vague
