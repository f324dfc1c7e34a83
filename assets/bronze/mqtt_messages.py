"""bronze.mqtt_messages."""

from datetime import timedelta

import polars as pl

from assets.table import UTC_TIME, column, declare
from pipelines.collect.mqtt import RECORD
from resources.stored_table import Partition

mqtt_messages = declare(
    layer="bronze",
    name="mqtt_messages",
    description="""
        One row an MQTT PUBLISH as it was delivered, payload byte for byte.

        Source: the MQTT collector (landing source `mqtt_messages`). A message that was delivered twice (QoS 1)
        stands here twice; silver holds it once.
    """,
    landing=RECORD,
    columns=(
        column("broker", pl.String, "Name of the broker in secchi.toml", required=True),
        column("topic", pl.String, "Topic of the PUBLISH", required=True),
        column("qos", pl.Int32, "Quality of service of the delivery: 0, 1 or 2", required=True, minimum=0, maximum=2),
        column("retain", pl.Boolean, "RETAIN flag of the delivery", required=True),
        column("payload", pl.Binary, "Application message, as sent", required=True),
        column("received_at", UTC_TIME, "When the collector took it from the socket", required=True),
        column("topic_parts", pl.String, "Parts of the topic that its filter names, like {region}: a JSON object"),
        column(
            "properties",
            pl.String,
            "MQTT 5: user, content_type, response_topic, correlation_data (hex), a JSON object; null without any",
        ),
    ),
    key=("stream", "sequence", "row"),
    time="received_at",
    partitions=(Partition("broker", "identity"), Partition("received_at", "hour")),
    kinds=("iceberg", "bronze", "mqtt"),
    freshness=timedelta(minutes=5),
)
