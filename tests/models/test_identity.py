"""What identifies a model: content, not paths; commits, not branches; no versions of libraries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors
from huggingface_hub import constants

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ModelError
from cowest_bench.models import (
    engine_versions,
    generation_id,
    hub,
    pinned,
    require_usable,
    weights_hash,
    weights_id,
)
from cowest_bench.models.endpoints import open_model
from cowest_bench.models.identity import adapter_folder
from cowest_bench.models.memory import Weights
from cowest_bench.pocket import llama

SHIPPED = Path(llama.__file__).parent / "strong"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the strong model that the package ships."""
    copied = tmp_path / "model"
    shutil.copytree(SHIPPED, copied)
    return copied


def spec(folder: Path, **changes: Any) -> ModelSpec:
    return ModelSpec(name=str(folder), **changes)


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_its_content_not_its_path(folder: Path) -> None:
    assert weights_id(spec(folder)) == weights_id(spec(SHIPPED))
    assert weights_id(spec(folder)) == {"weights": weights_hash(SHIPPED), "adapter": None}
    (folder / "README.md").write_text("another")
    (folder / "training.json").write_text("{}")
    assert weights_id(spec(folder)) == weights_id(spec(SHIPPED))


def change_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model.safetensors", change_last_byte),
        ("tokenizer.json", lambda file: file.write_text(file.read_text() + " ")),
        ("chat_template.jinja", lambda file: file.write_text("{{ messages }}")),
        ("generation_config.json", lambda file: file.write_text('{"repetition_penalty": 2}')),
        ("merges.txt", lambda file: file.write_text("a b")),
        ("modeling_own.py", lambda file: file.write_text("pass")),
    ],
)
def test_every_file_that_decides_answers_counts(
    folder: Path, file: str, change: Callable[[Path], object]
) -> None:
    change(folder / file)
    assert weights_id(spec(folder)) != weights_id(spec(SHIPPED))


