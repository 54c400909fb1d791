"""Put the parts of a label job together as one Parquet table, which says in its metadata where its rows come from.

The table is written whole or not at all, when every part is there, and the same parts give the same bytes. Whether a
table that is there already belongs to a job is told by the fingerprint in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from featurestore.errors import UsageError
from featurestore.storage.files import reached, shown
from featurestore.storage.user_outputs import INSIST, check_free, whole_file
from ray_jobs.labels.answers import LISTS, columns_of
from ray_jobs.labels.spec import LabelSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore.format.store_plan import StorePlan
    from featurestore.reader import FeatureStore

METADATA = b"sparsemill.labels"
FORMAT_VERSION = 1
ROW_GROUP = 65_536


def fingerprint_of(out: str) -> str | None:
    """Of which job the table at this place is; None where there is none, or something else."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    fs, path = reached(out)
    if not fs.get_file_info(path).is_file:
        return None
    try:
        with fs.open_input_file(path) as file:
            found = json.loads((pq.read_schema(file).metadata or {})[METADATA])
        return str(found["fingerprint"])
    except (FileNotFoundError, ArrowException, KeyError, ValueError, TypeError):
        return None
    except OSError as error:  # so Arrow calls a footer that is none
        if "thrift" not in str(error).lower():
            raise
        return None


def check_out(out: str, fingerprint: str, overwrite: bool) -> bool:
    """Whether the table is there already.

    Raises:
        UsageError: Something else is there, and is not to be replaced.
    """
    if (there := fingerprint_of(out)) == fingerprint:
        return True
    if there is not None and not overwrite:
        raise UsageError(
            f"{shown(out)} is the table of another label job (another model, task, corpus or version); choose another "
            f"name, {INSIST}"
        )
    check_free(out, overwrite=overwrite)
    return False


def write_table(spec: LabelSpec, store: FeatureStore) -> None:
    """Write the table of a label job whose parts are all there.

    Raises:
        UsageError: It cannot be written.
    """
    import pyarrow.parquet as pq

    schema = _schema(spec, store.plan)
    with whole_file(spec.out) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in _tables(store, schema):
            writer.write_table(table, row_group_size=ROW_GROUP)


def provenance(spec: LabelSpec, plan: StorePlan) -> dict[str, Any]:
    """Where the rows of a label table come from, as JSON; the same job always says the same."""
    identity = plan.identity
    return {
        "format_version": FORMAT_VERSION,
        "fingerprint": plan.fingerprint,
        "model": {**identity["model"], "source": plan.spec["model"]["name"], "revision": plan.extra["hub"]["model"]},
        "task": identity["output"]["task"],
        "separator": identity["output"]["separator"],
        "system_prompt": spec.model.system_prompt,
        "corpus": {"files": identity["corpus"]["files"], "id": spec.corpus.id},
        "compute": identity["compute"],
        "software": identity["software"],
    }


def _schema(spec: LabelSpec, plan: StorePlan) -> pa.Schema:
    import pyarrow as pa

    from featurestore.format.schema import KEEP_TYPES

    own: Mapping[str, str] = columns_of(spec.task)
    kinds = dict(plan.schema.keep)
    fields = [pa.field("id", pa.string(), nullable=False)]
    fields += [pa.field(name, pa.list_(pa.float64()) if name in LISTS else KEEP_TYPES[kinds[name]]) for name in own]
    fields += [pa.field(name, KEEP_TYPES[kinds[name]]) for name in spec.corpus.keep]
    fields += [pa.field("error", pa.string())]
    said = json.dumps(provenance(spec, plan), sort_keys=True, allow_nan=False, ensure_ascii=False)
    return pa.schema(fields, metadata={METADATA: said.encode()})


def _tables(store: FeatureStore, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of each part, in input order."""
    import pyarrow as pa

    from featurestore.models.table import RowReader

    names = [name for name in schema.names if name != "id"]
    reader = RowReader(store, ["doc_id", *names])
    for start in range(0, len(store), ROW_GROUP):
        rows = reader.take(min(ROW_GROUP, len(store) - start)).combine_chunks()
        columns = []
        for field in schema:
            values = rows.column("doc_id" if field.name == "id" else field.name)
            if field.name in LISTS:
                values = pa.array(
                    [None if text is None else json.loads(text) for text in values.to_pylist()], field.type
                )
            columns.append(values.cast(field.type))
        yield pa.Table.from_arrays(columns, schema=schema)
