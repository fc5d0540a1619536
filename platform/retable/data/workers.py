"""Work on many files in processes that may crash or hang: each task gets an answer, and nothing waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

START_SECONDS = 60.0

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Lost:
    """Instead of an answer: the process died, or took longer than allowed and was ended."""

    reason: str


def each(
    work: Callable[[Task], Answer], tasks: Sequence[Task], *, processes: int | None = None, limit: float = 600.0
) -> Iterator[tuple[Task, Answer | Lost]]:
    """``work(task)`` of every task, as they are done. ``work`` and its values travel between processes.

    Args:
        work: must not raise for what can be wrong with one file; what it raises ends everything.
        tasks: in the order they are begun.
        processes: default: one per CPU; 0 works in this process, without the limit.
        limit: seconds after which one task is given up.
    """
    if processes == 0:
        yield from ((task, work(task)) for task in tasks)
        return
    waiting = list(reversed(tasks))
    crew = [_Worker(work) for _ in range(min(processes or os.cpu_count() or 1, len(tasks)))]
    try:
        for worker in crew:
            worker.give(waiting.pop())
        while busy := [worker for worker in crew if worker.task is not None]:
            for worker in _ready(busy, limit):
                task, answer = worker.task, worker.answer(limit)
                if isinstance(answer, Lost) and waiting:
                    worker.replace()
                if waiting:
                    worker.give(waiting.pop())
                assert task is not None
                yield task, answer
    finally:
        for worker in crew:
            worker.end()


class _Worker(Generic[Task, Answer]):
    """One process and the task it is at."""

    def __init__(self, work: Callable[[Task], Answer]) -> None:
        self._work = work
        self.task: Task | None = None
        self.since = 0.0
        self.replace()

    def replace(self) -> None:
        """Another process in the place of one that was lost."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(self._work, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._up = False

    def give(self, task: Task) -> None:
        """Hand out a task."""
        self.task, self.since = task, time.monotonic()
        try:
            self.pipe.send(task)
        except OSError:  # it died between two tasks: answer() finds the pipe closed
            return

    def answer(self, limit: float) -> Answer | Lost:
        """The answer that has come, or why none will."""
        self.task = None
        try:
            if not self.pipe.poll():
                self._process.kill()
                self._process.join()
                return Lost(f"no end after {limit:g} s: given up")
            found = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            return Lost(f"the process that read it crashed (exit code {self._process.exitcode})")
        if isinstance(found, BaseException):
            raise found
        answer: Answer = found
        return answer

    def deadline(self, limit: float) -> float:
        """When to give the task up, on the monotonic clock. A process that is still starting has a minute for that."""
        return self.since + (limit if self._up else max(limit, START_SECONDS))

    def has_answer(self) -> bool:
        """Whether what can be read from the pipe is an answer, and not the word that the process is up."""
        if self._up:
            return True
        try:
            self.pipe.recv()
        except (EOFError, OSError):
            return True
        self._up, self.since = True, time.monotonic()
        return self.pipe.poll()

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _ready(busy: Sequence[_Worker[Task, Answer]], limit: float) -> list[_Worker[Task, Answer]]:
    """Workers with an answer, dead ones, and those over their time; waits until there is one."""
    while True:
        left = min(worker.deadline(limit) for worker in busy) - time.monotonic()
        readable = wait([worker.pipe for worker in busy], max(0.0, left))
        answered = [worker for worker in busy if worker.pipe in readable and worker.has_answer()]
        late = [worker for worker in busy if worker.deadline(limit) <= time.monotonic() and worker not in answered]
        if answered or late:
            return answered + late


def _serve(work: Callable[[Task], Answer], pipe: Connection) -> None:
    """The other end: tasks in, answers out, until the pipe closes. The first word says that it is up."""
    pipe.send(None)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: object = work(task)
        except KeyboardInterrupt:
            return
        except Exception as error:
            answer = error
        pipe.send(answer)
