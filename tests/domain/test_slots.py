"""Places for deliveries: bounded, the longest unserved first, and dead peers never take those of the living."""

from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.slots import Slots

PEERS = [f"{at:02d}" for at in range(12)]


@given(
    st.integers(1, 8),
    st.sets(st.sampled_from(PEERS)),
    st.lists(st.tuples(st.sets(st.sampled_from(PEERS)), st.sets(st.sampled_from(PEERS))), max_size=30),
)
def test_places_are_never_more_than_there_are_and_dead_peers_have_half(
    places: int, suspects: set[str], rounds: list[tuple[set[str], set[str]]]
) -> None:
    slots = Slots(places, 5.0)
    running: set[str] = set()
    for at, (due, done) in enumerate(rounds):
        begun = slots.admit(due, suspects, float(at))
        assert set(begun) <= due - running
        running |= set(begun)
        assert len(running) <= places
        assert len(running & suspects) <= max(1, places // 2)
        if due - running:
            assert slots.waiting
        for peer in done & running:
            slots.done(peer)
        running -= done


def test_however_many_peers_hang_a_living_one_has_its_place() -> None:
    slots = Slots(4, 5.0)
    dead = {f"dead-{at}" for at in range(100)}
    assert len(slots.admit(sorted(dead), dead, 0.0)) == 2
    assert slots.admit([*sorted(dead), "living"], dead, 1.0) == ["living"]


def test_with_more_peers_than_places_each_has_a_turn_before_any_has_two() -> None:
    slots = Slots(3, 5.0)
    served: list[str] = []
    now = 0.0
    while len(served) < 2 * len(PEERS):
        now += 1
        begun = slots.admit(PEERS, set(), now)
        assert len(begun) == 3
        assert not any(slots.turn_is_over(peer, now + 4) for peer in begun)
        assert all(slots.turn_is_over(peer, now + 5) for peer in begun)
        for peer in begun:
            slots.done(peer)
        served += begun
    assert sorted(served[: len(PEERS)]) == PEERS
    assert sorted(served[len(PEERS) :]) == PEERS


def test_a_delivery_goes_on_for_as_long_as_nobody_waits_for_its_place() -> None:
    slots = Slots(4, 5.0)
    assert slots.admit(["a", "b"], {"b"}, 0.0) == ["a", "b"]
    assert not slots.turn_is_over("a", 1000.0)
    # Dead ones that wait for the half that they may have are no reason to end a good delivery.
    slots.admit(["a", "b", "c", "d"], {"b", "c", "d"}, 1.0)
    assert not slots.turn_is_over("a", 1000.0)
    assert slots.turn_is_over("b", 1000.0)
