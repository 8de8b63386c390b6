"""The network: the documents' and the paper's numbers, Table I as printed, and an independent forward pass."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import reference
from conftest import POOLINGS
from lenet.networks import layer_table
from lenet.networks.codes import codes
from lenet.networks.lenet5 import C3_TABLE, LeNet5, SparseConv, Subsampling
from lenet.params.schema import FixedPooling, Initialisation, Network, Params

PRINTED = np.array(reference.CONNECTED)


def build(activation="scaled-tanh", pooling=POOLINGS[0], C3="table", output="squashed") -> LeNet5:
    return LeNet5(Network(activation=activation, pooling=pooling, C3=C3, output=output))


def test_the_documents_parameter_counts(params: Params) -> None:
    explanation = {row.name: row.parameters for row in layer_table.layers(params.variants["original-sigmoid"].network)}
    assert explanation == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164, "output": 850}
    overview = {row.name: row.parameters for row in layer_table.layers(params.variants["modern"].network)}
    assert overview == {"C1": 156, "S2": 0, "C3": 2416, "S4": 0, "C5": 48120, "F6": 10164, "output": 850}
    for name, count in (("original-sigmoid", 60_850), ("original-tanh", 60_850), ("modern", 61_706)):
        network = params.variants[name].network
        assert layer_table.totals(network)["parameters"] == count
        assert sum(p.numel() for p in LeNet5(network).parameters()) == count


def test_the_paper_s_connection_counts(params: Params) -> None:
    found = {row.name: row.connections for row in layer_table.layers(params.variants["original-tanh"].network)}
    assert found == {
        "C1": 122_304, "S2": 5_880, "C3": 151_600, "S4": 2_000, "C5": 48_120, "F6": 10_164, "output": 850,
    }  # fmt: skip
    # the paper's 340,908 with its 840 links to the RBF units; ten units with biases have 850
    assert layer_table.totals(params.variants["original-tanh"].network)["connections"] == 340_908 - 840 + 850


@pytest.mark.parametrize(("pooling", "sums"), [("average", 4), ("max", 0)])
def test_the_overview_s_shapes_and_multiply_accumulates_worked_out_by_hand(pooling: str, sums: int) -> None:
    network = Network(activation="relu", pooling=FixedPooling(kind=pooling), C3="dense", output="softmax")
    assert {row.name: (row.inputs, row.outputs, row.macs) for row in layer_table.layers(network)} == {
        "C1": ("1@32×32", "6@28×28", 6 * 28 * 28 * 25), "S2": ("6@28×28", "6@14×14", sums * 6 * 14 * 14),
        "C3": ("6@14×14", "16@10×10", 16 * 10 * 10 * 150), "S4": ("16@10×10", "16@5×5", sums * 16 * 5 * 5),
        "C5": ("400", "120", 400 * 120), "F6": ("120", "84", 120 * 84), "output": ("84", "10", 840),
    }  # fmt: skip


def test_table_i_is_as_printed() -> None:
    ours = np.array([[i in seen for seen in C3_TABLE] for i in range(6)])
    assert np.array_equal(ours, PRINTED)
    assert PRINTED.sum() == 60
    assert build().C3.weight.shape == (60, 5, 5)


@pytest.mark.parametrize("C3", ["table", "dense"])
def test_initial_weights_fill_their_bound_and_nothing_else_moves(C3: str) -> None:
    network = build(C3=C3).initialise(Initialisation(scale=2.4, exponent=1.0, biases="zero"), seed=1)
    fan_in = {"C1": 25, "C5": 400, "F6": 120, "output": 84}
    for name, count in fan_in.items():
        weight = getattr(network, name).weight
        assert 0.85 * 2.4 / count < weight.abs().max() <= 2.4 / count
        assert weight.mean().abs() < 0.5 / count
        assert not getattr(network, name).bias.any()
    if C3 == "table":
        for kernels, seen in zip(network.C3.weight.split([len(s) for s in C3_TABLE]), C3_TABLE, strict=True):
            assert 0.85 * 2.4 / (25 * len(seen)) < kernels.abs().max() <= 2.4 / (25 * len(seen))
    else:
        assert 0.95 * 2.4 / 150 < network.C3.weight.abs().max() <= 2.4 / 150
    for layer in (network.S2, network.S4):
        assert set(layer.weight.tolist()) == {1.5}
        assert set(layer.bias.tolist()) == {0.25}


def test_initial_weights_follow_from_the_seed_alone() -> None:
    how = Initialisation(scale=1.0, exponent=0.5, biases="zero")
    torch.manual_seed(5)
    first = build().initialise(how, 1).state_dict()
    torch.rand(7)
    again, other = build().initialise(how, 1).state_dict(), build().initialise(how, 2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name[0] != "S" and "weight" in name)


def test_random_biases_have_the_bound_of_their_units_weights() -> None:
    network = build(output="rbf").initialise(Initialisation(scale=1.2, exponent=0.5, biases="random"), 1)
    for name, fan_in in (("C1", 25), ("C5", 400), ("F6", 120)):
        bias, bound = getattr(network, name).bias, 1.2 / fan_in**0.5
        assert 0.5 * bound < bias.abs().max() <= bound
        assert bias.min() < 0 < bias.max()
    assert all(abs(bias) <= 1.2 / (25 * len(seen)) ** 0.5 for bias, seen in zip(network.C3.bias, C3_TABLE, strict=True))
    zero = build(output="rbf").initialise(Initialisation(scale=1.2, exponent=0.5, biases="zero"), 1)
    assert torch.equal(zero.F6.weight, network.F6.weight)
    assert set(network.S2.bias.tolist()) == {0.25}


CODE_6 = """
..####.
.##....
##.....
##.....
######.
###..##
##...##
##...##
###..##
.#####.
.......
.......
"""


def test_codes_are_those_of_the_paper_s_figure() -> None:
    """Fig. 3: the inked pixels of each digit, the distances that are smallest and largest, and one digit as drawn."""
    found = codes()
    assert ((found + 1) / 2).sum(1).tolist() == [35, 27, 33, 32, 41, 35, 39, 25, 43, 39]
    apart = (found[:, None] != found).sum(2)
    assert apart[6, 8] == apart[apart > 0].min() == 12
    assert apart[0, 4] == apart[8, 9] == 18
    assert apart[1, 4] == apart[1, 8] == apart[4, 7] == apart.max() == 50
    assert "".join("#" if bit > 0 else "." for bit in found[6]) == CODE_6.replace("\n", "")


def test_the_paper_s_network_has_60_000_parameters_and_340_908_connections(params: Params) -> None:
    network = params.variants["lecun1998"].network
    assert {key: layer_table.totals(network)[key] for key in ("parameters", "connections")} == {
        "parameters": 60_000, "connections": 340_908,
    }  # fmt: skip
    adaptive = network.model_copy(update={"output": "adaptive-rbf"})
    assert layer_table.totals(adaptive)["parameters"] == 60_840


@pytest.mark.parametrize("output", ["squashed", "rbf", "adaptive-rbf"])
def test_only_trained_tensors_are_saved(output: str) -> None:
    network = build(output=output)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    assert isinstance(network.C3, SparseConv)
    assert isinstance(network.S2, Subsampling)


def test_shapes_in_signatures_are_checked_while_tests_run() -> None:
    with pytest.raises(TypeCheckError):
        build()(torch.zeros(1, 1, 28, 28))
