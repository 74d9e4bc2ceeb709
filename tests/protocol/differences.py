"""Where a model and the same model without a rule part: the shortest way there, and the step that tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.protocol.model import Model
from tests.protocol.state import Move, State


@dataclass(frozen=True)
class Difference:
    """After the steps of `way`, each with the state that it is taken from, `move` leads to `state` only with the rule.

    `is_barred`: with the rule there is no such move, and `state` is the one before it.
    """

    way: tuple[tuple[State, Move], ...]
    before: State
    move: Move
    state: State
    #: Where it would lead without the rule.
    without: State
    is_barred: bool = False


def nearest(model: Model, without: Model, visible: Callable[[State], object]) -> Difference | None:
    """The nearest difference that can be seen in what `visible` shows of a state."""
    start = model.scope.start()
    reached: dict[State, tuple[State, Move] | None] = {start: None}
    todo = [start]
    for state in todo:
        moves = {(move.verb, str(move.about)): move for move in model.moves(state)}
        others = {(move.verb, str(move.about)): move for move in without.moves(state)}
        for name in {**moves, **others}:
            move, other = moves.get(name), others.get(name)
            to = move.state if move else state
            instead = other.state if other else state
            taken = move or other
            if taken and visible(to) != visible(instead):
                return Difference(_way(reached, state), state, taken, to, instead, is_barred=move is None)
        for move in moves.values():
            if move.state not in reached:
                reached[move.state] = (state, move)
                todo.append(move.state)
    return None


def _way(reached: dict[State, tuple[State, Move] | None], state: State) -> tuple[tuple[State, Move], ...]:
    way: list[tuple[State, Move]] = []
    step = reached[state]
    while step:
        way.append(step)
        step = reached[step[0]]
    return tuple(reversed(way))
