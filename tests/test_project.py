"""The conventions of the repository, held as tests."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from assets.bronze.mqtt_messages import mqtt_messages
from assets.catalog import load_tables
from assets.table import Table
from data_quality.contract import contract_description
from pipelines.config import parse_config

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("assets", "data_quality", "ml", "pipelines", "resources")
OURS = frozenset({*PRODUCT, "tests", "benchmarks"})
TABLES = load_tables()
MOST_LINES = 400
LONGER = {
    "tests/pipelines/test_cli.py": "one section a command, one fixture for all",
}
GIVEN = {
    "dagster": "dagster",
    "dagster-duckdb": "dagster_duckdb",
    "great-expectations": "great_expectations",
    "paho-mqtt": "paho",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "pyiceberg": "pyiceberg",
    "pysnmp": "pysnmp",
    "scikit-learn": "sklearn",
}
"""Distribution to module: what Secchi was asked to be built with."""
_NO_NAMES = frozenset({"utils", "helpers", "misc", "common", "manager", "v2"})
_AT_RUN_TIME = frozenset({"environ", "getenv", "open", "read_text", "read_bytes", "connect", "urlopen", "socket"})


@cache
def files(*endings: str) -> list[Path]:
    """The repository's own files: nothing that is made, installed or collected."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not _is_made(name)]
        found += (Path(folder) / name for name in names if name != ".git")  # a file where there are several worktrees
    return sorted(path for path in found if not endings or path.suffix in endings)


