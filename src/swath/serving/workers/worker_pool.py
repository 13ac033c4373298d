"""Slow work in a bounded number of threads with a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from swath.serving.http.errors import ApiError

T = TypeVar("T")


class WorkerPool:
    """Threads for one kind of work.

    A request gets status 503 if the queue is full, and 504 if it takes too long. A thread cannot be stopped:
    work that timed out runs to its end and is counted until then.

    Args:
        name: Name in threads and messages.
        threads: Number of threads.
        max_queue: Number of requests that may wait for a thread.
        seconds: Timeout of a request, waiting included.
    """

    def __init__(self, name: str, threads: int, max_queue: int, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.pending = 0  # accepted and not yet finished
        self._max_pending = threads + max_queue
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"swath-{name}")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """`work(*arguments)` in one of the threads.

        Raises:
            ApiError: 503 if the queue is full, 504 on a timeout.
        """
        if self.pending >= self._max_pending:
            raise ApiError(
                503,
                f"too many requests are waiting (worker pool {self.name!r})",
                "Try again in a moment.",
                {"Retry-After": "2"},
            )
        loop = asyncio.get_running_loop()
        self.pending += 1
        future = self._threads.submit(work, *arguments)
        future.add_done_callback(lambda _: _soon(loop, self._leave))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except TimeoutError:
            raise ApiError(
                504,
                f"the request took longer than {self.seconds:g} seconds (worker pool {self.name!r})",
                "Request less at once, or try again.",
            ) from None

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work` before later requests; its errors are ignored here and raised again by the next user."""
        self._threads.submit(work)

    def _leave(self) -> None:
        self.pending -= 1

    def close(self) -> None:
        """Finish running work; cancel what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
