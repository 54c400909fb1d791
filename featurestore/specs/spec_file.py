"""Read JOB.yaml or STUDY.yaml: safe YAML in, a frozen pydantic model out, one sentence when it is wrong.

A spec file is small and flat, so what only causes trouble is refused: anchors and aliases (alias bombs), duplicate keys
(the first would be lost silently), documents that are no mapping, files over 1 MB, and URLs with a secret in them
(specs are copied, recorded and shown). What the keys mean is left to the models, and what is said about them to
`spec_sentences`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from featurestore.base.did_you_mean import did_you_mean_file
from featurestore.errors import UsageError
from featurestore.specs.spec_sentences import another_kind, kind_of, sentence_of
from featurestore.specs.spec_yaml import Refused, WrittenSafeLoader, yaml_problem
from featurestore.url_secrets import secret_in

SpecT = TypeVar("SpecT", bound=BaseModel)

MAX_BYTES = 1_000_000  # a spec is a page of text; anything larger is the wrong file (a corpus, weights)


class _SpecLoader(WrittenSafeLoader):
    """WrittenSafeLoader without aliases, merges and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise Refused(
                f"line {event.start_mark.line + 1}: anchors and aliases are refused; write the value out, or put "
                "quotes around one that begins with & or *"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                cut = str(key_node.value).isdecimal() and value_node.value == ""  # {max_tokens: 1,000} has the key 000
                comma = ", or remove the comma before it from a number" if cut else ""
                raise Refused(f"line {line}: a key must be plain text; put quotes around it{comma}")
            if key_node.value in seen:
                raise Refused(f"line {line}: key '{key_node.value}' is given twice; remove one")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load_spec(path: str | Path, model: type[SpecT], error: type[UsageError]) -> SpecT:
    """Read a YAML file into a frozen model.

    Args:
        path: The spec file on the local file system.
        model: A pydantic model with `extra="forbid"`.
        error: The class to raise, e.g. `JobSpecError`.

    Returns:
        A validated instance of `model`.

    Raises:
        error: The file is missing, too large, not YAML, or does not validate; one sentence naming file and key.
    """
    return parse_spec(load_mapping(path, error), model, error, where=str(path))


def load_mapping(path: str | Path, error: type[UsageError]) -> dict[str, Any]:
    """Read a YAML file as a mapping, without validating it against a model; same refusals as `load_spec`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise error(f"{path}: there is no such file{did_you_mean_file(path) or '; check the path'}") from None
    except OSError as exc:
        raise error(f"{path}: cannot be read ({exc.strerror or exc}); give the path of a YAML file") from None
    if len(data) > MAX_BYTES:
        raise error(f"{path}: is larger than {MAX_BYTES:,} bytes, so it is no spec file; check the path")
    try:
        mapping = yaml.load(data.decode("utf-8-sig"), Loader=_SpecLoader)
    except UnicodeDecodeError:
        raise error(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        if Path(path).suffix not in (".yaml", ".yml", ".json", ""):
            raise error(
                f"{path}: is no YAML; give the file that describes a job or study, and name this in it"
            ) from None
        raise error(f"{path}: {yaml_problem(exc)}") from None
    if not isinstance(mapping, dict):
        found = "is empty" if mapping is None else f"holds a {kind_of(mapping)}"
        space = ", with a space behind the colon" if isinstance(mapping, str) and ":" in mapping else ""
        raise error(f"{path}: {found}, but a spec is a mapping of 'key: value' lines{space}")
    return mapping


def parse_spec(mapping: Mapping[str, Any], model: type[SpecT], error: type[UsageError], where: str) -> SpecT:
    """Validate a mapping into a frozen model.

    Args:
        mapping: Plain data, as YAML or JSON gives it.
        model: A pydantic model with `extra="forbid"`.
        error: The class to raise.
        where: What to call the source in messages, e.g. "job.yaml".

    Raises:
        error: One sentence naming the source, the key path, what is wrong and, for an unknown key, the nearest name.
    """
    refuse_secrets(mapping, error, where)
    if (other := another_kind(mapping, model)) is not None:
        raise error(f"{where}: {other}")
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as exc:
        raise error(f"{where}: {sentence_of(exc.errors(include_url=False), mapping, model)}") from None


def refuse_secrets(mapping: Mapping[str, Any], error: type[UsageError], where: str) -> None:
    """Refuse plain data in which a URL carries a secret; arguments as for `parse_spec`."""
    for key, text in texts_of(mapping):
        if (secret := secret_in(text)) is not None:
            raise error(
                f"{where}: the URL in '{key}' carries {secret}; leave it out, storage takes credentials from the "
                "environment or the cloud's own chain"
            )


def texts_of(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key path, text) of every text in plain data."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from texts_of(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, below in enumerate(value):
            yield from texts_of(below, f"{key}.{i}")
