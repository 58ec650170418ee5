"""Models on the Hugging Face hub: which commit a name means, and adapters without pickled weights."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from cowest_bench.errors import ModelError, redacted

ASK_SECONDS = 20.0  # how long the hub may take to say what the newest commit is


def commit_of(name: str, revision: str | None) -> str:
    """The commit (40 hex digits) that a branch or tag of a hub model means on this machine.

    The local cache comes first: what was downloaded once stays the model until its cache is cleared,
    also when the hub has moved on. Callers load this commit, so what is hashed is what answers. Raises
    ``ModelError`` if the name cannot be on the hub, or is not in the cache and the hub cannot be asked.
    """
    wanted = revision or "main"
    if name.count("/") > 1:
        raise ModelError(f"{name} is not a folder on this machine, nor ORG/NAME on the hub.")
    if re.fullmatch("[0-9a-f]{40}", wanted):
        return wanted
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(name, file, revision=wanted)
        if isinstance(found, str):
            return Path(found).parent.name  # .../snapshots/COMMIT/config.json
    return _newest_commit(name, wanted)


@lru_cache(maxsize=256)  # one commit for the whole process, whatever is pushed meanwhile
def _newest_commit(name: str, revision: str) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(name, revision=revision, timeout=ASK_SECONDS).sha
    except Exception as error:  # of the hub's client, its HTTP library, or the network
        reason = redacted(str(error)).strip().partition("\n")[0]
        raise ModelError(
            f"The commit of {name}@{revision} is unknown: it is not in the local cache and the hub "
            f"cannot be asked ({reason}); give it with --weak-revision COMMIT (or --strong-revision)."
        ) from error
    if commit is None:
        raise ModelError(f"The hub names no commit of {name}@{revision}; give --weak-revision.")
    return commit


@lru_cache(maxsize=256)
def download_adapter(name: str) -> Path:
    """The folder of an adapter from the hub; a ``ModelError`` if its weights are not safetensors."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.jinja", "*.safetensors"]  # pickled weights are not even downloaded
    commit = commit_of(name, None)
    try:
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=wanted))
    except Exception as error:  # as above
        raise ModelError(f"Adapter {name} cannot be downloaded: {redacted(str(error))}") from error
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"The adapter {name} has no adapter_model.safetensors file; pickled weights can execute code when "
            "they are loaded and are refused."
        )
    return folder
