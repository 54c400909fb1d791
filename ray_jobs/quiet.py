"""Keep the chatter of stage 1's libraries from the screen; it imports none of them."""

from __future__ import annotations

import logging
import os
import warnings

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
"""Variables of the environment that keep libraries quiet, where the user has not set them."""


def silence_libraries() -> None:
    """Warnings and chatter of libraries are not for our users; errors still reach us as exceptions."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
