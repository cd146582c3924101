import threading

import pytest

from heartseg_jax.threads import map_in_order


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_are_in_order_and_each_once(workers):
    assert list(map_in_order(lambda n: n * n, iter(range(7)), workers)) == [0, 1, 4, 9, 16, 25, 36]
    assert list(map_in_order(str, [], workers)) == []


def test_two_are_worked_on_at_once():
    both = threading.Barrier(2, timeout=30)  # broken, and so an error, unless two threads meet at it
    assert len(list(map_in_order(lambda _: both.wait(), range(4), 2))) == 4


def test_no_more_begin_than_the_window_holds():
    begun = []
    results = map_in_order(lambda n: begun.append(n) or n, range(100), 2)
    assert next(results) == 0
    results.close()
    assert len(begun) <= 4  # three in the window and the one that took the first one's place


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_in_the_place_of_its_result(workers):
    results = map_in_order(lambda n: 6 // n, [1, 2, 0, 3], workers)
    assert [next(results), next(results)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