def _is_made(folder: str) -> bool:
    is_hidden = folder.startswith(".") and folder != ".ci"
    return is_hidden or folder.endswith(".egg-info") or folder in {"__pycache__", "build", "data"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def product_files() -> list[Path]:
    return [path for path in files(".py") if name_of(path).split("/")[0] in PRODUCT]


@cache
def imports(path: Path, *, at_run_time: bool = False) -> set[str]:
    """Every module that a file imports, inside functions too; not those for type checkers if ``at_run_time``."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import; one import path a name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (at_run_time and is_for_types):
            waiting += ast.iter_child_nodes(node)
    return found


def ours(path: Path) -> set[str]:
    return {module for module in imports(path) if module.split(".")[0] in OURS}


def is_any(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


# --- tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_table_explains_itself(table: Table) -> None:
    assert re.match(r"One row an? |One row ", table.description), "the description starts with the grain"
    assert len(table.description.split("\n\n")) > 1 and re.search(r"Source|Latest|from", table.description)
    assert table.key and set(table.key) <= set(table.schema)
    assert [c.name for c in table.columns if not c.description.strip()] == []
    assert len({c.name for c in table.columns}) == len(table.columns)
    assert len(contract_description(table)) > len(table.columns)
    assert table.owner.startswith("team:") and table.kinds
    assert table.layer not in ("silver", "gold") or (table.time and table.series and table.freshness)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_columns_are_named_by_the_rules(table: Table) -> None:
    assert [n for n in table.schema if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", n)] == []
    for column in table.columns:
        is_flag = column.name.startswith(("is_", "has_"))
        assert is_flag == str(table.schema[column.name]).startswith("Bool") or column.name == "retain", column.name
        assert column.name.endswith("_at") <= table.schema[column.name].is_temporal(), column.name


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_lineage_names_columns_that_exist(table: Table) -> None:
    for column in table.columns:
        for source in column.lineage:
            identifier, _, name = source.rpartition(".")
            assert identifier in TABLES and name in TABLES[identifier].schema, f"{column.name}: {source}"


@pytest.mark.parametrize(
    "table", [t for t in TABLES.values() if t.function is not None], ids=lambda table: table.identifier
)
def test_table_has_golden_cases_or_a_test_of_its_own(table: Table) -> None:
    cases = sorted((ROOT / "tests" / "cases" / table.name).glob("*"))
    assert all((case / "input.ndjson").exists() and (case / "expected.ndjson").exists() for case in cases)
    tests = [path for path in files(".py") if name_of(path).startswith("tests/assets/test_")]
    is_run = any(f'cases("{table.name}")' in path.read_text() for path in tests)
    assert is_run == bool(cases), "a folder of cases and the test that runs it come together"
    home = f"assets.{table.layer}.{table.name}.{table.name}"
    assert cases or any(home in imports(path) for path in tests)


# --- imports -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [t for t in TABLES.values() if mqtt_messages in t.inputs], ids=lambda t: t.name)
def test_topics_that_a_table_reads_are_declared(table: Table) -> None:
    """What nobody reads is told by them."""
    assert bool(table.topics) != any(reference.configuration == "decode" for reference in table.references)


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    name = name_of(path)
    allowed: tuple[str, ...] = PRODUCT
    if name.startswith("resources/"):
        allowed = ("resources",)
    elif name.startswith("ml/"):
        allowed = ("resources", "ml")
    elif name == "data_quality/contract.py":
        allowed = ("resources",)
    elif name.startswith("data_quality/"):
        allowed = ("resources", "assets", "data_quality")
    elif name.startswith("assets/"):
        collectors = sorted((ROOT / "pipelines" / "collect").glob("*.py"))
        records = (f"pipelines.collect.{collector.stem}.RECORD" for collector in collectors)
        allowed = ("resources", "assets", "ml", *(records if name.startswith("assets/bronze/") else ()))
    elif name.startswith("pipelines/collect/"):
        allowed = ("resources", "pipelines.collect", "pipelines.settings", "pipelines.config")
    elif name.startswith("pipelines/settings/"):
        allowed = ("resources", "pipelines.settings", "ml.policy", "ml.quantities")
    elif name.startswith("pipelines/simulate/"):
        allowed = ("resources", "pipelines.simulate")
    assert {module for module in ours(path) if not is_any(module, *allowed)} == set()


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_dagster_is_known_to_few(path: Path) -> None:
    name = name_of(path)
    may = path.parent == ROOT / "pipelines" or name in ("data_quality/suites.py", "resources/wiring.py")
    assert may or not any(module.split(".")[0].startswith("dagster") for module in imports(path))


@pytest.mark.parametrize(
    "module", ["assets.catalog", "pipelines.micro_batch", "pipelines.collect.runner", "ml.features"]
)
def test_dagster_is_not_brought_in_by_others(module: str) -> None:
    """A collector and the steps of a micro-batch work without Dagster, whatever they import."""
    code = f"import sys, {module}; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


ENTRIES = (
    *("pipelines.definitions", "pipelines.cli", "pipelines.commands.", "pipelines.connection", "pipelines.demo"),
    "pipelines.simulate.snmp_recorded",  # a program for those who have recordings, and the agents of a benchmark
)
FOUND_BY_NAME = re.compile(r"assets\.[a-z]+\.[a-z]\w+|data_quality\.(bronze|silver|gold|reference|ops|quarantine)_\w+")
"""Tables and suites: nobody imports them by name, they are looked up."""


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache
def reached() -> frozenset[str]:
    """The product's modules that something leads to: the entry points, and what they run or import."""
    paths = {module_of(path): path for path in product_files()}
    waiting = {name for name in paths if name.startswith(ENTRIES) or FOUND_BY_NAME.fullmatch(name)}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        strings = re.findall(r'"((?:pipelines|resources|ml)(?:\.\w+)+)', paths[name].read_text())
        named = imports(paths[name]) | set(strings)
        prefixes = {m.rsplit(".", cut)[0] if cut else m for m in named for cut in (0, 1)}
        waiting |= (prefixes & paths.keys()) - seen
    return frozenset(seen)


def test_every_module_is_used() -> None:
    unused = [module_of(path) for path in product_files() if path.name != "__init__.py"]
    assert sorted(set(unused) - reached()) == []


def test_product_does_not_import_tests() -> None:
    assert [name_of(p) for p in product_files() if any(is_any(m, "tests", "benchmarks") for m in imports(p))] == []


@pytest.mark.parametrize("distribution", GIVEN)
def test_given_package_is_used_by_product_code(distribution: str) -> None:
    users = [
        name_of(path)
        for path in product_files()
        if module_of(path) in reached()
        and not name_of(path).startswith(("pipelines/simulate/", "pipelines/demo"))
        and any(is_any(module, GIVEN[distribution]) for module in imports(path, at_run_time=True))
    ]
    assert users, f"{distribution} is imported by nothing that runs"


def test_pytest_is_used_by_tests() -> None:
    tests = [path for path in files(".py") if name_of(path).startswith("tests/")]
    assert any("pytest" in imports(path) for path in tests)


# --- files -------------------------------------------------------------------------------------------------------


def test_packages_have_an_empty_init() -> None:
    folders = {path.parent for path in files(".py") if path.parent != ROOT}
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
    assert [name_of(path) for path in files(".py") if path.name == "__init__.py" and path.read_bytes()] == []


def test_files_are_short() -> None:
    long = {name_of(path) for path in files(".py") if len(path.read_text().splitlines()) > MOST_LINES}
    assert long <= LONGER.keys(), f"more than {MOST_LINES} lines: {sorted(long - LONGER.keys())}"


def test_names_say_something() -> None:
    assert [
        name_of(path) for path in files(".py") if _NO_NAMES & set(name_of(path).removesuffix(".py").split("/"))
    ] == []


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_import_does_no_work(path: Path) -> None:
    """No environment, file or connection is looked at while a module is imported."""
    touched = {name for node in _module_level(ast.parse(path.read_text())) for name in _used(node)}
    assert touched & _AT_RUN_TIME == set()


def _module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs at import: everything but the bodies of functions and of ``if __name__ == "__main__"``."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults]
        elif not isinstance(node, ast.Lambda | ast.Import | ast.ImportFrom) and not (
            isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        ):
            yield node
            waiting += ast.iter_child_nodes(node)


def _used(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        yield node.func.id


def texts() -> Iterator[tuple[str, int, str]]:
    """File, line number and line of every text file but the licence."""
    for path in files():
        if path.suffix in (".png", ".ico") or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield name_of(path), number, line


def test_no_file_names_a_place_of_a_machine() -> None:
    place = re.compile(r"(?<![\w.*}-])/(?:work|root|home)(?![\w-])")
    assert [f"{name}:{number}" for name, number, line in texts() if place.search(line)] == []


def test_no_file_names_an_index() -> None:
    address = re.compile(r"https?://\S*(?:py[p]i|python[h]osted|/simple\b|artifactory|nexus)")
    option = re.compile(r"(?:^|\s)--(?:extra-)?index-url|--find[-]links")
    assert [f"{name}:{number}" for name, number, line in texts() if address.search(line) or option.search(line)] == []


def test_every_pin_of_the_lock_has_hashes() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.strip().startswith("#")]
    pins = re.split(r"\n(?=\S)", "\n".join(lines))
    assert len(pins) > 50
    for pin in pins:
        requirement, *hashes = [line.strip().rstrip("\\").strip() for line in pin.splitlines()]
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.!+-]+( ; .+)?$", requirement), requirement
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes), requirement


