"""MIB modules of a user: found in files, compiled, put into reference.mib_objects; and what was collected is reread."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from assets.reference.mib_objects import known_modules, mib_objects, object_rows
from pipelines.context import Context
from pipelines.reference_step import load_modules, run_reference
from pipelines.waiting import request_rebuild
from resources.errors import CommitConflictError, ConfigurationError
from resources.mib_compiler import BASE_MODULES, Compiled, compile_modules, defined_modules, imported_modules

_ATTEMPTS = 5


@dataclass
class MibLoad:
    """What was loaded: objects a module, those left out, what was wrong, and which tables are asked to reread."""

    compiled: Compiled
    left_out: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def load_mibs(context: Context, paths: Iterable[Path]) -> MibLoad:
    """Compiles and loads the modules of files and directories, with the modules beside them that they import.

    Raises:
        ConfigurationError: a path cannot be read.
        CommitConflictError: the table was changed at the same time, again and again.
    """
    load = MibLoad(compile_modules(read_mibs(paths), known_modules()))
    records = [record for found in load.compiled.modules.values() for record in found]
    if not records:
        return load
    rows = object_rows(records).unique("oid", keep="first", maintain_order=True)
    for left in reversed(range(_ATTEMPTS)):
        try:
            run_reference(context, mib_objects)  # a new lakehouse has not even what is built in
            load.left_out = load_modules(context, mib_objects, rows, context.clock())
            break
        except CommitConflictError:
            if not left:
                raise
    for table in context.tables.values():
        if table.step == "decode" and mib_objects in table.references:
            request_rebuild(context, table.identifier)
            load.asked.append(table.identifier)
    return load


def read_mibs(paths: Iterable[Path]) -> dict[str, str]:
    """Path to text: the files named, the files with modules in the directories named, and what they import.

    Raises:
        ConfigurationError: a path cannot be read.
    """
    texts: dict[str, str] = {}
    folders: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            folders[path] = None
            found = {file: _text(file) for file in sorted(path.rglob("*")) if file.is_file()}
            texts |= {str(file): text for file, text in found.items() if defined_modules(text)}
        else:
            folders[path.parent] = None
            texts[str(path)] = _text(path)
    _add_imports(texts, list(folders))
    return texts


def _add_imports(texts: dict[str, str], folders: list[Path]) -> None:
    """Adds the files beside the others that are named after a module which is imported and not yet there."""
    beside = {
        file.name.split(".")[0].upper(): file for folder in folders for file in folder.iterdir() if file.is_file()
    }
    while True:
        have = {name for text in texts.values() for name in defined_modules(text)}
        wanted = {name for text in texts.values() for name in imported_modules(text)} - have - BASE_MODULES
        files = [beside[name.upper()] for name in sorted(wanted) if name.upper() in beside]
        new = {str(file): _text(file) for file in files if str(file) not in texts}
        if not new:
            return
        texts |= new


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a file or a directory of MIB modules") from error
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
