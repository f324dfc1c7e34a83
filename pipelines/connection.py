"""The lakehouse in a notebook or a script."""

from pathlib import Path

from duckdb import DuckDBPyConnection

from assets.catalog import load_tables
from pipelines.config import load_config
from pipelines.context import with_evolved
from resources.duckdb import connect
from resources.errors import SecchiError
from resources.lakehouse import Lakehouse


def secchi_connection(config_path: Path | str | None = None) -> DuckDBPyConnection:
    """A read-only DuckDB connection with a view ``layer.table`` for every table, as of now.

    The configuration is ``config_path``, or the file that SECCHI_CONFIG names, or ./secchi.toml, or the defaults.

        connection = secchi_connection()
        connection.sql("from gold.sensor_windows_1m").pl()  # polars
        connection.sql("from gold.anomaly_scores where is_anomaly").df()  # pandas

    Raises:
        ConfigurationError: the configuration has a mistake.
        SecchiError: there is no lakehouse yet.
    """
    config = load_config(Path(config_path) if config_path else None)
    path = config.lakehouse.path
    if not (path / "catalog.db").exists():
        raise SecchiError(f"{path.absolute()}: no lakehouse is here yet; 'secchi up' or 'secchi process' makes one")
    lakehouse = Lakehouse(path)
    tables = with_evolved(lakehouse, load_tables(declared=config.declared))
    return connect(lakehouse, (table.stored for table in tables.values()))
