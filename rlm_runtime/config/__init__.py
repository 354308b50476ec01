"""The configuration: its tree (`model.py`), loading (`load.py`), folders (`places.py`)."""

from rlm_runtime.config.load import Loaded, config_bytes, config_digest, load
from rlm_runtime.config.model import Config, EngineConfig, SearchConfig
from rlm_runtime.config.places import builtin_configs, home, state_home, traces

__all__ = [
    "Config",
    "EngineConfig",
    "Loaded",
    "SearchConfig",
    "builtin_configs",
    "config_bytes",
    "config_digest",
    "home",
    "load",
    "state_home",
    "traces",
]
