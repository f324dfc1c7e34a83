"""MQTT topics that no table of silver reads: those configured, and the messages on them that lie in bronze."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from assets.bronze.mqtt_messages import mqtt_messages
from assets.table import Table
from pipelines.config import Config
from pipelines.context import Context
from pipelines.query import open_query
from pipelines.standing import extent
from resources.duckdb import connect
from resources.topics import have_topics_in_common, matching

RECENT = timedelta(hours=24)
"""How far before the newest message is counted: old ones tell of a configuration that is no more."""


def read_filters(config: Config, tables: Iterable[Table]) -> list[str]:
    """The filters of the topics that are read: those that tables declare, and those of ``[[decode]]``."""
    declared = [topic for table in tables for topic in table.topics]
    return declared + [topic for entry in config.decode for topic in entry.topics]


def unread_filters(config: Config, tables: Iterable[Table]) -> Iterator[str]:
    """The configured filters of which no topic is read, with their place in the file."""
    read = read_filters(config, tables)
    for index, broker in enumerate(config.mqtt):
        for position, topic in enumerate(broker.topics):
            if not any(have_topics_in_common(topic, each) for each in read):
                yield f"mqtt[{index}].topics[{position}] = {topic!r}"


def unread_messages(context: Context) -> dict[str, int]:
    """Topic → number of its messages in bronze, of the last 24 hours before the newest one; the largest first."""
    newest = extent(context, mqtt_messages).newest
    if newest is None:
        return {}
    connection = connect(context.lakehouse, [mqtt_messages.stored])
    query = (
        f"SELECT topic, count(*) FROM {mqtt_messages.identifier} "
        f"WHERE received_at > TIMESTAMPTZ '{newest - RECENT}' GROUP BY topic ORDER BY 2 DESC, 1"
    )
    messages: dict[str, int] = dict(open_query(connection, query).rows())
    read = set(matching(messages, read_filters(context.config, context.tables.values())))
    return {topic: count for topic, count in messages.items() if topic not in read}
