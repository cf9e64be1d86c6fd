"""The agenda, and completions."""

from fixgrad.simulate.timing.events import Agenda, Progress, SharedProgress


def test_actions_come_in_the_order_of_time_and_then_of_asking() -> None:
    agenda, seen = Agenda(), list[tuple[str, int]]()

    def later(now: int) -> None:
        seen.append(("later", now))
        agenda.at(now, lambda now: seen.append(("same cycle", now)))

    agenda.at(5, later)
    agenda.at(3, lambda now: seen.append(("first", now)))
    agenda.at(5, lambda now: seen.append(("second", now)))
    agenda.run()
    assert seen == [("first", 3), ("later", 5), ("second", 5), ("same cycle", 5)]


def test_completions_are_in_order_and_wake_those_who_wait_at_their_time() -> None:
    agenda, woken = Agenda(), list[tuple[int, int]]()
    progress = Progress(agenda)
    progress.when_known(2, lambda now: woken.append((2, now)))
    progress.when_known(4, lambda now: woken.append((4, now)))
    progress.complete(10)
    agenda.run()
    assert woken == []
    progress.complete(7)  # earlier than the one before: completes with it
    progress.complete(12, count=2)
    agenda.run()
    assert progress.times == [10, 10, 12, 12]
    assert woken == [(2, 10), (4, 12)]


def test_a_shared_instruction_completes_with_the_slowest_group() -> None:
    agenda = Agenda()
    progress = SharedProgress(agenda, 3)
    for group, number, time in ((0, 0, 5), (0, 1, 6), (2, 0, 9), (2, 1, 9), (1, 0, 7)):
        progress.arrive(group, number, time)
    assert progress.times == [9]
    progress.arrive(1, 1, 20)
    assert progress.times == [9, 20]
    assert progress.last == [2, 1]
