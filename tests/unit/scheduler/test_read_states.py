"""The table of transitions, against the drawing of it."""

import pytest

from dynein.scheduler.read_states import TRANSITIONS, Event, IllegalTransition, State, after

MACHINES = {
    State.CAUGHT_UP: {State.CAUGHT_UP, State.FORWARD},
    State.NO_REREAD: {State.NO_REREAD, State.LATE_WRITES, State.EVICTED, State.OLDEST_BUCKET},
    State.ROOM_ASKED: {State.ROOM_ASKED, State.ROOM_UNKNOWN},
    State.RETIRED: {State.RETIRED, State.REFUSED, State.AT_ONCE},
}
"""By the state each begins in."""


def reachable(state: State) -> set[State]:
    found = {state}
    while more := {to for known in found for to in TRANSITIONS[known].values()} - found:
        found |= more
    return found


def test_every_state_belongs_to_one_machine_and_can_be_reached_in_it_and_left() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {first: reachable(first) for first in MACHINES} == MACHINES
    assert sum(map(len, MACHINES.values())) == len(State)
    assert all(first in reachable(state) for first, states in MACHINES.items() for state in states)


def test_every_event_happens_in_one_machine_only_but_for_pages_read() -> None:
    for event in Event:
        machines = [first for first, states in MACHINES.items() if any(event in TRANSITIONS[state] for state in states)]
        assert len(machines) == (2 if event in (Event.PAGE_READ, Event.END_READ) else 1), event


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_what_is_not_in_the_table_raises(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert after(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=rf"{event.name} .* {state.name}"):
            after(state, event)


def test_a_reread_begins_only_when_none_is_under_way() -> None:
    begins = {Event.LATE_WRITES_SEEN, Event.ROOM_FOUND, Event.GRACE_OVER}
    for state in MACHINES[State.NO_REREAD] - {State.NO_REREAD}:
        assert not begins & set(TRANSITIONS[state])
