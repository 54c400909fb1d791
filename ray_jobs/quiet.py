"""Keep the chatter of stage 1's libraries from the screen; it imports none of them."""

from __future__ import annotations

import logging
import os
import warnings


def silence_libraries() -> None:
    """Warnings and chatter of libraries are not for our users; errors still reach us as exceptions."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
