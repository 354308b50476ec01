from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from rlm_runtime.engine.model_files import default_model_dir

# A loaded machine is slow, not wrong.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# A shell starts what runs in its background with these ignored, and children inherit that; the
# tests send them.
for number, default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The prepared default model; `scripts/setup` makes it."""
    return default_model_dir()
