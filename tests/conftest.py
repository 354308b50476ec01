from __future__ import annotations

from pathlib import Path

import pytest

from rlm_runtime.engine.model_files import default_model_dir


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The prepared default model; `scripts/setup` makes it."""
    return default_model_dir()