def write_adapter(
    folder: Path, base: str, *, suffix: str = ".safetensors", **config: object
) -> Path:
    """As peft lays one out; nothing here loads its weights."""
    folder.mkdir(exist_ok=True)
    (folder / f"adapter_model{suffix}").write_bytes(safetensors.serialize({}))
    written = {"base_model_name_or_path": base, "r": 4, "target_modules": ["a", "b"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder


@pytest.mark.parametrize(
    ("config", "same"),
    [
        ({}, True),
        ({"base_model_name_or_path": "/elsewhere/model"}, True),
        ({"target_modules": ["b", "a"]}, True),  # a set, which peft writes in any order
        ({"peft_version": "99"}, True),
        ({"lora_alpha": 64}, False),
        ({"r": 8}, False),
    ],
)
def test_an_adapter_is_its_weights_and_how_they_are_scaled(
    folder: Path, tmp_path: Path, config: dict[str, object], same: bool
) -> None:
    one = write_adapter(tmp_path / "one", str(folder))
    other = write_adapter(tmp_path / "other", **{"base": str(folder), **config})  # type: ignore[arg-type]
    found = [weights_id(spec(folder, adapter=str(adapter))) for adapter in (one, other)]
    assert found[0] == {"weights": weights_hash(SHIPPED), "adapter": weights_hash(one)}
    assert (found[0] == found[1]) is same


def test_what_a_training_step_made_is_identified_by_the_step(folder: Path, tmp_path: Path) -> None:
    """As long as its weights are those that the step wrote."""

    def write_card(where: Path, **card: object) -> None:
        (where / "card.json").write_text(json.dumps(card | {"content": weights_hash(where)}))

    write_card(folder, kind="sft", id="5f7")
    assert weights_id(spec(folder)) == {"made": "5f7"}
    adapter = write_adapter(tmp_path / "adapter", str(folder))
    tuned = spec(folder, adapter=str(adapter))
    assert weights_id(tuned) == {"made": "5f7", "adapter": weights_hash(adapter)}
    write_card(adapter, kind="dpo", id="d90", model=weights_id(spec(folder)))
    assert weights_id(tuned) == {"made": "d90"}
    on_another = tuned.model_copy(update={"name": str(SHIPPED)})
    assert weights_id(on_another)["weights"] == weights_hash(SHIPPED)
    change_last_byte(folder / "model.safetensors")
    assert weights_id(spec(folder)) == {"weights": weights_hash(folder), "adapter": None}
    assert "made" not in weights_id(tuned)


def test_a_folder_that_vllm_serves_has_the_same_weights(folder: Path) -> None:
    served = ModelSpec(name=f"vllm/{folder}", dtype="float32")
    assert weights_id(served) == weights_id(spec(folder))
    assert generation_id(served) == {"dtype": "float32", "engine": "vllm"}
    assert generation_id(spec(folder)) == {"dtype": "auto"}


def test_an_endpoint_is_its_name() -> None:
    endpoint = ModelSpec(name="openai/gpt-4o", revision="may", sampling={"top_p": 0.9})
    assert weights_id(endpoint) == {"name": "openai/gpt-4o", "revision": "may"}
    assert generation_id(endpoint) == {"sampling": {"top_p": 0.9}}
    assert engine_versions(endpoint) == {}


def test_versions_are_apart(folder: Path) -> None:
    assert set(engine_versions(spec(folder))) == {"torch", "transformers", "peft"}
    hashed = weights_id(spec(folder)) | generation_id(spec(folder))
    assert not set(hashed) & {"torch", "transformers", "peft"}


# --- the hub --------------------------------------------------------------------------------------


def cache(repository: Path, name: str, source: Path, commit: str = COMMIT) -> None:
    """A model in the hub's cache, as downloading ``main`` leaves it."""
    repo = repository / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub._newest_commit.cache_clear()
    hub.download_adapter.cache_clear()
    return tmp_path / "hub"


def test_an_unpinned_hub_model_is_its_commit(hub_cache: Path) -> None:
    cache(hub_cache, "org/pocket", SHIPPED)
    unpinned = ModelSpec(name="hf/org/pocket", dtype="float32")
    assert weights_id(unpinned) == {"name": "hf/org/pocket", "revision": COMMIT}
    branch = unpinned.model_copy(update={"revision": "main"})
    commit = unpinned.model_copy(update={"revision": COMMIT})
    assert weights_id(unpinned) == weights_id(branch) == weights_id(commit)
    assert pinned(unpinned) == commit
    assert Weights.of(unpinned) == Weights.of(commit)
    assert weights_id(ModelSpec(name="vllm/org/pocket"))["revision"] == COMMIT
    assert open_model(unpinned).name == "org/pocket"  # exactly this commit is loaded


def test_a_commit_that_nobody_knows_needs_the_option(hub_cache: Path) -> None:
    unknown = ModelSpec(name="hf/org/nowhere")
    with pytest.raises(ModelError, match=r"give it with --weak-revision") as caught:
        weights_id(unknown)
    assert "\n" not in str(caught.value)
    assert weights_id(unknown, resolve=False) == {"name": "hf/org/nowhere@main", "revision": None}


def test_the_hub_is_asked_for_what_is_not_cached(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own client; only the answer is put in its place, since the tests have no network."""
    asked = []

    def model_info(self: object, name: str, **options: object) -> huggingface_hub.ModelInfo:
        asked.append((name, options["revision"]))
        return huggingface_hub.ModelInfo(id=name, sha=COMMIT)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    for _ in range(2):
        assert weights_id(ModelSpec(name="hf/org/new"))["revision"] == COMMIT
    assert asked == [("org/new", "main")]


def test_an_adapter_on_the_hub_is_its_commit_and_must_be_safe(
    hub_cache: Path, tmp_path: Path
) -> None:
    cache(hub_cache, "org/pocket", SHIPPED)
    cache(hub_cache, "org/safe", write_adapter(tmp_path / "safe", "org/pocket"))
    pickled = write_adapter(tmp_path / "pickled", "org/pocket", suffix=".bin")
    cache(hub_cache, "org/pickled", pickled)
    cache(hub_cache, "org/other", write_adapter(tmp_path / "other", "org/larger"))
    base = ModelSpec(name="hf/org/pocket")
    safe = base.model_copy(update={"adapter": "org/safe"})
    assert weights_id(safe)["adapter"] == f"org/safe@{COMMIT}"
    assert adapter_folder(safe) == str(hub_cache / "models--org--safe" / "snapshots" / COMMIT)
    require_usable(safe)
    require_usable(base.model_copy(update={"adapter": "org/not-cached"}))  # for a dry run
    for refuse in (adapter_folder, require_usable):
        with pytest.raises(ModelError, match="pickled weights can execute code"):
            refuse(base.model_copy(update={"adapter": "org/pickled"}))
        with pytest.raises(ModelError, match="trained on org/larger and does not fit org/pocket"):
            refuse(base.model_copy(update={"adapter": "org/other"}))


# --- what cannot be used --------------------------------------------------------------------------


def test_missing_and_unsafe_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        require_usable(ModelSpec(name="hf/./nowhere"))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    for name in (tmp_path, f"hf/{tmp_path}", f"vllm/{tmp_path}"):
        with pytest.raises(ModelError, match="safetensors"):
            require_usable(ModelSpec(name=str(name)))


@pytest.mark.parametrize("base", ["hf/org/pocket", "vllm/org/pocket", "hf/{}", "vllm/{}", "{}"])
def test_pickled_adapters_are_refused_on_every_base(
    base: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a relative path, which could be a name on the hub, and beside other safetensors."""
    monkeypatch.chdir(tmp_path)
    adapter = write_adapter(Path("adapter"), "org/pocket", suffix=".bin")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"folder adapter has no adapter_model\.safetensors"):
            require_usable(ModelSpec(name=base.format(folder), adapter="adapter"))
        shutil.copy(SHIPPED / "model.safetensors", adapter)


def test_damaged_files_are_refused(folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(folder))
    tuned = spec(folder, adapter=str(adapter))
    require_usable(tuned)
    for weights in (adapter / "adapter_model.safetensors", folder / "model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(ModelError, match=f"The weights {weights} are damaged"):
            require_usable(tuned)
        shutil.copy(SHIPPED / "model.safetensors", weights)
    (adapter / "adapter_config.json").write_text('{"r": 4')
    with pytest.raises(ModelError, match=r"no readable adapter_config.json"):
        require_usable(tuned)
    with pytest.raises(ModelError, match=r"no readable adapter_config.json"):
        weights_id(tuned)
    (folder / "card.json").write_text('{"id": ')
    assert weights_id(spec(folder)) == {"weights": weights_hash(folder), "adapter": None}


def test_an_unknown_number_format_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"\(dtype\) float61; did you mean float64"):
        require_usable(spec(folder, dtype="float61"))


def test_an_adapter_needs_weights_of_its_own() -> None:
    with pytest.raises(ModelError, match="behind an endpoint, where no adapter can be added"):
        require_usable(ModelSpec(name="openai/gpt-4o", adapter="somewhere"))


def test_identity_needs_neither_the_engine_nor_torch() -> None:
    program = (
        "import sys, cowest_bench.models as m; from cowest_bench.config import ModelSpec\n"
        "m.weights_id(ModelSpec(name='openai/x'))\n"
        "print(sorted({'inspect_ai', 'torch', 'lm_eval', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
