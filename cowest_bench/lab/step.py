"""What a step is: a description of something to be made, whose id is known before it is made.

An id is a hash of how a thing is made: the ids of its inputs and its settings. So a plan knows all its
ids, a result that is stored under an id is never made twice, and pairings that need the same step share
it. What came out has a content hash in its record; a result remembers the contents of its inputs, and is
made again when they have changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from cowest_bench.config import ModelSpec, Role
from cowest_bench.models import generation_id, weights_id
from cowest_bench.store import content_hash

if TYPE_CHECKING:
    from cowest_bench.lab.local import Local
    from cowest_bench.store import Results


_unresolved: ContextVar[bool] = ContextVar("unresolved", default=False)


@contextmanager
def unresolved_models(allowed: bool = True) -> Iterator[None]:
    """Give a hub model whose commit is not known an id that no stored result has, for a dry run."""
    token = _unresolved.set(allowed)
    try:
        yield
    finally:
        _unresolved.reset(token)


class Step(ABC):
    """Something to be made from other steps' results."""

    verb: ClassVar[str]

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The verb, and everything that can change the result: ids of inputs, and settings."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Step, ...]:
        """The steps whose results it needs."""

    @property
    @abstractmethod
    def about(self) -> str:
        """What it does, in a few words for people."""

    @cached_property
    def id(self) -> str:
        """Hash of ``identity``."""
        return content_hash(self.identity)

    @property
    def models(self) -> Models:
        """The models that it asks or trains, by role."""
        return {}

    @abstractmethod
    def check(self) -> None:
        """Refuse what is known to fail, before anything is started; raises a ``CowestError``."""

    @abstractmethod
    def is_made(self, results: Results) -> bool:
        """Whether its result is stored, whole, and made from the present results of its inputs."""

    @abstractmethod
    def make(self, lab: Local) -> None:
        """Make the result, or what is missing of it, and store it."""


class TrainedModel(ABC):
    """A model that is trained here."""

    @property
    @abstractmethod
    def id(self) -> str:
        """Hash of how it is made."""

    @property
    @abstractmethod
    def origin(self) -> ModelSpec:
        """The model that a user named, from which this one descends."""

    @abstractmethod
    def spec(self, results: Results) -> ModelSpec:
        """The model as it is opened."""

    @abstractmethod
    def content(self, results: Results) -> str:
        """Hash of the weights, and of what they were trained from."""


Model: TypeAlias = ModelSpec | TrainedModel
Models: TypeAlias = Mapping[Role, Model]


def opened(model: Model, results: Results) -> ModelSpec:
    """The model as it is opened, which a training has made before."""
    return model if isinstance(model, ModelSpec) else model.spec(results)


def origin_of(model: Model) -> ModelSpec:
    """The model as a user named it, whatever it was trained to since."""
    return model if isinstance(model, ModelSpec) else model.origin


def weights_of(model: Model) -> dict[str, Any]:
    """What identifies a model's weights: their hash or name, or how they are made."""
    if isinstance(model, ModelSpec):
        return weights_id(model, resolve=not _unresolved.get())
    return {"made": model.id}


def model_id(model: Model) -> dict[str, Any]:
    """What identifies a model that answers: its weights, and how it generates."""
    return {**weights_of(model), **generation_id(origin_of(model))}


def trainings(models: Models) -> tuple[Step, ...]:
    """The steps that make the models."""
    return tuple(model for model in models.values() if isinstance(model, Step))


def contents(models: Models, results: Results) -> dict[str, str]:
    """Content hashes of the trained models by role; the ids of other models say it all."""
    return {
        role: model.content(results)
        for role, model in models.items()
        if isinstance(model, TrainedModel)
    }
