"""The check of this machine's arithmetic: right here, and every fault of its operations found and named."""

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import ROOT, run
from lenet.arithmetic import conformance, functions
from lenet.runtime.errors import InputError

Rule = Callable[[str, Callable[[], Any], tuple, dict], Any]
"""From an operation's name, what computes it, and its arguments: the faulty result."""


class Machine(TorchDispatchMode):
    """One whose operations are as a rule has them."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        options = kwargs or {}
        return self.rule(func.overloadpacket.__name__, lambda: func(*args, **options), args, options)


def into(result: Tensor, name: str, args: tuple, options: dict) -> Tensor:
    """A result where the operation would have put it."""
    if name.endswith("_"):
        return args[0].copy_(result)
    return options["out"].copy_(result) if "out" in options else result


def fused() -> Rule:
    """The sum or difference of a product and another number is rounded once.

    A product of two floats is exact in double precision.
    """
    products: dict[int, tuple[Tensor, Tensor]] = {}  # by their tensors' places; these are kept, so that none is reused

    def rule(name: str, compute: Callable[[], Any], args: tuple, options: dict) -> Any:
        plain = name.rstrip("_")
        if plain in ("add", "sub") and args[0].dtype == torch.float32:
            terms = [products.get(id(x), (x, x))[1] for x in args]
            if any(id(x) in products for x in args):
                products.pop(id(args[0]), None)
                first, second = (x.double() if isinstance(x, Tensor) else x for x in terms)
                return into((first + second if plain == "add" else first - second).float(), name, args, options)
        exact = None
        if plain == "mul" and args[0].dtype == torch.float32:
            exact = args[0].double() * (args[1].double() if isinstance(args[1], Tensor) else args[1])
        result = compute()
        if isinstance(result, Tensor):
            products.pop(id(result), None)
            if exact is not None:
                products[id(result)] = result, exact
        return result

    return rule


def instead(names: str, faulty: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> Rule:
    """Operations on numbers of a precision are computed by something else."""

    def rule(name: str, compute: Callable[[], Any], args: tuple, options: dict) -> Any:
        if name.rstrip("_") not in names.split() or args[0].dtype != dtype:
            return compute()
        return into(faulty(*args), name, args, options)

    return rule


def cut(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The operation with results cut to single precision in place of rounded."""

    def faulty(x: Tensor, y: Tensor | float) -> Tensor:
        exact = operation(x.double(), y.double() if isinstance(y, Tensor) else y)
        nearest = exact.float()
        return torch.where(nearest.abs() > exact.abs(), torch.nextafter(nearest, torch.zeros(())), nearest)

    return faulty


def cut_conversion(name: str, compute: Callable[[], Any], args: tuple, options: dict) -> Any:
    result = compute()
    if name == "_to_copy" and args[0].dtype == torch.float64 and result.dtype == torch.float32:
        result = torch.where(result.abs() > args[0].abs(), torch.nextafter(result, torch.zeros(())), result)
    return result


def python_numbers(name: str, compute: Callable[[], Any], args: tuple, options: dict) -> Any:
    """A Python number is taken in double precision."""
    if name != "mul" or args[0].dtype != torch.float32 or (isinstance(args[1], Tensor) and args[1].ndim):
        return compute()
    return (args[0].double() * float(args[1])).float()


def low(*names: str) -> Rule:
    """Numbers are compared in half of their precision."""

    def rule(name: str, compute: Callable[[], Any], args: tuple, options: dict) -> Any:
        result = compute()
        return result.bfloat16().float() if name in names else result

    return rule


