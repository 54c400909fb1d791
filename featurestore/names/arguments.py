"""What the actions of `names` share: which SAE and which features their arguments mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from featurestore.base.arguments import feature_argument
from featurestore.errors import NamesError, UsageError
from featurestore.names.which_sae import NamedSae

VERSION = 1  # of what --json prints


def feature_option(parser: argparse.ArgumentParser, what: str, required: bool = False) -> None:
    """Add `--feature`."""
    parser.add_argument(
        "--feature",
        metavar="[SAE:]N",
        type=feature_argument,
        action="append",
        required=required,
        help=f"{what}; may be repeated",
    )


def asked(args: argparse.Namespace) -> tuple[str | None, list[int]]:
    """The SAE that arguments name, if any, and the features that they ask for.

    Raises:
        UsageError: They name several SAEs.
    """
    features = getattr(args, "feature", None) or []
    named = list(dict.fromkeys(sae for sae in (args.sae, *(sae for sae, _ in features)) if sae is not None))
    if len(named) > 1:
        raise UsageError(f"features of {' and '.join(map(repr, named))} are asked for; name one SAE at a time")
    return (named[0] if named else None), [number for _, number in features]


def checked(features: Sequence[int], sae: NamedSae) -> list[int]:
    """Features that the SAE has, each once.

    Raises:
        NamesError: One is beyond its width.
    """
    for feature in features:
        if feature >= sae.d_sae:
            raise NamesError(f"{sae.title} has no feature {feature}; it has features 0 to {sae.d_sae - 1}")
    return list(dict.fromkeys(features))
