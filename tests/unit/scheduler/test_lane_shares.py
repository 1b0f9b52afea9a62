"""What destinations take of the memory, and who is woken when memory frees up."""

from hypothesis import given
from hypothesis import strategies as st

from dynein.scheduler.memory_budget import LaneShares, MemoryBudget, lane_has_share

moves = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), max_size=60)


@given(moves, st.integers(4, 100))
def test_what_enters_a_lane_is_counted_until_it_leaves(moves: list[tuple[str, int, bool]], slots_max: int) -> None:
    lanes = LaneShares(slots_max)
    held: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for queue, slots, leaves in moves:
        if leaves and held[queue]:
            assert lanes.leave(queue, held[queue].pop()) == sum(held[queue])
        else:
            held[queue].append(slots)
            lanes.enter(queue, slots)
        assert lanes.jobs == sum(map(len, held.values()))
        total = sum(map(sum, held.values()))
        for name, taken in held.items():
            assert lanes.slots_of(name) == sum(taken)
            assert lanes.has_share(name) == lane_has_share(sum(taken), slots_max=slots_max, lanes_slots=total)


def test_those_who_wait_for_room_are_woken_in_order_one_for_a_part_of_a_page() -> None:
    memory = MemoryBudget(100, 20)
    assert [memory.reserve_page(0) for _ in range(6)] == [20, 20, 20, 20, 20, 0]
    woken: list[str] = []

    def first() -> None:
        woken.append("first")

    def second() -> None:
        woken.append("second")

    for wake in (first, second, first):
        memory.when_room(wake)
    for _ in range(4):
        memory.give_back(1)
    assert woken == []
    memory.give_back(1)
    assert woken == ["first"]
    memory.give_back(5)
    assert woken == ["first", "second"]
    memory.give_back(50)
    assert woken == ["first", "second"], "each once"
