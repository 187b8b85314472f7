"""Two networks in one graph, and the page that shows it."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings

from helpers.networks import fcn, layer, random_network, renamed, seeds, topology
from multiseg.errors import SettingsError
from multiseg.topology import Topology
from multiseg.topology.difference_page import render
from multiseg.topology.merging import MergedNetworks, merge


class Tags(HTMLParser):
    """The names of the elements of a page and of all their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes = list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def states(merged: MergedNetworks) -> dict[str, str]:
    return {f"{row.layer.name}": row.state for row in merged.layers.values()}


def edges(merged: MergedNetworks, side: int) -> Counter[tuple[str, str]]:
    """The connections of one of the networks, by the names that its layers have there."""

    def name(key: str) -> str:
        row = merged.layers.get(key)
        found = None if row is None else (row.one, row.other)[side]
        return key if row is None else found.name if found else ""

    return Counter((name(source), name(reader)) for (source, reader), sides in merged.sides.items() if side in sides)


def edges_of(network: Topology) -> Counter[tuple[str, str]]:
    producers = {name: each.name for each in network.layers for name in each.outputs}
    return Counter(
        (producers.get(name, name), each.name) for each in network.leading for name in dict.fromkeys(each.inputs)
    )


def test_the_layers_are_the_same_changed_added_and_missing() -> None:
    other = fcn(8)
    other[4]["inputs"] = ["tanh"]
    other[3:4] = [layer("tanh", "Tanh", "conv2")]
    other.insert(1, layer("extra", "Elu", "conv1"))
    other[2]["inputs"] = ["extra"]
    merged = merge(topology(fcn(), shape=(1, 32, 32)), topology(other, "b.lua", (1, 32, 32)))
    assert states(merged) == {
        "conv1": "same", "extra": "added", "relu1": "same", "conv2": "changed", "relu2": "changed", "deconv": "same",
    }  # fmt: skip
    changes = {row.layer.name: [change.short for change in row.changes] for row in merged.layers.values()}
    assert changes["conv2"] == ["stride 16 → 8"] and changes["relu2"] == ["Relu → Tanh"]


def test_layers_that_change_places_are_missing_and_added() -> None:
    one = [layer("conv", "Conv", "data", num_output=4, kernel_shape=[3, 3]), layer("relu", "Relu", "conv"),
           layer("lrn", "LRN", "relu", size=3), layer("end", "Abs", "lrn")]  # fmt: skip
    two = [one[0], layer("lrn", "LRN", "conv", size=3), layer("relu", "Relu", "lrn"), layer("end", "Abs", "relu")]
    merged = merge(topology(one), topology(two, "b.lua"))
    found = [(row.layer.name, row.state) for row in merged.layers.values()]
    assert found[0] == ("conv", "same") and found[-1][0] == "end"
    assert {("added"), ("missing")} <= {state for _, state in found}
    for side, network in enumerate((one, two)):
        assert edges(merged, side) == edges_of(topology(network))


@settings(max_examples=12, deadline=None)
@given(seeds)
def test_each_network_is_in_the_graph_with_its_own_connections(seed: int) -> None:
    choose = random.Random(seed)
    one = random_network(seed)
    other = renamed(one, choose) if seed % 4 == 0 else random_network(choose.randrange(1 << 30))
    networks = topology(one), topology(other, "b.lua")
    merged = merge(*networks)
    names = list(merged.layers)
    for (source, reader), sides in merged.sides.items():
        assert sides and names.index(reader) > (names.index(source) if source in merged.layers else -1)
    for side, network in enumerate(networks):
        rows = [row.one if side == 0 else row.other for row in merged.layers.values()]
        drawn = Counter(each.name for each in rows if each)
        absorbed = Counter(text.partition(" ")[0] for text in merged.absorbed[side])
        assert drawn + absorbed == Counter(each.name for each in network.leading)
        if not absorbed:
            assert edges(merged, side) == edges_of(network)
    if networks[0] == networks[1]:
        assert {row.state for row in merged.layers.values()} == {"same"}


def test_the_page_is_closed_and_names_in_it_are_text(tmp_path: Path) -> None:
    evil = '</svg><script>alert(1)</script>" onload="x\x00\'&'
    ones = [layer(evil, "Conv", "data", num_output=2, kernel_shape=[3, 3]), layer("sum", "Relu", evil)]
    twos = [layer(evil, "Conv", "data", num_output=3, kernel_shape=[3, 3]), layer("sum", "Relu", evil)]
    one, two = topology(ones, "<b>.prototxt"), topology(twos, "b.lua")
    page = render(one.diff(two))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1 and page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in page.replace("&#39;", "'")
    tags = Tags()
    tags.feed(page)
    assert not {"b", "base"} & set(tags.tags) and not [name for name in tags.attributes if name.startswith("on")]
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "filters 2 → 3" in page
    with pytest.raises(SettingsError, match=r"must end in \.html"):
        one.diff(two).to_html(tmp_path / "diff.svg")


def test_the_page_of_30_layers_is_small(tmp_path: Path) -> None:
    nodes = [
        layer(f"conv{i}", "Conv", f"conv{i - 1}" if i else "data", num_output=8, kernel_shape=[1, 1]) for i in range(30)
    ]
    other = [dict(node, parameters={**node["parameters"], "num_output": 9}) for node in nodes]
    path = topology(nodes).diff(topology(other, "b.lua")).to_html(tmp_path / "diff.html")
    assert path.stat().st_size < 1_000_000
    assert path.read_text().count("filters 8 → 9") >= 60  # in each box, and in its table
