"""What identifies a model: its weights, and how they generate.

Two dicts, because they change for different reasons. ``weights_id`` says which weights answer, wherever
the files lie; a training step starts from it. ``generation_id`` says how they are made to answer. Both
are hashed into the ids of runs. Library versions are in neither: ``engine_versions`` is for the record.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ModelError
from cowest_bench.models.hub import commit_of, download_adapter

VLLM = "vllm/"  # Inspect's name for models that vLLM serves

#: Files of a model folder that do not decide its answers.
_NOT_WEIGHTS = ("training.json", "card.json", "trainer_state.json")
_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".py")
_VOCABULARIES = ("merges.txt", "vocab.txt")
_ADAPTER_CONFIG = "adapter_config.json"


def require_usable(spec: ModelSpec) -> None:
    """Refuse a model that cannot answer, before anything is started.

    Raises:
        ModelError: If a folder is missing or has no safetensors weights, or an adapter is put on an
            endpoint or on another model than it was trained on.
    """
    if spec.adapter and not (spec.is_local or is_vllm(spec)):
        raise ModelError(
            f"{spec.name} is behind an endpoint, where no adapter can be added; serve it with the "
            "adapter, or use the base as a local model or as vllm/BASE."
        )
    if not (spec.is_local or is_vllm(spec)):
        return
    for name, kind in ((weights_path(spec), "model"), (spec.adapter, "adapter")):
        if name is not None and not _is_elsewhere(spec, name):
            _require_weights(name, kind)
    if spec.adapter and Path(spec.adapter).is_dir():
        require_fit(spec, Path(spec.adapter))


def _is_elsewhere(spec: ModelSpec, name: str) -> bool:
    """Whether a model or adapter comes from the hub, or from a server's own disk."""
    if Path(name).is_dir():
        return False
    on_hub = spec.name.startswith(("hf/", VLLM)) and not name.startswith((".", "/", "~"))
    return on_hub or is_served(spec)


def _require_weights(folder: str, kind: str) -> None:
    if not Path(folder).is_dir():
        raise ModelError(
            f"There is no {kind} folder {folder}; give the path of a folder with safetensors "
            "weights, hf/ORG/NAME for the hub, or a model behind an API as Inspect names it."
        )
    if not list(Path(folder).glob("*.safetensors")):
        raise ModelError(
            f"The {kind} folder {folder} has no *.safetensors file; other weight formats can "
            "execute code when they are loaded and are refused."
        )


def require_fit(spec: ModelSpec, adapter: Path) -> None:
    """Refuse an adapter on a model that it was not trained on.

    A LoRA adapter is a difference to certain weights. On others of the same shape it loads, and answers
    nonsense: an adapter that was trained after SFT needs the SFT model as its base.

    Args:
        spec: The model with the adapter on top.
        adapter: The adapter's folder.

    Raises:
        ModelError: If peft's ``adapter_config.json`` names another base.
    """
    file = adapter / _ADAPTER_CONFIG
    if not file.is_file():
        raise ModelError(f"The adapter folder {adapter} has no {_ADAPTER_CONFIG}, as peft writes.")
    trained_on = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    base = weights_path(spec)
    if trained_on and not _is_same_model(trained_on, base):
        raise ModelError(
            f"The adapter {spec.adapter} was trained on {trained_on} and does not fit {base}; use "
            f"{trained_on} as the base, or an adapter that was trained on {base}."
        )


def _is_same_model(one: str, other: str) -> bool:
    """Whether two names mean the same weights; folders that moved are known by their last part."""
    if one == other:
        return True
    if Path(one).is_dir() and Path(other).is_dir():
        return weights_hash(one) == weights_hash(other)
    return Path(one).name == Path(other).name


# --- names ----------------------------------------------------------------------------------------


def is_vllm(spec: ModelSpec) -> bool:
    """Whether vLLM generates, on this machine or behind ``VLLM_BASE_URL``."""
    return spec.name.startswith(VLLM)


def is_served(spec: ModelSpec) -> bool:
    """Whether vLLM runs already, and decides itself which weights a name means."""
    return is_vllm(spec) and "VLLM_BASE_URL" in os.environ


def weights_path(spec: ModelSpec) -> str:
    """Folder or hub name of the weights of a model that is not behind an endpoint."""
    return spec.path.removeprefix(VLLM)


def is_on_hub(spec: ModelSpec) -> bool:
    """Whether the weights are downloaded from the hub."""
    loaded_here = spec.is_local or (is_vllm(spec) and not is_served(spec))
    return loaded_here and not Path(weights_path(spec)).is_dir()


def pinned(spec: ModelSpec) -> ModelSpec:
    """The same model; of a hub model, with its commit as the revision.

    Raises:
        ModelError: If the commit cannot be found out.
    """
    if not is_on_hub(spec):
        return spec
    return spec.model_copy(update={"revision": commit_of(weights_path(spec), spec.revision)})


