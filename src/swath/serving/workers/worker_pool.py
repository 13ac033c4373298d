"""Work that takes long, in a bounded number of threads with a bounded queue before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from swath.serving.http.errors import ApiError

T = TypeVar("T")


class WorkerPool:
    """Threads for one kind of work.

    A server that accepts everything dies of what it accepted; this one says 503 as soon as its queue is full,
    and 504 to who has waited too long. A thread cannot be stopped: work that was given up goes on to its end
    and keeps its place in the count until then.

    Args:
        name: For threads and messages.
        threads: How many things are done at once.
        waiting: How many more are accepted.
        seconds: Time until a request is given up, waiting included.
    """

    def __init__(self, name: str, threads: int, waiting: int, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.taken = 0  # accepted and not yet done
        self._most = threads + waiting
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"swath-{name}")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """`work(*arguments)` in one of the threads.

        Raises:
            Refusal: 503, the queue is full; 504, it took too long.
        """
        if self.taken >= self._most:
            raise ApiError(
                503,
                f"too many requests are waiting ({self.name})",
                "try again in a moment",
                {"Retry-After": "2"},
            )
        loop = asyncio.get_running_loop()
        self.taken += 1
        future = self._threads.submit(work, *arguments)
        future.add_done_callback(lambda _: _soon(loop, self._leave))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except TimeoutError:
            raise ApiError(
                504,
                f"it took longer than {self.seconds:g} seconds ({self.name})",
                "ask for less, or try again",
            ) from None

    def begin(self, work: Callable[[], object]) -> None:
        """Do it some time, before what is asked for later; its errors are those of whoever needs it next."""
        self._threads.submit(work)

    def _leave(self) -> None:
        self.taken -= 1

    def close(self) -> None:
        """Finish what has begun; drop what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
