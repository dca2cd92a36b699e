"""Pipeline orders: complete, runnable, no more in flight than they should, and with the bubbles they should have."""

from itertools import product

import pytest

from herdlm.parallel.schedule import Action, make_schedule

MICRO_BATCHES = (1, 2, 3, 5, 8, 13)
SHAPES = [(ranks, chunks, split) for ranks in (1, 2, 3, 4, 8) for chunks in (1, 2, 3) for split in (False, True)]


def play(orders, stages, split):
    """Run the orders as processes would that wait for what they need; when all is done, in units of a forward pass."""
    free, finished, at = [0] * len(orders), {}, [0] * len(orders)
    while any(place < len(order) for place, order in zip(at, orders, strict=True)):
        moved = False
        for rank, order in enumerate(orders):
            while at[rank] < len(order):
                action = order[at[rank]]
                needs = []
                if action.kind == "forward" and action.stage:
                    needs = [Action("forward", action.stage - 1, action.micro)]
                elif action.kind == "backward":
                    needs = [Action("forward", action.stage, action.micro)]
                    if action.stage < stages - 1:
                        needs.append(Action("backward", action.stage + 1, action.micro))
                elif action.kind == "weights":
                    needs = [Action("backward", action.stage, action.micro)]
                if any(need not in finished for need in needs):
                    break
                begin = max([free[rank], *(finished[need] for need in needs)])
                free[rank] = finished[action] = begin + (2 if action.kind == "backward" and not split else 1)
                at[rank] += 1
                moved = True
        assert moved, "the processes wait for each other"
    return max(free)


@pytest.mark.parametrize(("ranks", "chunks", "split"), SHAPES)
def test_orders_are_complete_and_end(ranks, chunks, split):
    kinds = ("forward", "backward", "weights") if split else ("forward", "backward")
    runs = [(micro, make_schedule(ranks, chunks, micro, split)) for micro in MICRO_BATCHES]
    for _, orders in runs:
        play(orders, ranks * chunks, split)
    for micro, rank, order in ((m, r, order) for m, orders in runs for r, order in enumerate(orders)):
        expected = {Action(k, c * ranks + rank, m) for k in kinds for c in range(chunks) for m in range(micro)}
        assert len(order) == len(expected)
        assert set(order) == expected
        # Gradients of weights are computed in the order in which they were put off.
        for stage in {action.stage for action in order}:
            for kind in kinds[1:]:
                micros = [a.micro for a in order if a.kind == kind and a.stage == stage]
                assert micros == sorted(micros)


@pytest.mark.parametrize(("ranks", "chunks", "split"), SHAPES)
def test_every_pair_sends_in_the_order_in_which_it_receives(ranks, chunks, split):
    stages = ranks * chunks
    for micro, (kind, step) in product(MICRO_BATCHES, (("forward", 1), ("backward", -1))):
        orders = make_schedule(ranks, chunks, micro, split)
        for rank in range(ranks):
            for wraps in (False, True):
                sent = [
                    (a.stage + step, a.micro)
                    for a in orders[rank]
                    if a.kind == kind
                    and 0 <= a.stage + step < stages
                    and (((a.stage + step) % ranks - rank) * step < 0) == wraps
                ]
                other = (rank + step) % ranks
                received = [(a.stage, a.micro) for a in orders[other] if a.kind == kind and (a.stage, a.micro) in sent]
                assert sent == received


@pytest.mark.parametrize(("ranks", "micro"), [(2, 4), (4, 8), (4, 16), (8, 32)])
def test_1f1b_has_its_bubble_and_its_memory(ranks, micro):
    orders = make_schedule(ranks, 1, micro)
    assert play(orders, ranks, False) == 3 * (micro + ranks - 1)
    for rank, order in enumerate(orders):
        flying = most = 0
        for action in order:
            flying += 1 if action.kind == "forward" else -1
            most = max(most, flying)
        assert most == ranks - rank


@pytest.mark.parametrize(("ranks", "micro"), [(2, 4), (4, 8), (4, 16), (8, 32)])
def test_more_stages_or_a_split_backward_shrink_the_bubble(ranks, micro):
    for chunks in (2, 4):
        assert play(make_schedule(ranks, chunks, micro), chunks * ranks, False) / chunks == 3 * (
            micro + (ranks - 1) / chunks
        )
    orders = make_schedule(ranks, 1, micro, True)
    assert play(orders, ranks, True) <= 3 * micro + ranks  # a third of 1F1B's bubble of 3 (ranks - 1)
    for order in orders:
        unfinished = most = 0
        for action in order:
            unfinished += {"forward": 1, "backward": 0, "weights": -1}[action.kind]
            most = max(most, unfinished)
        assert most <= ranks


@pytest.mark.parametrize(
    ("ranks", "chunks", "micro", "split", "passes", "bubble"),
    [(3, 4, 4, False, 48, 18), (3, 2, 4, True, 24, 2), (3, 4, 13, False, 156, 18), (4, 2, 2, True, 12, 7)],
)
def test_groups_of_micro_batches_that_are_not_full_cost_no_more_than_they_did(
    ranks, chunks, micro, split, passes, bubble
):
    """In units of a forward pass; a backward pass counts as two of them, or as two of one where it is split."""
    assert passes == 3 * micro * chunks
    assert play(make_schedule(ranks, chunks, micro, split), ranks * chunks, split) <= passes + bubble
