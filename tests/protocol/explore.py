"""Breadth-first search through every reachable state; the first violation comes with its shortest trace."""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import dataclass

from tests.protocol.invariants import broken, broken_step, is_over
from tests.protocol.model import Model
from tests.protocol.state import Move


@dataclass(frozen=True)
class Result:
    """What was found. `violation` is empty when everything holds."""

    states: int
    steps: int
    violation: str = ""


class _Search:
    def __init__(self, model: Model) -> None:
        self._model = model
        start = model.scope.start()
        self._numbers = {start: 0}
        self._states = [start]
        #: How each state was reached first.
        self._reached: list[tuple[int, Move | None]] = [(0, None)]
        #: From where each state can be reached without a fault or a decision.
        self._sources: list[list[int]] = [[]]
        self._steps = 0

    def run(self) -> Result:
        """Until everything was seen or something is wrong."""
        at = 0
        while at < len(self._states):
            wrong = self._expand(at)
            if wrong:
                return wrong
            at += 1
        stuck = self._stuck()
        if stuck is not None:
            return self._result(stuck, "not everything can be settled any more")
        return Result(len(self._states), self._steps)

    def _expand(self, at: int) -> Result | None:
        state, scope = self._states[at], self._model.scope
        for move in self._model.moves(state):
            self._steps += 1
            number = self._numbers.get(move.state)
            is_new = number is None
            if number is None:
                number = self._add(move, at)
            wrong = broken_step(state, move)
            if wrong:
                return self._result(at, wrong, move)
            if is_new and (wrong := broken(scope, move.state)):
                return self._result(number, wrong)
            if move.helps:
                self._sources[number].append(at)
        return None

    def _add(self, move: Move, source: int) -> int:
        number = len(self._states)
        self._numbers[move.state] = number
        self._states.append(move.state)
        self._reached.append((source, move))
        self._sources.append([])
        return number

    def _stuck(self) -> int | None:
        """The nearest state from which no way leads to the end by itself."""
        ends = [number for number, state in enumerate(self._states) if is_over(state)]
        alive, todo = set(ends), deque(ends)
        while todo:
            for source in self._sources[todo.popleft()]:
                if source not in alive:
                    alive.add(source)
                    todo.append(source)
        return next((number for number in range(len(self._states)) if number not in alive), None)

    def _result(self, number: int, what: str, step: Move | None = None) -> Result:
        names = [step.name] if step else []
        state = step.state if step else self._states[number]
        while number:
            number, move = self._reached[number]
            assert move is not None
            names.append(move.name)
        steps = "\n".join(f"  {n}. {name}" for n, name in enumerate(reversed(names), 1))
        text = f"{what}\nin the scope '{self._model.scope.name}', after\n{steps}\nin the state\n  {state}"
        return Result(len(self._states), self._steps, text)


def explore(model: Model) -> Result:
    """Walk the whole scope."""
    # Nothing here is ever garbage before the end, and looking for it takes half of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _Search(model).run()
    finally:
        if was_enabled:
            gc.enable()
