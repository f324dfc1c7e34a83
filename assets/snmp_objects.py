"""Varbinds by their objects: name, instance, value and label, from reference.mib_objects."""

import json

import polars as pl

from assets.snmp_index import decode_instance
from assets.snmp_text import BITS, DATE, INET, bit_names
from assets.snmp_values import decode_values

_NAMES = {
    "oid": pl.String,
    "object_oid": pl.String,
    "instance_identifier": pl.String,
    "instance": pl.String,
}


def _object_of(oid: str, kinds: dict[str, list[str]]) -> tuple[str, str | None, str | None, str | None]:
    """OID, and the longest prefix of it that is an object with instances, the instance, and the instance decoded."""
    prefix = oid
    while prefix not in kinds:
        prefix, dot, _ = prefix.rpartition(".")
        if not dot:
            return oid, None, None, None
    instance = oid[len(prefix) + 1 :]
    if not instance:
        return oid, None, None, None
    return oid, prefix, instance, decode_instance([int(part) for part in instance.split(".")], kinds[prefix])


def _named(varbinds: pl.DataFrame, objects: pl.DataFrame) -> pl.DataFrame:
    """Adds object and instance to each varbind, worked out once for each distinct OID."""
    found = objects.filter(pl.col("oid_type").is_in(["scalar", "tableColumn"])).select(
        "object_name", "mib_module", object_oid="oid", index="index_columns", form=_form()
    )
    kinds = {
        oid: [part.partition(":")[2] for part in (index or ":integer").split(",")]
        for oid, index in zip(found["object_oid"], found["index"], strict=True)
    }
    rows = [_object_of(oid, kinds) for oid in varbinds["oid"].unique()]
    names = pl.DataFrame(rows, _NAMES, orient="row").join(found.drop("index"), on="object_oid", how="left")
    return varbinds.join(names, on="oid", how="left", maintain_order="left")


def _form() -> pl.Expr:
    """How the value of an object is shown: see ``assets.snmp_text``."""
    convention = pl.col("textual_convention")
    return (
        pl.when(pl.col("base_type") == "BITS")
        .then(pl.lit(BITS))
        .when(convention == "DateAndTime")
        .then(pl.lit(DATE))
        .when(convention == "InetAddress")
        .then(pl.lit(INET))
        .otherwise("display_hint")
    )


def _labelled(varbinds: pl.DataFrame, objects: pl.DataFrame) -> pl.DataFrame:
    """Adds ``enum_label``: the name of a number, the names of the bits that are set."""
    named = objects.filter(pl.col("enumeration").is_not_null()).select("oid", "base_type", "enumeration")
    labels = {oid: json.loads(text) for oid, _, text in named.iter_rows()}
    rows = [(oid, int(code), label) for oid, names in labels.items() for code, label in names.items()]
    numbers = pl.DataFrame(rows, {"object_oid": pl.String, "integer": pl.Int64, "enum_label": pl.String}, orient="row")
    values = varbinds.filter(form=BITS, wire_type="OctetString").select("object_oid", "value").unique()
    texts = [bit_names(value, labels.get(oid, {})) for oid, value in values.iter_rows()]
    bits = values.with_columns(_bits=pl.Series(texts, dtype=pl.String))
    return (
        varbinds.join(numbers, on=["object_oid", "integer"], how="left", maintain_order="left")
        .join(bits, on=["object_oid", "value"], how="left", maintain_order="left")
        .with_columns(enum_label=pl.coalesce("enum_label", "_bits"))
    )


def decode_varbinds(varbinds: pl.DataFrame, objects: pl.DataFrame) -> pl.DataFrame:
    """Decodes the columns ``oid, wire_type, value`` by the rows of ``reference.mib_objects``.

    Adds ``object_name, mib_module, instance_identifier, instance, enum_label`` and what
    ``assets.snmp_values.decode_values`` adds. Rows keep their order.
    """
    return _labelled(decode_values(_named(varbinds, objects)), objects)
