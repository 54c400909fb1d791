"""Make the plan of a job: everything that is known about it before anything is spent on it.

`make_plan` scans the corpus, finds or builds the bundle, settles what the job leaves open, samples tokens and cuts the
corpus into units. It refuses a job that cannot work, writes nothing into the store, and is cheap to repeat: what a
store was created with is read from the store. Figures and money are left to `estimate`, running to `run.driver`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.base.dense_names import PIXELS, dense_name
from featurestore.errors import JobSpecError
from featurestore.finding.dialect import USUAL
from ray_jobs.images.decoder import decoder_version
from ray_jobs.planning.identity import deciding_software, identity, provenance
from ray_jobs.planning.token_sample import TokenSample, kept_sample, sample_tokens
from ray_jobs.planning.versions import check_finished, other_version, unfinished
from ray_jobs.prepare.compute_settings import Compute, extract_settings, settle, settle_attention
from ray_jobs.prepare.hub import COMMIT

if TYPE_CHECKING:
    from featurestore.format.rows import PartRows
    from featurestore.format.schema import StoreSchema
    from featurestore.format.store_plan import StorePlan
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.corpus.read import DocumentRows
    from ray_jobs.corpus.scanned import CorpusScan
    from ray_jobs.planning.units import Unit
    from ray_jobs.spec import CorpusSpec, JobSpec

Note = Callable[[str], None]


class UnitOutput(Protocol):
    """What a run writes of its documents in place of their features; plain data, which travels to workers."""

    def identity(self) -> dict[str, Any]:
        """What of it decides a value, as JSON."""
        ...

    def corpus(self, corpus: CorpusSpec) -> CorpusSpec:
        """The corpus as its rows are read; without a text where a document needs none."""
        ...

    def bundle(self, bundle: Bundle) -> Bundle:
        """A bundle without what is not needed."""
        ...

    def schema(self, keep_types: Mapping[str, str]) -> StoreSchema:
        """Columns of the store, with kept columns of these types."""
        ...

    def engine(self, bundle: Bundle, settings: Mapping[str, Any], features: StoreSchema) -> UnitEngine:
        """What computes it, loaded.

        Args:
            bundle: The whole bundle.
            settings: Fields of the engine's `ExtractSettings`.
            features: What a store of the features would have; it says how values are rounded.
        """
        ...


class UnitEngine(Protocol):
    """Makes the rows of a part."""

    def rows(self, documents: DocumentRows, on_progress: Callable[[int, int], None]) -> PartRows:
        """One row for each document, in their order; `on_progress` gets documents and tokens done, between batches."""
        ...


@dataclass(frozen=True)
class JobPlan:
    """A job that is ready to run.

    Attributes:
        job: The job, its dtype settled.
        scan: The corpus.
        bundle: The opened bundle.
        compute: The settled settings.
        units: All units of work.
        store: The plan of the store.
        software: Versions that decide values.
        sample: What a sample says of tokens.
        committed: Unit -> bytes of the parts that are there already.
        finished: Whether the store has its manifest.
        output: What is written in place of features; None for features.
    """

    job: JobSpec
    scan: CorpusScan
    bundle: Bundle
    compute: Compute
    units: tuple[Unit, ...]
    store: StorePlan
    software: Mapping[str, str]
    sample: TokenSample
    committed: Mapping[int, int]
    finished: bool
    output: UnitOutput | None = None

    @property
    def mean_tokens(self) -> float:
        """Pooled tokens of a document, from the sample."""
        return self.sample.mean_tokens

    @property
    def missing(self) -> tuple[Unit, ...]:
        """Units whose part is not there."""
        return tuple(unit for unit in self.units if unit.index not in self.committed)

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of the engine's `ExtractSettings`."""
        return extract_settings(self.job, self.compute)


