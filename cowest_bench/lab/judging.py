"""Asking the evaluator: the solver and the scorer of ``judge``."""

from __future__ import annotations

from inspect_ai.model import ChatMessageUser, GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench.errors import ModelError
from cowest_bench.lab.judge import RATING_TOKENS, ratings, rubric
from cowest_bench.systems.turn import ask


@solver
def rate() -> Solver:
    """Ask the evaluator about the answers with and without a draft, in both orders."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        told = state.metadata
        ours, alone = told["with_draft"].get(str(told.get("epoch", state.epoch))), told["alone"]
        if ours is None or alone is None:
            raise ModelError("There is no answer to judge: the strong model gave none.")
        config = GenerateConfig(temperature=0.0, max_tokens=RATING_TOKENS)
        orders = []
        for first, second, sign in ((ours, alone, 1), (alone, ours, -1)):
            asked = rubric(state.input_text, told["gold"], first, second)
            answer = await ask(state, "evaluator", [ChatMessageUser(content=asked)], config)
            a, b = ratings(answer.completion)
            orders.append(sign * (a - b))
        state.metadata["orders"] = orders
        return state

    return solve


@scorer(metrics=[mean()])
def rated_influence() -> Scorer:
    """``Δ = E(strong(x, y)) - E(strong(x))``, the mean over both orders, in [-0.9, 0.9]."""

    async def score(state: TaskState, target: Target) -> Score:
        orders = state.metadata["orders"]
        return Score(value=sum(orders) / len(orders))

    return score