def adapter_folder(spec: ModelSpec) -> str | None:
    """Where a model's adapter is on this machine; one from the hub is downloaded.

    Raises:
        ModelError: If it cannot be downloaded, is not safetensors, or does not fit the model.
    """
    if spec.adapter is None or Path(spec.adapter).is_dir():
        return spec.adapter
    folder = download_adapter(spec.adapter)
    require_fit(spec, folder)
    return str(folder)


# --- identity -------------------------------------------------------------------------------------


def weights_id(spec: ModelSpec, *, resolve: bool = True) -> dict[str, str | None]:
    """What decides which weights answer.

    - A folder: ``{"weights": hash, "adapter": hash or None}``. A folder that was moved is the same model.
    - A folder that a training step here made: ``{"made": id of the step}``, which is known before the
      training has run. If its files were changed since, it is a folder like any other.
    - The hub: ``{"name", "revision"}`` with the commit as the revision, and ``"adapter"`` if there is one.
    - An endpoint: ``{"name", "revision"}`` as given. What the name means there is up to the endpoint; runs
      record what it reported (``Run.reported``).

    Args:
        spec: The model.
        resolve: Whether a hub model must be resolved to its commit. If not, one that cannot be is
            marked ``NAME@REVISION``, which no stored run matches: for dry runs, which work offline.

    Raises:
        ModelError: If the commit of a hub model cannot be found out.
    """
    base = _base_id(spec, resolve)
    if spec.adapter is None:
        return base
    made = _card(Path(spec.adapter))
    if made is not None and _started_from(made, base):
        return {"made": str(made["id"])}
    return base | {"adapter": _adapter_id(spec.adapter, resolve)}


def _base_id(spec: ModelSpec, resolve: bool) -> dict[str, str | None]:
    path = weights_path(spec)
    if (spec.is_local or is_vllm(spec)) and Path(path).is_dir():
        made = _card(Path(path))
        return (
            {"made": str(made["id"])} if made else {"weights": weights_hash(path), "adapter": None}
        )
    if not is_on_hub(spec):
        return {"name": spec.name, "revision": spec.revision}
    try:
        return {"name": spec.name, "revision": commit_of(path, spec.revision)}
    except ModelError:
        if resolve:
            raise
        return {"name": f"{spec.name}@{spec.revision or 'main'}", "revision": None}


def _adapter_id(adapter: str, resolve: bool) -> str:
    if Path(adapter).is_dir():
        return weights_hash(adapter)
    try:
        return f"{adapter}@{commit_of(adapter, None)}"
    except ModelError:
        if resolve:
            raise
        return f"{adapter}@main"


def _card(folder: Path) -> dict[str, object] | None:
    """The card of the training that made a folder, if the weights are still those it wrote."""
    file = folder / "card.json"
    if not file.is_file():
        return None
    card: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return card if "id" in card and card.get("content") == weights_hash(folder) else None


def _started_from(card: dict[str, object], base: dict[str, str | None]) -> bool:
    model = card.get("model")
    return isinstance(model, dict) and base.items() <= model.items()


def generation_id(spec: ModelSpec) -> dict[str, object]:
    """How a model is made to answer, as far as the user decides it: number format, sampling, engine."""
    dtype = {"dtype": spec.dtype} if spec.is_local or is_vllm(spec) else {}
    engine = {"engine": "vllm"} if is_vllm(spec) else {}
    sampling = {"sampling": spec.sampling} if spec.sampling else {}
    return {**dtype, **engine, **sampling}


def engine_versions(spec: ModelSpec) -> dict[str, str]:
    """Versions of the libraries that compute a local model's answers; for the record."""
    names = ("torch", "transformers", "peft") if spec.is_local else ()
    return {name: version(name) for name in names}


def weights_hash(folder: str | Path) -> str:
    """Hash (16 hex digits) of all that decides a model folder's answers: weights, settings, tokenizer."""
    deciding = sorted(
        file
        for file in Path(folder).iterdir()
        if (file.suffix in _DECIDING or file.name in _VOCABULARIES)
        and file.name not in _NOT_WEIGHTS
    )
    return _files_hash(tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in deciding))


@lru_cache(maxsize=256)
def _files_hash(files: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of file names and contents; the times and sizes only tell when to hash again."""
    digest = hashlib.sha256()
    for name, _, _ in files:
        path = Path(name)
        digest.update(path.name.encode())
        if path.name == _ADAPTER_CONFIG:
            digest.update(_adapter_settings(path))
        else:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _adapter_settings(file: Path) -> bytes:
    """What an adapter's configuration says of its weights, without where its base was and who wrote it.

    Peft writes sets in any order.
    """
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key in ("base_model_name_or_path", "peft_version"):
        settings.pop(key, None)
    for key, value in settings.items():
        settings[key] = sorted(value, key=str) if isinstance(value, list) else value
    return json.dumps(settings, sort_keys=True).encode()
