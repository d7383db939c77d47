"""Which request a worker does next: fresh ones in order, failed ones when their time has come."""

import heapq
import time
from itertools import count
from threading import Condition

__all__ = ["Schedule"]


class Schedule:
    """Hand out tasks to threads, with a limit on how many are begun and not yet taken away.

    Parameters
    ----------
    tasks : iterable
        In the order in which to begin them.
    window : int
        Number of tasks begun whose results nobody has taken yet.
    """

    def __init__(self, tasks, window):
        self._fresh = iter(tasks)
        self._window = window
        self._begun = 0
        self._waiting = []
        self._numbers = count()
        self._condition = Condition()
        self.cancelled = False

    def take(self):
        """Wait for the next task.

        Returns
        -------
        object or None
            None where there is none any more, or the schedule is cancelled.
        """
        with self._condition:
            while not self.cancelled:
                now = time.monotonic()
                if self._waiting and self._waiting[0][0] <= now:
                    return heapq.heappop(self._waiting)[2]
                if self._fresh is not None and self._begun < self._window:
                    for task in self._fresh:
                        self._begun += 1
                        return task
                    self._fresh = None
                    self._condition.notify_all()
                if self._fresh is None and not self._begun:
                    break
                self._condition.wait(self._waiting[0][0] - now if self._waiting else None)
            return None

    def again(self, task, seconds):
        """Put a task back, to be taken after some time."""
        with self._condition:
            due = time.monotonic() + seconds
            heapq.heappush(self._waiting, (due, next(self._numbers), task))
            self._condition.notify_all()

    def taken(self):
        """Say that the result of one task was taken away."""
        with self._condition:
            self._begun -= 1
            self._condition.notify_all()

    def sleep(self, seconds):
        """Wait, unless the schedule is cancelled meanwhile."""
        with self._condition:
            self._condition.wait_for(lambda: self.cancelled, seconds)

    def cancel(self):
        """Hand out no more tasks, and wake all who wait."""
        with self._condition:
            self.cancelled = True
            self._condition.notify_all()
