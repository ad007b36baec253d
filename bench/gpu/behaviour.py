"""Checks of `gpu` beside accuracy: bits that may not change, streams, CUDA graphs, compilation, sizes, devices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import fastsiren

from .cases import Case, Given, given, square
from .checks import ours
from .items import DEVICE, INTERPRETED, MODES, Outcome, graphed, judged, oracle, passes, skipped
from .pool import Settings

SMALL = (2, 16, 16, 1)
REPEATS = 1 if INTERPRETED else 50


def watched(quick: bool) -> list[Case]:
    """Return the passes whose bits are compared."""
    N = 25 if quick else 1153
    shapes = [SMALL] if quick else [square(64), square(256)]
    kinds = [("value", "fp32"), ("jet", "fp16"), ("jet", "fp32"), ("sandwich", "fp32"), ("value_bwdbwd", "fp32")]
    # Tangents of parameters are those of all points.
    return [Case(kind, widths, N, mode, per_point=kind != "value_bwdbwd") for widths in shapes for kind, mode in kinds]


def same(a: Tensor, b: Tensor) -> bool:
    """Tell whether bits are equal; in the interpreter, whose products depend on the place of a row, nearly so."""
    return torch.equal(a, b) or (INTERPRETED and oracle().relative_error(a, b) <= 1e-2)


def rows_alone(settings: Settings) -> Outcome:
    """The bits of a row do not depend on the rows beside it."""
    wrong = []
    for case in watched(settings.quick):
        made = given(case)
        whole = ours(case, made)
        for rows in (slice(0, 17), slice(23, None), slice(23, 24)):
            part = ours(case, sliced(case, made, rows))
            pairs = zip([*part.outputs, *part.points], [*whole.outputs, *whole.points], strict=True)
            if not all(same(a, b[rows]) for a, b in pairs):
                wrong.append(f"{case.name} rows {rows.start}:{rows.stop}")
    return judged(not wrong, f"differ: {', '.join(wrong)}" if wrong else "equal bits in any batch")


def sliced(case: Case, made: Given, rows: slice) -> Given:
    """Return some of the points, with their seeds and cotangents."""
    seeds = [t[rows] for t in made.seeds] if case.per_point else made.seeds
    return Given(made.net, made.x[rows], seeds, [t[rows] for t in made.bars])


def repeated(settings: Settings) -> Outcome:
    """Every run gives the same bits, gradients of parameters included."""
    wrong = []
    for case in watched(settings.quick):
        made = given(case)
        first = ours(case, made).tensors()
        runs = (ours(case, made).tensors() for _ in range(REPEATS))
        if not all(torch.equal(a, b) for run in runs for a, b in zip(run, first, strict=True)):
            wrong.append(case.name)
    return judged(not wrong, f"differ: {', '.join(wrong)}" if wrong else f"equal bits in {REPEATS} runs")


def nan_rows(settings: Settings) -> Outcome:
    """A NaN in one point spoils its row and no other."""
    wrong = []
    for case in watched(settings.quick):
        made = given(case)
        clean = ours(case, made)
        made.x[21] = math.nan
        spoiled = ours(case, made)
        others = torch.arange(case.N, device=DEVICE) != 21
        pairs = zip([*spoiled.outputs, *spoiled.points], [*clean.outputs, *clean.points], strict=True)
        alone = all(torch.equal(a[others], b[others]) for a, b in pairs)
        if not alone or any(t[21].isfinite().any() for t in spoiled.outputs):
            wrong.append(case.name)
    return judged(not wrong, f"wrong: {', '.join(wrong)}" if wrong else "one NaN row stays alone")


def other_stream(settings: Settings) -> Outcome:
    """Kernels run on the current stream, behind what it does already."""
    case = Case("jet", square(64), 1153)
    made = given(case)
    expected, x = ours(case, made), made.x.clone()
    made.x.fill_(math.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Long enough that kernels on another stream would meet the NaN.
        torch.cuda._sleep(200_000_000)
        made.x.copy_(x)
        found = ours(case, made)
    stream.synchronize()
    equal = all(torch.equal(a, b) for a, b in zip(found.tensors(), expected.tensors(), strict=True))
    return judged(equal, f"{'equal' if equal else 'differs'} on a stream of its own")


def graph_forward(settings: Settings) -> Outcome:
    """A captured forward sees new points and new weights."""
    wrong = []
    for case in (Case("value", square(64)), Case("value", square(256), mode="fp16"), Case("jet", square(256))):
        made, table = given(case), passes(case.mode)
        forward = getattr(table, f"{case.kind}_fwd")
        graph, result = graphed(lambda: forward(made.x, *made.seeds, *made.net))  # noqa: B023
        made.x.mul_(0.5)
        made.net.weights[1].mul_(1.01)
        graph.replay()
        expected = forward(made.x, *made.seeds, *made.net)
        pairs = [(result, expected)] if isinstance(expected, Tensor) else zip(result, expected, strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            wrong.append(case.name)
    return judged(not wrong, f"differ: {', '.join(wrong)}" if wrong else "replays equal calls")


def trained(width: int, steps: int, captured: bool) -> list[Tensor]:
    """Return the parameters after some steps of Adam on a Laplacian loss, each a call or a replay."""
    torch.manual_seed(0)
    net = fastsiren.Siren(2, width, 2, 1, device=DEVICE)
    x, target = torch.rand(1153, 2, device=DEVICE) * 2 - 1, torch.randn(1153, 1, device=DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, capturable=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        fastsiren.losses.laplacian_mse(net, x, target).backward()
        optimizer.step()

    # A capture runs the step three times before.
    run = graphed(step)[0].replay if captured else step
    for _ in range(steps if captured else steps + 3):
        run()
    return [p.detach() for p in net.parameters()]


def graph_step(settings: Settings) -> Outcome:
    """A captured training step, loss, gradients and optimizer, trains as calls do."""
    errors = []
    for width in (64, 256):
        pairs = zip(trained(width, 5, True), trained(width, 5, False), strict=True)
        errors.append(max(oracle().relative_error(a, b) for a, b in pairs))
    line = f"relative differences of parameters after 8 steps {errors[0]:.1e} and {errors[1]:.1e}"
    return judged(max(errors) <= 1e-6, line, errors=errors)


def compiled_step(settings: Settings) -> Outcome:
    """torch.compile traces a training step on values as a whole and gets the same gradients."""
    net = fastsiren.Siren(2, SMALL[1] if settings.quick else 256, 2, 1, device=DEVICE)
    x, target = torch.rand(65, 2, device=DEVICE), torch.rand(65, 1, device=DEVICE)

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return (net(x) - target).square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager" if INTERPRETED else "inductor")
    gradients = [torch.autograd.grad(f(x, target), list(net.parameters())) for f in (loss, compiled)]
    error = max(oracle().relative_error(b, a) for a, b in zip(*gradients, strict=True))
    return judged(error <= 1e-5, f"relative difference of gradients {error:.1e}", error=error)


def many_pixels(settings: Settings) -> Outcome:
    """A grid of more than 2^31 pixels: its last rows have the bits that they have by themselves."""
    side = 50 if INTERPRETED else 46_400
    if not fits(1.1 * side**2):
        return skipped(f"{side**2 / 1e9:.1f} GB of memory are not free")
    case = Case("grid", SMALL if INTERPRETED else square(64), mode="fp16")
    net, table, step = given(case).net, passes("fp16"), 2.0 / side
    whole = torch.full((side * side, 1), 7, dtype=torch.uint8, device=DEVICE)
    encode = {"gain": 0.5, "offset": 0.5}
    table.grid_fwd([-1.0, -1.0], [step, step], [0, 0], [side, side], *net, out=whole, **encode)
    equal = []
    for first in (0, side // 2, side - 3):
        rows = torch.empty(3 * side, 1, dtype=torch.uint8, device=DEVICE)
        table.grid_fwd([-1.0, -1.0], [step, step], [first, 0], [3, side], *net, out=rows, **encode)
        equal.append(torch.equal(whole[first * side : (first + 3) * side], rows))
    return judged(all(equal), f"{side**2:,} pixels; first, middle and last rows equal: {equal}")


def many_points(settings: Settings) -> Outcome:
    """More than 2^31 coordinates in one tensor: the last rows have the bits that they have by themselves."""
    N = 500 if INTERPRETED else (1 << 30) + 129
    if not fits(4.5 * 3 * N):
        return skipped(f"{4.5 * 3 * N / 1e9:.0f} GB of memory are not free")
    made = given(Case("value", SMALL if INTERPRETED else square(64), mode="fp16"))
    x = torch.rand(N, 2, device=DEVICE)
    y = passes("fp16").value_fwd(x, *made.net)
    last = passes("fp16").value_fwd(x[-129:].clone(), *made.net)
    equal = same(y[-129:], last)
    return judged(equal, f"{2 * N:,} coordinates; last rows equal: {equal}")


def fits(needed: float) -> bool:
    """Tell whether so many bytes are free."""
    return INTERPRETED or torch.cuda.mem_get_info()[0] > needed


def second_device(settings: Settings) -> Outcome:
    """Tensors on the second device, while the first one is current."""
    if torch.cuda.device_count() < 2:
        return skipped("one GPU only")
    wrong = []
    for mode in MODES:
        case = Case("jet", square(64), mode=mode)
        here = given(case)
        pairs = zip(ours(case, on_second(here)).tensors(), ours(case, here).tensors(), strict=True)
        if not all(torch.equal(a.to(DEVICE), b) for a, b in pairs):
            wrong.append(mode)
    return judged(not wrong, f"differ: {', '.join(wrong)}" if wrong else "equal bits on the second device")


def on_second(made: Given) -> Given:
    """Return copies of all arguments on the second device."""
    weights, biases, seeds, bars = (
        [t.to("cuda:1") for t in group] for group in (made.net.weights, made.net.biases, made.seeds, made.bars)
    )
    return Given(made.net._replace(weights=weights, biases=biases), made.x.to("cuda:1"), seeds, bars)


EVERYWHERE = {
    "rows": rows_alone,
    "repeats": repeated,
    "nan": nan_rows,
    "compile": compiled_step,
    "pixels": many_pixels,
    "points": many_points,
}
ON_A_GPU = {
    "stream": other_stream,
    "graph-forward": graph_forward,
    "graph-step": graph_step,
    "second-device": second_device,
}
CHECKS: dict[str, Callable[[Settings], Outcome]] = {**EVERYWHERE, **ON_A_GPU}


def items(settings: Settings) -> list[str]:
    """Return the names of the checks."""
    return list(CHECKS)


def run(name: str, settings: Settings) -> Outcome:
    """Run one check."""
    if INTERPRETED and name in ON_A_GPU:
        return skipped("needs a GPU")
    with fastsiren.use_backend("triton"):
        return CHECKS[name](settings)
