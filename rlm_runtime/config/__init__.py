"""The configuration: its tree (`model.py`), loading (`load.py`), folders (`places.py`)."""