def in_single(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: operation(*(x.float() if isinstance(x, Tensor) else x for x in args)).double()


def no_sign_extension(name: str, compute: Callable[[], Any], args: tuple, options: dict) -> Any:
    """The sign is shifted, too."""
    if name != "__rshift__" or args[0].dtype != torch.int32:
        return compute()
    return ((args[0].long() & 0xFFFFFFFF) >> args[1]).to(torch.int32)


FAULTS: dict[str, tuple[Rule, set[str]]] = {
    "fused multiply-add": (
        fused(),
        {"a product and a sum, not fused", "a product and a sum in place, not fused", "exp", "tanh", "logistic"},
    ),
    "sums cut": (instead("add", cut(torch.add)), {"addition", "rounding to a grid by two additions"}),
    "differences cut": (instead("sub", cut(torch.sub)), {"subtraction"}),
    "products cut": (instead("mul", cut(torch.mul)), {"multiplication"}),
    "quotients by reciprocals": (instead("div", lambda x, y: x * (1.0 / y)), {"division"}),
    "reciprocals of doubles": (
        instead("div", lambda x, y: x * (1.0 / y), torch.float64), {"division in double precision"}
    ),
    "Python's numbers are doubles": (python_numbers, {"operations with Python's numbers"}),
    "conversions cut": (cut_conversion, {"conversions between precisions"}),
    "shifts without a sign": (no_sign_extension, {"exponents and bits"}),
    "floors to the nearest": (instead("floor", torch.round), {"exponents and bits"}),
    "coarse maxima": (low("amax", "maximum"), {"comparisons and largest numbers"}),
    "matrices in single precision": (
        instead("mm bmm", in_single(torch.matmul), torch.float64), {"products of matrices in double precision"}
    ),
    "sums in single precision": (
        instead("sum", in_single(torch.sum), torch.float64), {"sums in double precision"}
    ),
    "roots by reciprocals": (
        instead("sqrt", lambda x: (x.float() * torch.rsqrt(x.float())).double(), torch.float64), {"square roots"}
    ),
}  # fmt: skip


BY_APPROXIMATION: dict[str, tuple[Any, str, Callable, str]] = {
    "torch's exp": (functions, "exp", torch.exp, "exp"),
    "torch's log": (functions, "log", torch.log, "log"),
    "torch's tanh": (functions, "tanh", torch.tanh, "tanh"),
    "torch's logistic function": (functions, "logistic", torch.sigmoid, "logistic"),
    "numbers drawn in another order": (
        torch, "rand", lambda n, generator, rand=torch.rand: rand(n, generator=generator).flip(0),
        "random numbers and orders",
    ),
    "another shuffle": (
        torch, "randperm", lambda n, generator: torch.rand(n, generator=generator).argsort(),
        "random numbers and orders",
    ),
}  # fmt: skip
FLUSHED = "subnormal numbers"


def coarse(operation: np.ufunc) -> Callable[..., np.ndarray]:
    """NumPy's operation with results in half of their precision."""

    def faulty(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[...] = (operation(x, y).view(np.int32) & -(1 << 12)).view(np.float32)
        return out

    return faulty


def test_this_machine_is_right() -> None:
    assert conformance.faults() == []
    conformance.check()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_machine_is_found_and_the_fault_is_named(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    rule, named = FAULTS[fault]
    monkeypatch.setattr(functions, "BY_NUMPY", ())  # the faults are torch's
    with Machine(rule):
        found = conformance.faults()
        with pytest.raises(InputError, match=f"arithmetic is off: .*{min(named)}.* nothing is trained"):
            conformance.check()
    assert named <= {*found}


def test_a_machine_of_single_operations_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands between changes nothing, so that what is found is the fault."""
    monkeypatch.setattr(functions, "BY_NUMPY", ())
    with Machine(lambda name, compute, args, options: compute()):
        assert conformance.faults() == []


@pytest.mark.parametrize("fault", BY_APPROXIMATION)
def test_other_functions_are_found_and_named(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    owner, name, other, named = BY_APPROXIMATION[fault]
    monkeypatch.setattr(owner, name, other)
    assert conformance.faults() == [named]


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_faults_of_numpy_are_found_and_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    names = ["add", "subtract", "multiply", "divide", "minimum", "maximum", "bitwise_left_shift", "int32"]
    library = SimpleNamespace(**{each: getattr(np, each) for each in names} | {name: coarse(getattr(np, name))})
    monkeypatch.setattr(functions._NUMPY, "library", library)
    assert set(conformance.faults()) >= {"tanh", "logistic"}


def test_flushed_subnormal_numbers_are_found_and_named() -> None:
    code = (
        "import torch; from lenet.arithmetic import conformance\n"
        "print(conformance.faults() if torch.set_flush_denormal(True) else 'impossible')"
    )
    said = run(sys.executable, "-c", code, cwd=ROOT, PYTHONPATH="src").stdout
    if "impossible" in said:
        pytest.skip("this processor cannot flush them")
    assert FLUSHED in said


def test_every_operation_has_a_fault_that_shows_it() -> None:
    shown = {FLUSHED} | {name for _, _, _, name in BY_APPROXIMATION.values()}
    assert shown.union(*(named for _, named in FAULTS.values())) == {*conformance.OPERATIONS, *conformance.SUMS}


def test_it_takes_milliseconds() -> None:
    times = []
    for _ in range(5):
        start = time.thread_time()
        conformance.check()
        times.append(time.thread_time() - start)
    assert min(times) < 0.05
