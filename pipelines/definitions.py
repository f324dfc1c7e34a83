"""The one entry point of Dagster: everything that it shows and runs."""

import dagster as dg


@dg.definitions
def definitions() -> dg.Definitions:
    """Builds the definitions from the configuration named by SECCHI_CONFIG, or the defaults; opens nothing.

    Raises:
        ConfigurationError: the configuration or a declaration has a mistake; its message is one line.
    """
    from assets.catalog import load_tables
    from pipelines import automation, dagster_assets
    from pipelines.config import load_config
    from pipelines.context import check_names
    from pipelines.drift import drift_checks
    from pipelines.housekeeping import housekeeping_asset
    from pipelines.quality import quality_checks
    from pipelines.training import training_asset
    from resources.wiring import LakehouseDuckDB

    config = load_config()
    tables = load_tables(declared=config.declared)
    check_names(config, tables)
    return dg.Definitions(
        assets=[
            dagster_assets.micro_batch_assets(config, tables),
            training_asset(config, tables),
            dagster_assets.maintenance_asset(config),
            housekeeping_asset(config),
            *dagster_assets.side_specs(tables),
            *dagster_assets.outside_specs(config, tables),
        ],
        asset_checks=[quality_checks(config, tables), drift_checks(config, tables)],
        jobs=automation.jobs(config, tables),
        sensors=[automation.micro_batches_sensor(config), automation.first_model_sensor(config)],
        schedules=automation.schedules(config),
        # For assets and checks that others put beside ours: SQL over every table, read-only.
        resources={"duckdb": LakehouseDuckDB(lakehouse=str(config.lakehouse.path.absolute()))},
        executor=dg.in_process_executor,
    )
