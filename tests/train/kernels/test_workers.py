"""The team: results in order, errors that surface, and threads that leave PyTorch's settings alone."""

import threading
import time

import pytest
import torch

from fixgrad.train.kernels.tiles import image_tiles
from fixgrad.train.kernels.workers import Workers, workers


@pytest.fixture(params=[1, 2, 4])
def team(request):
    return workers(request.param)


def test_results_come_in_the_order_of_the_items(team):
    def slow_first(item):
        time.sleep(0.01 if item == 0 else 0)
        return item * item

    assert team.map(slow_first, list(range(20))) == [item * item for item in range(20)]
    assert team.map(slow_first, []) == []


def test_each_item_is_computed_once(team):
    seen = []
    team.map(seen.append, list(range(100)))
    assert sorted(seen) == list(range(100))


def test_an_error_surfaces_and_the_team_goes_on(team):
    def fail(item):
        if item == 3:
            raise KeyError(item)
        return item

    for _ in range(3):
        with pytest.raises(KeyError):
            team.map(fail, list(range(8)))
    assert team.map(fail, [0, 1, 2]) == [0, 1, 2]


def test_an_error_in_a_helper_thread_surfaces():
    team, main = workers(2), threading.get_ident()

    def fail_elsewhere(_):
        time.sleep(0.01)
        if threading.get_ident() != main:
            raise KeyError("helper")

    with pytest.raises(KeyError):
        team.map(fail_elsewhere, list(range(10)))


def test_helpers_compute_with_one_thread_and_nobody_else_changes():
    before = torch.get_num_threads()
    team = Workers(3)
    assert torch.get_num_threads() == before
    threads = {}

    def note(_):
        threads[threading.get_ident()] = torch.get_num_threads()
        time.sleep(0.005)

    with team.alone():
        team.map(note, list(range(30)))
    assert torch.get_num_threads() == before
    assert len(threads) == 3
    assert set(threads.values()) == {1}
    fresh = []
    newcomer = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    newcomer.start()
    newcomer.join()
    assert fresh == [before]


def test_alone_restores_the_threads_after_an_error():
    before, team, inside = torch.get_num_threads(), workers(1), []

    def fail():
        with team.alone():
            inside.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [1]
    assert torch.get_num_threads() == before


def test_a_gpu_takes_large_tiles():
    images, size = 128, 4 << 20
    assert len(image_tiles(images, size)) == images
    assert len(image_tiles(images, size, device=torch.device("cpu"))) == images
    assert len(image_tiles(images, size, device=torch.device("cuda:0"))) == 2
