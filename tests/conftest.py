from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from rlm_runtime.engine.model_files import default_model_dir

# A loaded machine is slow, not wrong.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The prepared default model; `scripts/setup` makes it."""
    return default_model_dir()