def make_plan(
    job: JobSpec,
    note: Note | None = None,
    device: str | None = None,
    output: UnitOutput | None = None,
    bundle: Bundle | None = None,
) -> JobPlan:
    """Plan a job; nothing is written into its store.

    Args:
        job: What to run.
        note: Called with a line of text before a step that may take long.
        device: `cpu` or `cuda`, to plan for other hardware than this machine's where the job leaves that open.
        output: What to write in place of features; None for features.
        bundle: The job's bundle, where it is open already.

    Raises:
        UsageError: Corpus, model, SAEs or settings are at fault, or the store is another job's.
    """
    from featurestore.format.store_plan import create_store
    from featurestore.writing.writer import committed_units
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.corpus.scan import scan
    from ray_jobs.prepare.build import pinned, prepare

    stored, finished, version = _look_at_store(job.store)
    compute = settle(job, stored.identity if stored else None, device)
    job = job.model_copy(update={"model": job.model.model_copy(update={"dtype": compute.dtype})})
    if job.corpus.image is not None:
        decoder_version()  # refuses a machine that cannot decode images, before anything else takes time
    scanned = scan(job.corpus)
    bundle = bundle or open_bundle(prepare(_at_recorded_commits(job, stored), progress=note))
    bundle = output.bundle(bundle) if output else bundle
    as_written, job = job, pinned(job, bundle)
    _check_room(bundle, job)
    if stored is None or not compute.attn:  # a store that is there has passed the check, which needs torch
        compute = settle_attention(compute, bundle)
    software = deciding_software(job.corpus.image is not None)
    decisive = identity(job, bundle, compute, _file_identities(scanned), software)
    decisive |= {"output": output.identity()} if output else {}
    # Compared as JSON, as it is stored: there, tuples are lists.
    same = stored is not None and stored.identity == json.loads(json.dumps(decisive))
    kept = kept_sample(stored) if same or version else None
    sample = kept or sample_tokens(bundle, job, scanned)
    units = _units(job, scanned, stored if same else None, sample.mean_tokens, compute.device)
    schema = output.schema(scanned.keep_types) if output else store_schema(job, bundle, scanned.keep_types)
    store = _new_store(as_written, job, schema, decisive, units, sample)
    if stored is not None and version is not None:
        check_finished(job.store, stored, store, version, job.units.documents is not None, note)
        store, units = stored, _finished_units(stored)
    elif stored is not None:
        create_store(job.store, store)  # writes nothing where a store is, and refuses another job's
    return JobPlan(
        job=job,
        scan=scanned,
        bundle=bundle,
        compute=compute,
        units=units,
        store=store,
        software=software,
        sample=sample,
        committed=committed_units(job.store) if stored is not None else {},
        finished=finished,
        output=output,
    )


def _look_at_store(uri: str) -> tuple[StorePlan | None, bool, str | None]:
    """What stands where the store will be: its plan, whether it has its manifest, and the other version that wrote it.

    Raises:
        UsageError: There is something else, an unfinished store of another version, or no right to write.
    """
    from featurestore.format.store_plan import MANIFEST_JSON, STORE_JSON, check_place, open_root, read_plan
    from featurestore.writing.write_check import check_writable
    from featurestore.writing.writer import committed_units

    fs, root = open_root(uri)
    there, manifest = (info.is_file for info in fs.get_file_info([f"{root}/{STORE_JSON}", f"{root}/{MANIFEST_JSON}"]))
    stored = read_plan(uri) if there else None
    if stored is None:
        check_place(uri)
    version = other_version(stored) if stored is not None else None
    if stored is not None and version and not (manifest and len(committed_units(uri)) == len(stored.units)):
        raise unfinished(uri, version)
    if not manifest:
        check_writable(uri)
    return stored, stored is not None and manifest, version


def _file_identities(scanned: CorpusScan) -> list[dict[str, Any]]:
    """The corpus' files as the identity has them: what decides their rows, where it is not the usual."""
    return [
        {"name": f.name, "size": f.size, "sha256": f.sha256, "rows": f.rows}
        | ({"csv": str(f.dialect)} if f.dialect not in (None, USUAL) else {})
        | ({"path": dict(f.told)} if f.told else {})
        | ({"images": f.images} if f.images else {})
        for f in scanned.files
    ]


def _new_store(
    as_written: JobSpec,
    job: JobSpec,
    schema: StoreSchema,
    decisive: Mapping[str, Any],
    units: Sequence[Unit],
    sample: TokenSample,
) -> StorePlan:
    """The plan of the store that this job would create.

    Args:
        as_written: The job before it was pinned to commits, which is what is recorded.
        job: The job, pinned.
        schema: Its columns.
        decisive: Its identity.
        units: Its units, which cover all rows.
        sample: What was sampled.
    """
    from featurestore.format.store_plan import StorePlan

    return StorePlan(
        schema=schema,
        identity=dict(decisive),
        spec=_recorded_spec(as_written),
        units=[(unit.start, unit.stop) for unit in units],
        rows=units[-1].stop,
        extra={
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "sample": sample._asdict(),
            "hub": _commits(job),
            **provenance(),
        },
    )


def expected_store(job: JobSpec) -> StorePlan:
    """What the store of a job says, or would say, of model, SAEs and columns; the corpus is not looked at.

    Returns:
        The plan of the store where there is one, else one without documents and kept columns.

    Raises:
        UsageError: Model, SAEs or settings are at fault.
    """
    from featurestore.format.store_plan import STORE_JSON, StorePlan, open_root, read_plan
    from ray_jobs.backbone.bundle import open_bundle
    from ray_jobs.prepare.build import pinned, prepare

    fs, root = open_root(job.store)
    if fs.get_file_info(f"{root}/{STORE_JSON}").is_file:
        return read_plan(job.store)
    compute = settle(job, None)
    job = job.model_copy(update={"model": job.model.model_copy(update={"dtype": compute.dtype})})
    bundle = open_bundle(prepare(job))
    as_written, job = job, pinned(job, bundle)
    _check_room(bundle, job)
    software = deciding_software(job.corpus.image is not None)
    decisive = identity(job, bundle, settle_attention(compute, bundle), (), software)
    extra = {"hub": _commits(job)}
    return StorePlan(store_schema(job, bundle, {}), decisive, _recorded_spec(as_written), [], 0, extra)


