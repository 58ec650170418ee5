"""The engine: asks what an evaluation still lacks, many samples at a time, and records what comes back.

Models, retries and connection limits are Inspect's, and so is the log that is left at the end. The loop
over samples is ours: it keeps only what is in flight in memory, and notes every call in a journal, so
that nothing that was paid for is asked again.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from inspect_ai.util._concurrency import init_concurrency

from cowest_bench.config import ROLES, Limits, ModelSpec, Role
from cowest_bench.errors import (
    BudgetError,
    Interrupted,
    ModelError,
    NotSentError,
    RunError,
    redacted,
)
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.journal import Answer, Journal
from cowest_bench.lab.local import Local
from cowest_bench.lab.rescore import row_scored_again
from cowest_bench.lab.transcript import write_transcript
from cowest_bench.models.budget import Budget, price
from cowest_bench.models.endpoints import open_model
from cowest_bench.models.memory import BATCH_SIZE
from cowest_bench.store import Run, SampleScore, content_hash
from cowest_bench.systems.turn import Ask, Call, call, said

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, Model

ERROR_LENGTH = 1000  # characters of a message that a record keeps
FIRST_SECONDS = 30.0  # how long the others wait for the first sample, which finds a wrong key alone
NO_ACCESS = (401, 403, 404)  # HTTP: it would not help to ask about another sample

Key = TypeVar("Key")
Work = Callable[[Key], Awaitable[str | None]]


class Engine:
    """Models, opened to be asked about many samples at a time.

    Attributes:
        models: By role; they are closed when the engine has run.
        stopped: Why no further sample is begun, if there is a reason.
    """

    def __init__(
        self, specs: Mapping[Role, ModelSpec], limits: Limits, budget: Budget | None = None
    ) -> None:
        """Open the models.

        Raises:
            ConfigError: If the budget is in dollars and a model has no price.
            ModelError: If a model cannot be opened or loaded.
        """
        if budget is not None:
            budget.check(specs)
        self.models = {
            role: self._unless_stopped(open_model(s, limits)) for role, s in specs.items()
        }
        self.stopped: RunError | None = None
        self._specs = specs
        self._limits = limits
        self._budget = budget
        self._known: set[Role] = set()  # roles whose model has answered

    def run(self, keys: Iterable[Key], work: Work[Key]) -> None:
        """Do the work for every key, until there is a reason to stop; what is in flight is finished.

        ``work`` returns why a sample was not answered, or None. ``stopped`` says why some were not begun:
        the process was told to end (Ctrl-C, SIGTERM; at once if told twice), a model refuses access or has
        failed too often in a row, or the budget is spent.

        Raises:
            CowestError: What ``work`` raises.
        """
        _run_outside_of_loops(lambda: self._run(iter(keys), work))

    async def _run(self, keys: Iterator[Key], work: Work[Key]) -> None:
        init_concurrency()
        first = asyncio.Event()
        numbered = enumerate(keys)  # which all workers share
        streak = _Streak()

        async def worker() -> None:
            for number, key in numbered:
                if self.stopped is not None:
                    return
                # A task of its own, since Inspect keeps a transcript for as long as a task lives.
                error = await asyncio.create_task(_coroutine(work(key)))
                if streak.note(number, error is not None) >= self._limits.failures:
                    many = self._limits.failures
                    self._stop(RunError(f"{many} samples in a row were not answered: {error}"))
                first.set()

        try:
            with self._told_to_end(asyncio.current_task()):
                async with asyncio.TaskGroup() as workers:
                    workers.create_task(worker())
                    if not all(spec.is_local for spec in self._specs.values()):
                        await asyncio.wait(
                            [asyncio.create_task(first.wait())], timeout=FIRST_SECONDS
                        )
                    for _ in range(max(4 * BATCH_SIZE, self._limits.connections or 0) - 1):
                        workers.create_task(worker())
        except* asyncio.CancelledError:
            pass  # told twice to end
        except* Exception as errors:  # noqa: BLE001 (one of them is raised)
            raise errors.exceptions[0] from None
        finally:
            for model in self.models.values():
                await model.api.aclose()

    @contextmanager
    def _told_to_end(self, task: asyncio.Task[Any] | None) -> Iterator[None]:
        """Stop at the first Ctrl-C or SIGTERM, and cancel the task at the second."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}
        loop = asyncio.get_running_loop()

        def end(number: int) -> None:
            if isinstance(self.stopped, Interrupted) and task is not None:
                task.cancel()
            self.stopped = Interrupted.by(number)

        for number in signals:
            loop.add_signal_handler(number, end, number)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _stop(self, reason: RunError) -> None:
        self.stopped = self.stopped or reason

    def _unless_stopped(self, model: Model) -> Model:
        """The model, which refuses calls that still wait for a connection when the engine stops."""
        generate = model.api.generate

        async def unless_stopped(*args: Any, **kwargs: Any) -> Any:
            if self.stopped is not None:
                raise NotSentError("not sent")
            return await generate(*args, **kwargs)

        model.api.generate = unless_stopped  # type: ignore[method-assign]
        return model

    async def ask(self, role: Role, messages: list[ChatMessage], config: GenerateConfig) -> Call:
        """Ask the model in a role, by its own ``sampling`` before other settings.

        Raises:
            ModelError: If there is no answer.
            NotSentError: If the engine is to stop, or has to because the call could pass the budget.
        """
        spec, model, budget = self._specs[role], self.models[role], self._budget
        config = config.model_copy(update=spec.sampling)
        try:
            if budget is None:
                answered = await call(model, role, messages, config)
            else:
                async with budget.reserved(spec.price, messages, config.max_tokens) as spent:
                    answered = await call(model, role, messages, config)
                    spent(answered.input, answered.output)
        except BudgetError as error:
            self._stop(error)
            raise NotSentError(str(error)) from error
        except ModelError as error:
            if error.status in NO_ACCESS and role not in self._known:
                self._stop(RunError(f"{spec.name} refuses access, so no sample is asked. {error}"))
            raise
        self._known.add(role)
        return answered


