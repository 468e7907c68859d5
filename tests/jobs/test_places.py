"""Where a gang's ranks are: numbered by node, off nodes that lost two gangs, Ulysses within a host."""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks

from imax_dist.errors import BadConfig, SlowLink
from imax_dist.jobs.places import Nodes, in_node_order, placement_options
from imax_dist.parallel import hosts as parallel_hosts
from imax_dist.parallel.hosts import check_link, check_ulysses_within_hosts, ranks_together, slowest_link
from imax_dist.parallel.mesh import choose_degrees
from imax_dist.parallel.topology import Topology


def test_ranks_of_one_node_follow_each_other() -> None:
    assert in_node_order(["a", "b", "a", "b", "b"]) == [1, 3, 4, 0, 2]
    assert in_node_order(["a"] * 3) == [0, 1, 2]
    torn = ["a"] * 5 + ["b"] * 6 + ["a"] * 3
    assert [torn[k] for k in in_node_order(torn)] == ["a"] * 8 + ["b"] * 6


def test_a_node_that_lost_two_gangs_is_avoided_where_there_is_another() -> None:
    nodes = Nodes()
    for node in ("a", "b", "a"):
        nodes.lost_on(node)
    assert nodes.avoided(["a", "b", "c"]) == ["a"]
    assert nodes.avoided(["a"]) == []
    assert nodes.avoided(["b", "c"]) == []
    assert placement_options([], 4) == {}
    assert placement_options(["a", "d"], 2) == {"bundle_label_selector": [{"ray.io/node-id": "!in(a,d)"}] * 2}


def test_a_node_that_is_about_to_go_away_is_avoided_even_if_there_is_no_other() -> None:
    nodes = Nodes()
    nodes.lost_on("a")
    nodes.lost_on("a")
    nodes.leaves({"b"})
    assert nodes.avoided(["a", "b", "c"]) == ["a", "b"]
    assert nodes.avoided(["a", "b"]) == ["b"], "a bad node is better than none"
    assert nodes.avoided(["b"]) == ["b"]


def test_a_gang_goes_to_a_node_that_lost_gangs_when_the_others_have_no_room() -> None:
    """A cluster whose other nodes are full would look for room until its deadline, again and again."""
    nodes = Nodes()
    assert nodes.attempts(["a", "b"], 90.0) == [([], 90.0)]
    for node in "aabb":
        nodes.lost_on(node)
    assert nodes.attempts(["a", "b", "c"], 90.0) == [(["a", "b"], 20.0), ([], 70.0)]
    assert nodes.attempts(["a", "b"], 90.0) == [([], 90.0)]
    nodes.leaves({"c"})
    assert nodes.attempts(["a", "b", "c", "d"], 2.0) == [(["a", "b", "c"], 1.0), (["c"], 1.0)]


@pytest.mark.slow
@pytest.mark.machines
def test_ray_keeps_a_gang_off_the_nodes_that_are_avoided(small_ray: None) -> None:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    (node,) = [str(node["NodeID"]) for node in ray.nodes()]
    for avoided, placed in (("f" * 56, True), (node, False)):
        group = placement_group([{"CPU": 1.0}], **placement_options([avoided], 1))
        assert group.wait(60.0 if placed else 3.0) is placed
        remove_placement_group(group)


@pytest.mark.parametrize(
    ("hosts", "together"),
    [("aaaa", 0), ("aaaabbbb", 4), ("aaaaabbbbbb", 5), ("aaaabbbbcc", 4), ("aaab", 3), ("abab", 1)],
)
def test_a_ulysses_degree_divides_the_ranks_up_to_every_host(hosts: str, together: int) -> None:
    assert ranks_together(hosts) == together


def test_unasked_ulysses_stays_within_a_host_and_the_ring_takes_the_rest() -> None:
    assert choose_degrees(16, heads=24, together=8) == (8, 2)
    assert choose_degrees(8, heads=24, together=4) == (4, 2)
    assert choose_degrees(8, heads=24, together=0) == (8, 1)
    assert choose_degrees(15, heads=24, together=5) == (1, 15)


def test_a_ulysses_group_on_two_hosts_is_refused_with_both_names() -> None:
    hosts = ["node-a"] * 4 + ["node-b"] * 4
    check_ulysses_within_hosts(hosts, 4)
    check_ulysses_within_hosts(["node-a"] * 8, 8)
    sentence = r"ulysses 8 would split .* rank 3 is on node-a, rank 4 on node-b; it can be 1, 2, 4 here"
    with pytest.raises(BadConfig, match=sentence):
        check_ulysses_within_hosts(hosts, 8)


def probed(topology: Topology, hosts: list[str]) -> Any:
    parallel_hosts.PROBES = 1
    return slowest_link(topology, hosts, size=1 << 20)


def test_a_link_between_hosts_is_measured_by_all_ranks_and_none_within_one() -> None:
    assert run_ranks(2, probed, ["a", "a"]) == [None, None]
    one, two = run_ranks(2, probed, ["a", "b"])
    assert one == two > 1e6


def test_a_link_below_what_is_needed_is_refused_with_both_numbers() -> None:
    check_link(25e9, 20e9)
    with pytest.raises(SlowLink, match=r"carries 1\.10 GB/s a rank, and at least 20\.00 are needed"):
        check_link(1.1e9, 20e9)