def store_schema(job: JobSpec, bundle: Bundle, keep_types: Mapping[str, str]) -> StoreSchema:
    """The columns that the job's store will have, with kept columns of these types."""
    from featurestore.format.schema import DenseColumn, SaeColumns, StoreSchema

    return StoreSchema(
        keep=tuple(keep_types.items()),
        saes=tuple(SaeColumns(sae.name, sae.d_sae, job.pool) for sae in bundle.saes),
        dense=tuple(
            DenseColumn(dense_name(hook.name, kind), width)
            for hook, width in bundle.hooks.items()
            for kind in job.hidden
        )
        + (() if job.pixels is None else (DenseColumn(PIXELS, 3 * job.pixels**2),)),
        value_bits=job.value_bits,
    )


def _check_room(bundle: Bundle, job: JobSpec) -> None:
    """Refuse a job whose `max_tokens` leaves no room for documents.

    Raises:
        JobSpecError: In one sentence.
    """
    from ray_jobs.backbone.tokens import token_policy
    from ray_jobs.engine.image_inputs import ImageInputs

    if bundle.vision is not None:
        ImageInputs(bundle, job.model)
    else:
        token_policy(bundle, job.model)


def _units(
    job: JobSpec, scanned: CorpusScan, stored: StorePlan | None, mean_tokens: float, device: str
) -> tuple[Unit, ...]:
    """The units of the store if the same job created it, else new ones."""
    from ray_jobs.corpus.slices import slices
    from ray_jobs.planning.units import Unit, plan_units

    if stored is None or job.units.documents is not None:
        return tuple(plan_units(scanned, job.units.documents, mean_tokens, device))
    return tuple(
        Unit(index, start, stop, slices(scanned, start, stop)) for index, (start, stop) in enumerate(stored.units)
    )


def _commits(job: JobSpec) -> dict[str, Any]:
    """Commits of the hub, of a job that is pinned to them."""
    return {"model": job.model.revision, "saes": {sae.name: sae.revision for sae in job.saes if sae.revision}}


def _finished_units(stored: StorePlan) -> tuple[Unit, ...]:
    """The units of a store that is whole: nothing of the corpus is read for them."""
    from ray_jobs.planning.units import Unit

    return tuple(Unit(index, start, stop, ()) for index, (start, stop) in enumerate(stored.units))


def _at_recorded_commits(job: JobSpec, stored: StorePlan | None) -> JobSpec:
    """The job at the hub commits with which its store was created, where it still names the same things.

    So a run that is resumed after `main` moved on goes on with what it had, and asks the hub for nothing.
    """
    try:
        kept, spec = (stored.extra["hub"], stored.spec) if stored else ({}, {})
        saes = []
        for sae, before in zip(job.saes, spec.get("saes", ()), strict=False):
            same = [(sae.name, sae.release, sae.id, sae.revision)] == [
                (before["name"], before["release"], before["id"], before.get("revision"))
            ]
            commit = str(kept["saes"].get(sae.name))
            saes.append(sae.model_copy(update={"revision": commit}) if same and COMMIT.fullmatch(commit) else sae)
        model, before, commit = job.model, spec.get("model", {}), str(kept.get("model"))
        if (model.name, model.revision) == (before.get("name"), before.get("revision")) and COMMIT.fullmatch(commit):
            model = model.model_copy(update={"revision": commit})
        told = stored.identity["model"].get("date") if stored else None
        if told is not None and model.chat and model.date is None and before.get("date") is None:
            model = model.model_copy(update={"date": told})
        return job.model_copy(update={"model": model, "saes": (*saes, *job.saes[len(saes) :])})
    except (KeyError, TypeError, AttributeError):
        return job  # begun by an earlier version


def _recorded_spec(job: JobSpec) -> dict[str, Any]:
    """The job as it goes into store.json: plain data, and no credentials of URLs."""
    from featurestore.storage.files import shown

    spec: dict[str, Any] = job.model_dump(mode="json")
    spec["store"] = shown(job.store)
    spec["corpus"]["path"] = [shown(path) for path in job.corpus.path]
    return spec


def check_device(compute: Compute, devices: int = 1) -> None:
    """Refuse a GPU job on a machine without one, before a local Ray waits for it for ever.

    Args:
        compute: What it computes on.
        devices: GPUs of one worker.

    Raises:
        JobSpecError: torch sees no CUDA device here, or fewer.
    """
    if compute.device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise JobSpecError(
            "workers.gpus: torch sees no CUDA device on this machine; set it to 0, or run on a cluster with --address"
        )
    if (there := torch.cuda.device_count()) < devices:
        raise JobSpecError(
            f"workers.gpus: a worker is to divide its layers among {devices} GPUs, and this machine has {there}; set "
            "it to that, or run on a cluster with --address"
        )