class _Streak:
    """How many samples in a row have failed, in the order in which they were begun.

    In the order in which they end, a share of quick failures would look like a streak.
    """

    def __init__(self) -> None:
        self._ended: dict[int, bool] = {}
        self._next = 0
        self._length = 0

    def note(self, number: int, failed: bool) -> int:
        """Note how a sample has ended; returns the length of the streak that is known to be one."""
        self._ended[number] = failed
        while self._next in self._ended:
            self._length = self._length + 1 if self._ended.pop(self._next) else 0
            self._next += 1
        return self._length


async def _coroutine(work: Awaitable[str | None]) -> str | None:
    return await work


def _run_outside_of_loops(work: Callable[[], Any]) -> None:
    """Run a coroutine to its end, in a thread of its own if this one has a loop (as in a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work()).result()


# --- evaluations ----------------------------------------------------------------------------------


def complete(step: Evaluate, lab: Local, only: Collection[int] | None = None) -> Run:
    """Ask what an evaluation lacks, and store the run. Whoever calls this holds the step's claim.

    Args:
        step: What to evaluate.
        lab: Where, and within which limits.
        only: Ids of the samples that may be asked now. The others have rows that say so, and are asked
            by a later call.

    Raises:
        ConfigError: If the budget is in dollars and a model has no price.
        ModelError: If a model cannot be loaded.
        RunError: If not all samples were asked (see ``Engine.run``); the answers so far are recorded.
    """
    started = time.monotonic()
    before = step.run(lab.results)
    made_from = step.made_from(lab.results)
    if before is not None and before.made_from != made_from:  # its models have changed since
        before = before.model_copy(update={"reported": {}, "seconds": 0.0, "n_scored": 0})
        stored = []
    else:
        stored = lab.results.samples(before) if before is not None else []
    folder = f"{step.id}-{content_hash(made_from)}" if made_from else step.id
    journal = Journal(lab.results.logs / folder / "journal")
    try:
        rows = _Rows(step, journal, stored)
        missing = step.missing(rows, lab.results, only)
        if before is not None and not missing:
            return before
        record = step.record(
            lab.results
        )  # now: another process may train its model again meanwhile
        specs = step.specs(lab.results)
        stopped = _ask(step, lab, specs, journal, missing) if missing else None
        scored = [row.score for row in rows if row.score is not None]
        if stopped is not None and not scored:
            raise stopped
        reported = _reported(specs, journal, before)
        run = Run(
            **record,
            n_total=len(step.answers),
            n_scored=len(scored),
            score=sum(scored) / len(scored) if scored else None,
            metrics=step.metrics(rows, lab.results),
            reported=reported,
            attempts=before.attempts + 1 if before else 1,
            seconds=time.monotonic() - started + (before.seconds if before else 0.0),
            log=f"logs/{folder}",
        )
        write_transcript(journal.path.with_name(f"{step.id}.eval"), run, step, rows, journal)
        run = lab.results.write(run, rows)
        if run.n_scored == run.n_total:
            journal.path.unlink()
    except OSError as error:
        raise RunError(
            f"{lab.results.root} cannot be written to ({error.strerror or error}). The answers are in "
            f"{journal.path}; with room on the disk, the same command continues from them."
        ) from error
    finally:
        journal.close()
    if stopped is not None:
        raise _continued(stopped, run)
    return run


def _ask(
    step: Evaluate,
    lab: Local,
    specs: Mapping[Role, ModelSpec],
    journal: Journal,
    missing: list[Answer],
) -> RunError | None:
    """Ask for the missing answers; returns why not for all of them, if so."""
    engine = Engine(specs, lab.limits, lab.budget)
    answer = step.answering(lab.results, engine.models)
    done = 0
    lab.progress(step.about, done, len(missing))

    async def work(key: Answer) -> str | None:
        nonlocal done
        ask = _Recorded(engine.ask, journal, key)
        for _ in range(1 + lab.limits.sample_retries):
            row = await answer(key, ask)
            if ask.not_sent:
                return None  # another time
            if row.error is None or row.output is not None:
                break
            ask.again()
        error = redacted(row.error)[:ERROR_LENGTH] if row.error else None
        row = replace(row, error=error, **_usage(ask.calls, specs))
        journal.note_row(key, _changes(row) | {"score_id": step.score_id})
        done += 1
        lab.progress(step.about, done, len(missing))
        return error if row.output is None else None

    engine.run(missing, work)
    return engine.stopped


class _Recorded:
    """Asks for one answer: what the journal has is replayed, what it lacks is asked and noted.

    Attributes:
        calls: That were answered, so far.
        not_sent: Whether a call was not made, because the engine is to stop.
    """

    def __init__(self, ask: Ask, journal: Journal, answer: Answer) -> None:
        self._ask = ask
        self._journal = journal
        self._answer = answer
        self.calls = list(journal.calls(answer))
        self.not_sent = False
        self._next = 0
        self._failed = False

    async def __call__(
        self, role: Role, messages: list[ChatMessage], config: GenerateConfig
    ) -> Call:
        n = self._next
        if n == len(self.calls) or (self.calls[n].role, self.calls[n].messages) != (
            role,
            said(messages),
        ):
            self._failed = True
            try:
                answered = await self._ask(role, messages, config)
            except NotSentError:
                self.not_sent = True
                raise
            self._failed = False
            self.calls[n:] = [answered]
            self._journal.note_call(self._answer, n, answered)
        self._next += 1
        return self.calls[n]

    def again(self) -> None:
        """Begin from the first call again, without the last one if what it said was of no use."""
        if not self._failed:
            self.calls = self.calls[: self._next - 1]
        self._next = 0


class _Rows:
    """The rows of a run in the order of its answers, as often as they are wanted, from where they lie."""

    def __init__(
        self,
        step: Evaluate,
        journal: Journal,
        stored: Iterable[SampleScore],
    ) -> None:
        self._step = step
        self._journal = journal
        self._stored = {(row.sample_id, row.epoch): row for row in stored if not row.error}

    def get(self, answer: Answer) -> SampleScore | None:
        """The row of an answer, by the present scoring, if it was asked for."""
        if answer in self._stored:
            return self._stored[answer]
        found = self._journal.row(answer)
        if found is None:
            return None
        score_id = found.pop("score_id")
        row = replace(self._step.unanswered(answer), **found)
        # An interrupted run may be resumed after a change of its filters.
        return row if score_id == self._step.score_id else row_scored_again(row, self._step.task)

    def __iter__(self) -> Iterator[SampleScore]:
        for answer in self._step.answers:
            yield self.get(answer) or self._step.unanswered(answer)


_MADE_BEFORE = ("run_id", "sample_id", "epoch", "cluster", "question", "gold")


def _changes(row: SampleScore) -> dict[str, Any]:
    """What an answer adds to the row of its sample."""
    return {
        field.name: getattr(row, field.name)
        for field in fields(row)
        if field.name not in _MADE_BEFORE
    }


def _usage(calls: list[Call], specs: Mapping[Role, ModelSpec]) -> dict[str, Any]:
    """What calls took by role; None where the endpoint did not say, or its price is not known."""
    usage: dict[str, Any] = {}
    for role in ROLES:
        own = [call for call in calls if call.role == role]
        tokens = _total(call.input for call in own), _total(call.output for call in own)
        spec = specs.get(role)
        priced = spec is None or spec.is_free or spec.price is not None
        usage |= {
            f"{role}_calls": len(own),
            f"{role}_input_tokens": tokens[0],
            f"{role}_output_tokens": tokens[1],
            f"{role}_seconds": _total(call.seconds for call in own) if own else None,
            f"{role}_cost": price(spec.price if spec else None, *tokens)
            if priced and None not in tokens
            else None,
        }
    return usage | {"cost": _total(usage[f"{role}_cost"] for role in specs)}


def _total(values: Iterable[Any]) -> Any:
    """Their sum, or None if one is not known."""
    known = list(values)
    return None if None in known else sum(known)


def _reported(
    specs: Mapping[Role, ModelSpec], journal: Journal, before: Run | None
) -> dict[str, list[str]]:
    """Which model each endpoint says has answered."""
    reported = {role: set(names) for role, names in (before.reported if before else {}).items()}
    for _, calls, _ in journal.finished():
        for each in calls:
            if not specs[each.role].is_local:
                reported.setdefault(each.role, set()).add(each.model)
    return {role: sorted(names) for role, names in reported.items()}


def _continued(stopped: RunError, run: Run) -> RunError:
    """The reason with what is left and how to go on."""
    left = run.n_total - run.n_scored
    larger = " with a larger budget" if isinstance(stopped, BudgetError) else ""
    how = (
        f"{run.n_scored:,} of {run.n_total:,} answers are recorded; the same command{larger} "
        f"continues with the other {left:,}."
    )
    stopped.args = (f"{stopped} {how}",)
    return stopped