def test_lock_holds_what_the_project_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in wanted:
        name, exact, version = re.sub(r"\[.*\]", "", requirement).partition("==")
        text = f"{name}=={version}" if exact else re.split(r"[<>=]", name)[0] + "=="
        assert re.search(rf"^{re.escape(text)}", lock, flags=re.MULTILINE), requirement


def test_every_pin_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    pins = [line for line in lines if re.match(r'\s+"[\w\[\],-]+(==|>=)', line)]
    assert pins and [line for line in pins if "# " not in line] == []


# --- documentation -----------------------------------------------------------------------------------------------


def blocks(language: str) -> list[tuple[str, str]]:
    """The fenced blocks of a language in the documentation, with the file's name."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    return [(name_of(path), block) for path in files(".md") for block in fence.findall(path.read_text())]


def test_configuration_in_the_documentation_parses() -> None:
    sections: set[str] = set()
    for name, block in blocks("toml"):
        config = parse_config(tomllib.loads(block), name)
        load_tables(declared=config.declared)
        sections |= config.model_fields_set
    assert {"mqtt", "snmp", "calculation"} <= sections, "every collector has a sample in the documentation"


def test_python_in_the_documentation_imports_what_exists() -> None:
    for name, block in blocks("python"):
        compile(block, name, "exec")
        lines = [ast.unparse(node) for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_links_of_the_documentation_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
    for path in files(".md"):
        for target in link.findall(path.read_text()):
            assert "://" in target or (path.parent / target).exists(), f"{name_of(path)}: {target}"


def test_every_table_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name, table in TABLES.items() if table.layer != "reference" and f"`{name}`" not in readme] == []


# --- definitions -------------------------------------------------------------------------------------------------


def test_definitions_load_with_an_empty_environment(tmp_path: Path) -> None:
    """From anywhere, with no variable set at all; and loading leaves nothing behind."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pipelines.definitions as d;"
        "print(len(list(d.definitions().get_repository_def().asset_graph.get_all_asset_keys())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > len(TABLES)
    assert list(tmp_path.iterdir()) == []
