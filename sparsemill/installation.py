"""Say what is amiss around the package: another package under one of our names, or an extra that is not installed."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

PACKAGES = ("featurestore", "training", "ray_jobs")
STAGE_ONE = ("ray", "torch", "transformers", "tokenizers", "safetensors", "sae_lens", "gguf", "accelerate")
EXPORT = ("anndata", "zarr", "pandas")


class ForeignPackageError(ImportError):
    """Python finds somebody else's package under a name of ours; one sentence says where, and what to do."""


def check_packages() -> None:
    """Refuse to go on with somebody else's `training`, `featurestore` or `ray_jobs`; it costs no import.

    They are common words: a folder of that name beside a script or notebook comes before what is installed.

    Raises:
        ForeignPackageError: For the first of them that is not ours.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        found = _place(name)
        # On a cluster the code that was sent comes before an installed version, which has packages of its own.
        if found is not None and not any((found.parent / ours).exists() for ours in ("sparsemill", "sparsemill.py")):
            raise ForeignPackageError(
                f"Python finds {found} under the name {name!r}, which Sparsemill's own package has "
                f"({home / name}); rename that folder, or start Python where it is not on the path",
                name=name,
                path=str(found),
            )


def _place(name: str) -> Path | None:
    """The folder or file that `import name` takes; None where there is none (a cluster's nodes have no stage 2)."""
    module = sys.modules.get(name)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin
    return None if place is None else Path(place).resolve()


def missing(what: str, error: ModuleNotFoundError) -> str:
    """The sentence about a package that is not installed, with the installation that brings it.

    Args:
        what: The command or function that needs it.
        error: What its import raised.
    """
    extra = "extract" if error.name in STAGE_ONE else "export" if error.name in EXPORT else "demo"
    return f"{what} needs the package {error.name!r}; install it with: {_installation(extra)}"


def _installation(extra: str) -> str:
    """The command that installs an extra: of the clone that this is run from, or of the package."""
    here = Path(__file__).resolve().parent.parent
    if (here / "pyproject.toml").is_file():
        return f"pip install --editable {shlex.quote(f'{here}[{extra}]')}"
    return f"pip install 'sparsemill[{extra}]'"
