"""Hand-outs as Prometheus reads them, and as a status keeps them."""

from hypothesis import given
from hypothesis import strategies as st

from agentk.control import pool_standing
from agentk.control.pool_standing import HandOuts
from agentk.daemon import pool_metrics


def handed(*ms: float) -> HandOuts:
    made = HandOuts()
    for one in ms:
        made.note(one)
    return made


def test_a_pool_tells_its_histogram_in_seconds() -> None:
    status = {"ready": 2, "wanted": 3, "handOut": handed(4, 4.5, 30).to_dict()}
    pool = {"metadata": {"namespace": "default", "name": "p"}, "status": status}
    lines = list(pool_metrics.lines([pool]))
    where = 'namespace="default",pool="p"'
    assert f'agentk_pool_boxes{{{where},state="ready"}} 2' in lines
    assert f'agentk_pool_hand_out_seconds_bucket{{{where},le="0.003"}} 0' in lines
    assert f'agentk_pool_hand_out_seconds_bucket{{{where},le="0.005"}} 2' in lines
    assert f'agentk_pool_hand_out_seconds_bucket{{{where},le="+Inf"}} 3' in lines
    assert f"agentk_pool_hand_out_seconds_sum{{{where}}} 0.0385" in lines
    assert f"agentk_pool_hand_out_seconds_count{{{where}}} 3" in lines


def test_without_pools_nothing_is_told_and_a_new_one_is_whole() -> None:
    assert list(pool_metrics.lines([])) == []
    lines = list(pool_metrics.lines([{"metadata": {"namespace": "n", "name": "p"}}]))
    assert 'agentk_pool_hand_out_seconds_bucket{namespace="n",pool="p",le="+Inf"} 0' in lines


def test_percentiles_lie_in_their_bucket() -> None:
    made = handed(*[4.0] * 94, *[12.0] * 6)
    assert 3 < made.quantile(0.5) <= 5 < 10 < made.quantile(0.95) <= 15
    assert HandOuts().quantile(0.5) == 0.0
    assert handed(9999).quantile(0.95) == 2500


@given(st.lists(st.floats(0, 5000), max_size=50), st.integers(0, 5))
def test_a_status_keeps_all_of_it(ms: list[float], cold: int) -> None:
    made = handed(*ms)
    made.cold = cold
    again = HandOuts.from_dict(made.to_dict())
    assert (again.counts, again.cold) == (made.counts, cold)
    assert again.to_dict() == made.to_dict()


def test_buckets_of_another_agentk_are_not_mixed_with_ours() -> None:
    told = {"cold": 3, "buckets": [{"leMs": "1", "count": 5}]}
    assert HandOuts.from_dict(told).to_dict() == {"count": 0, "cold": 3}
    assert len(pool_standing.BOUNDS) == len(HandOuts().counts)
