"""Working ahead in a background thread."""

import itertools
import threading
import time

import pytest

from a2d_d2.utils.parallel import map_ahead


def background_threads():
    return [x for x in threading.enumerate() if x.name.startswith("a2d_d2-ahead")]


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_results_come_in_order(ahead):
    assert list(map_ahead(lambda x: x * x, range(20), ahead)) == [x * x for x in range(20)]
    assert list(map_ahead(str, [], ahead)) == []
    assert list(map_ahead(lambda x: x, [None, 0], ahead)) == [None, 0]
    assert not background_threads()


def test_items_are_taken_and_worked_on_in_one_other_thread():
    seen = set()

    def items():
        for i in range(5):
            seen.add(threading.get_ident())
            yield i

    def work(item):
        seen.add(threading.get_ident())
        return item

    assert list(map_ahead(work, items(), 2)) == list(range(5))
    assert len(seen) == 1
    assert seen != {threading.get_ident()}


def test_works_a_bounded_number_of_items_ahead():
    taken = itertools.count()
    results = map_ahead(lambda x: x, taken, 3)
    for expected in range(10):
        assert next(results) == expected
    results.close()  # awaits what is in work
    assert next(taken) <= 10 + 3


@pytest.mark.parametrize("where", ["items", "function"])
def test_an_error_is_raised_in_its_place(where):
    def items():
        yield 1
        yield 2
        if where == "items":
            raise ValueError("broken")
        yield 0

    def work(item):
        if item == 0:
            raise ValueError("broken")
        return item

    results = map_ahead(work, items(), 4)
    assert next(results) == 1
    assert next(results) == 2
    with pytest.raises(ValueError, match="^broken$"):
        next(results)
    assert not background_threads()
    assert list(results) == []


@pytest.mark.parametrize("give_up", ["close", "drop"])
def test_giving_up_half_way_ends_the_thread_and_closes_the_items(give_up):
    closed = threading.Event()

    def items():
        try:
            for i in itertools.count():
                time.sleep(0.001)
                yield i
        finally:
            closed.set()

    results = map_ahead(lambda x: x, items(), 4)
    assert next(results) == 0
    assert background_threads()
    if give_up == "close":
        results.close()
    del results
    assert not background_threads()
    assert closed.is_set()
