"""Which engine serves a request at the least cost: the rules and the cost formulas, in one place.

Costs are counted in units of one N x H x H matrix product per hidden layer. The first and the output layer cost D / H
and O / H of a unit and are left out, since every engine pays them alike.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from .jet import Request, merge, parse_derivatives
from .network import Network
from .values import described, one_of


class Engine(Enum):
    """The exact algorithms: they give the same numbers at different cost."""

    VALUE = "value"
    """The network alone."""
    T = "T"
    """A jet pushed forward: value, K tangents, R second-order channels."""
    A = "A"
    """Value and reverse Jacobian of C outputs."""
    TXA = "TxA"
    """Tangents and adjoints contracted layer by layer: value, reverse Jacobian, all second derivatives."""


class Plan(NamedTuple):
    """The engine chosen for a request, and those passed over."""

    engine: Engine
    alternatives: tuple[Engine, ...]


# Engines that can serve a request of the order that is the index; the first wins ties, because a jet is one sweep that
# needs the current layer alone at inference.
SERVING = ((Engine.VALUE,), (Engine.T, Engine.A), (Engine.T, Engine.TXA))


def choose(request: Request, algorithm: str | None = None) -> Plan:
    """Plan the cheapest engine for `request`, or the one that `algorithm` names.

    Raises:
        ValueError: `algorithm` is unknown or does not reach the order of the request.
    """
    serving = SERVING[request.order]
    # No min(key=...): torch.compile cannot trace it.
    engine = serving[0] if algorithm is None else _named(algorithm, serving)
    for other in serving[1:]:
        if algorithm is None and forward_units(other, request) < forward_units(engine, request):
            engine = other
    return Plan(engine, tuple(other for other in serving if other is not engine))


def _named(algorithm: str, serving: tuple[Engine, ...]) -> Engine:
    accepted = [engine.value for engine in serving]
    return serving[accepted.index(one_of("algorithm", algorithm, accepted, or_none=True, note=" for this request"))]


_OPERATORS: dict[str, Callable[[int, int], Request]] = {
    "value": lambda d, o: Request(outputs=o),
    "jacobian": lambda d, o: Request(directions=d, outputs=o),
    "laplacian": lambda d, o: Request(directions=d, curved=d, forms=1, outputs=o),
    "hessian": lambda d, o: Request(directions=d, curved=d, forms=d * (d + 1) // 2, outputs=o),
    "directional": lambda d, o: Request(directions=1, curved=1, forms=1, outputs=o),
}
_OPERATORS["value_and_jacobian"] = _OPERATORS["jacobian"]
_LOSSES = {
    "value_mse": _OPERATORS["value"],
    "gradient_mse": _OPERATORS["jacobian"],
    "laplacian_mse": _OPERATORS["laplacian"],
    "eikonal": _OPERATORS["jacobian"],
}


def is_fused_loss(request: str | Sequence[str]) -> bool:
    """Whether a request names a loss whose gradients come out of the same pass."""
    return isinstance(request, str) and request in _LOSSES


def read_request(request: str | Sequence[str], n_in: int, n_out: int) -> Request:
    """The counts of an operator by name, over all inputs and outputs, or of a list of derivatives by name."""
    if isinstance(request, str):
        known = _OPERATORS | _LOSSES
        return known[one_of("request", request, list(known), note=", or a list of names")](n_in, n_out)
    if not isinstance(request, Sequence) or not request or not all(isinstance(name, str) for name in request):
        raise TypeError(f"request: got {described(request)}, expected a str or a list of at least one str")
    # Which input has which name does not change the cost, so names are taken as they come.
    inputs = list(dict.fromkeys(axis for name in request for axis in name.split("__")[1:]))
    outputs = list(dict.fromkeys(name.split("__")[0] for name in request))
    for what, found, most in (("inputs", inputs, n_in), ("outputs", outputs, n_out)):
        if len(found) > most:
            raise ValueError(f"request: got {len(found)} {what} {found}, expected at most {most} as the network has")
    return merge(parse_derivatives(request, inputs or ["x"], outputs)).request


def forward_units(engine: Engine, request: Request) -> int:
    """Matrix products per hidden layer of one evaluation."""
    match engine:
        case Engine.VALUE:
            return 1
        case Engine.T:
            return 1 + request.directions + request.forms
        case Engine.A:
            return 1 + request.outputs
        case Engine.TXA:
            return 1 + request.curved + request.outputs


def train_units(engine: Engine, request: Request, *, fused: bool) -> int:
    """Matrix products per hidden layer of evaluation and backward, which has one for data and one for weights.

    Backward evaluates again, unless a small batch left a tape; a fused loss has its gradients from the same pass.
    """
    return (3 if fused else 4) * forward_units(engine, request)


def nested_units(request: Request) -> int:
    """Matrix products per hidden layer of nested `torch.autograd.grad`, one walk per output and curved direction."""
    if request.order == 0:
        return 1
    return 1 + request.outputs * (1 + 2 * request.curved)


def kept_elements(engine: Engine, request: Request, network: Network) -> int:
    """Numbers per point that a backward pass works on: phases, tangents p, channels q and adjoints a of all layers.

    Constant directions are assumed: then layer 0 has no p and q of its own, and the topmost adjoint is constant.
    """
    hidden = network.widths[1:-1]
    phases, above, below = sum(hidden), sum(hidden[1:]), sum(hidden[:-1])
    match engine:
        case Engine.VALUE:
            return phases
        case Engine.T:
            return phases + (request.directions + request.forms) * above
        case Engine.A:
            return phases + request.outputs * below
        case Engine.TXA:
            return phases + request.curved * above + request.outputs * below


def nested_elements(request: Request, network: Network) -> int:
    """Numbers per point that nested autograd saves for the same result; fitted to measurements at equal widths."""
    layers, width = len(network.omegas), sum(network.widths[1:-1]) / len(network.omegas)
    d, o, hidden = request.curved, request.outputs, layers - 1
    match request.order:
        case 0:
            count = 2 * layers
        case 1:
            count = (2 + 3 * o) * layers
        case _:
            count = 2 * layers + o * ((3 + 7 * d) * hidden + 3 + 4 * d)
    return round(count * width)


def describe(
    title: str, request: Request, network: Network, plan: Plan, *, fused: bool, itemsize: int, backend: str
) -> str:
    """The text of explain(): the engine chosen, its cost beside the alternatives, the bytes, the backend."""

    def costs(engine: Engine) -> tuple[int, int, int]:
        kept = itemsize * kept_elements(engine, request, network)
        return forward_units(engine, request), train_units(engine, request, fused=fused), kept

    rows = [(f"engine {plan.engine.value}", *costs(plan.engine))]
    rows += [(f"instead of {other.value}", *costs(other)) for other in plan.alternatives]
    nested = nested_units(request)
    rows.append(("instead of autograd", nested, 3 * nested, itemsize * nested_elements(request, network)))
    sizes = " -> ".join(map(str, network.widths))
    lines = [f"{title} of {sizes}; {request.outputs} of {network.out_features} outputs derived; backend {backend}"]
    lines.append(f"{'':20}{'forward':>10}{'train':>10}{'kept':>16}")
    lines += [f"{label:20}{forward:>10}{train:>10}{kept:>10} B/point" for label, forward, train, kept in rows]
    lines.append("forward, train: N x H x H products per hidden layer; kept: what backward works on, per point")
    # A, and TxA with it, leave no tape.
    again = "evaluates again" + (
        ", unless the C++ engine left a tape" if plan.engine in (Engine.VALUE, Engine.T) else ""
    )
    lines.append(f"train: backward {'is part of the same pass' if fused else again}")
    return "\n".join(lines)
