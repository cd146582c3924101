"""Work on a sequence by several threads at once, its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(do: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield `do(item)` in the order of `items`, worked on by `workers` threads; in this one where that is 1.

    At most `workers + 1` results are begun or wait to be taken. What `do` raises is raised in the place of its result;
    what has not begun then, or when the iterator is closed, is not done.
    """
    if workers == 1:
        yield from map(do, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        # A window, not `map`: finished results must not pile up in front of a slow taker.
        window = deque(pool.submit(do, item) for item in islice(waiting, workers + 1))
        try:
            while window:
                result = window.popleft().result()
                window.extend(pool.submit(do, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in window:
                future.cancel()
