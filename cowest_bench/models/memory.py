"""Which local models stay in memory."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

from cowest_bench.config import ModelSpec
from cowest_bench.models.identity import adapter_folder, pinned, weights_hash

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

BATCH_SIZE = 64  # sequences generated together

#: Of the memory that is free when the first model is loaded. The other half is for activations, for
#: caches of keys and values, and for a training beside them.
SHARE_OF_FREE = 0.5


class Weights(NamedTuple):
    """What is loaded: a model with what changes its numbers. Changed files are another model."""

    path: str
    adapter: str | None  # a folder
    revision: str | None
    dtype: str
    remote_code: bool
    hashes: tuple[str, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> Weights:
        """The weights of a local model. What is on the hub is pinned to its commit.

        Raises:
            ModelError: If a hub name cannot be resolved, or the adapter cannot be used.
        """
        spec, adapter = pinned(spec), adapter_folder(spec)
        hashes = [
            weights_hash(name) for name in (spec.path, adapter) if name and Path(name).is_dir()
        ]
        return cls(spec.path, adapter, spec.revision, spec.dtype, spec.remote_code, tuple(hashes))

    def read(self) -> HFLM:
        """Load them. Raises what transformers and peft raise."""
        from cowest_bench.models.hflm import SeededHFLM, default_device, quiet

        with quiet():
            return SeededHFLM(
                device=default_device(),
                pretrained=self.path,
                peft=self.adapter,
                revision=self.revision or "main",
                dtype=self.dtype,
                batch_size=BATCH_SIZE,
                trust_remote_code=self.remote_code,
                use_safetensors=True,
            )

    def size_on_disk(self) -> int:
        """Bytes of the weight files; 0 if they are not in a folder here."""
        return sum(file.stat().st_size for file in Path(self.path).glob("*.safetensors"))


class Memory:
    """Loaded models, least recently used first, while their parameters together fit in a bound.

    One model is always kept, however large. A model that is in use stays loaded when it is evicted here,
    and is freed with its last user.

    Args:
        bound: Bytes of parameters; by default ``SHARE_OF_FREE`` of what is free on the device when the
            first model is loaded.
    """

    def __init__(self, bound: int | None = None) -> None:
        self._given_bound = bound
        self._loaded: dict[Weights, HFLM] = {}
        self._lent: dict[Weights, HFLM] = {}
        self._leases = WeakSet[Lease]()
        self._lock = RLock()

    @cached_property
    def bound(self) -> int:
        """Bytes of parameters that are kept."""
        from cowest_bench.models.hflm import free_memory

        given = self._given_bound
        return int(SHARE_OF_FREE * free_memory()) if given is None else given

    @property
    def loaded(self) -> tuple[Weights, ...]:
        """What is kept, least recently used first."""
        return tuple(self._loaded)

    def lease(self, weights: Weights) -> Lease:
        """Use a model: it is loaded when first needed."""
        lease = Lease(self, weights)
        self._leases.add(lease)
        return lease

    def load(self, weights: Weights) -> HFLM:
        """The model from memory, or from disk. Raises what transformers and peft raise."""
        with self._lock:
            if weights in self._lent:
                return self._lent[weights]
            lm = self._loaded.pop(weights, None)
            if lm is None:
                self._make_room(weights.size_on_disk(), keep=0)
                lm = weights.read()
            self._loaded[weights] = lm
            self._make_room(0, keep=1)
            return lm

    def _make_room(self, coming: int, keep: int) -> None:
        bound = self.bound  # measured before anything is loaded
        sizes = {weights: _parameter_bytes(lm) for weights, lm in self._loaded.items()}
        while len(sizes) > keep and sum(sizes.values()) + coming > bound:
            oldest = next(iter(sizes))
            del sizes[oldest], self._loaded[oldest]

    @contextmanager
    def lend(self, weights: Weights, lm: HFLM) -> Iterator[None]:
        """Have a model that somebody else owns used for these weights meanwhile."""
        self._lent[weights] = lm
        try:
            yield
        finally:
            del self._lent[weights]
            self._end_leases({weights})

    def forget(self, spec: ModelSpec) -> None:
        """Free all copies of a base, with or without an adapter, even those in use.

        Their users load them again if they go on.
        """
        self._forget({weights for weights in self._loaded if weights.path == spec.path})

    def forget_all_but(self, specs: Iterable[ModelSpec]) -> None:
        """Free all models but these, with or without an adapter."""
        kept = {spec.path for spec in specs}
        self._forget({weights for weights in self._loaded if weights.path not in kept})

    def _forget(self, gone: Collection[Weights]) -> None:
        for weights in gone:
            del self._loaded[weights]
        self._end_leases(gone)

    def _end_leases(self, gone: Collection[Weights]) -> None:
        for lease in [*self._leases]:
            if lease.weights in gone:
                lease.end()
        if gone:
            gc.collect()  # models are full of reference cycles


class Lease:
    """The use of a model by one provider. It can be ended for it; the model is then loaded again."""

    def __init__(self, memory: Memory, weights: Weights) -> None:
        self.weights = weights
        self._memory = memory
        self._lm: HFLM | None = None

    @property
    def lm(self) -> HFLM:
        """lm-eval's model."""
        if self._lm is None:
            self._lm = self._memory.load(self.weights)
        return self._lm

    def end(self) -> None:
        """Let go of the model."""
        self._lm = None


def _parameter_bytes(lm: HFLM) -> int:
    return sum(p.numel() * p.element_size() for p in lm.model.parameters())


MEMORY = Memory()  # of this process
