"""The compiled CPU engine, as csrc/bindings.cpp defines it; an address is that of a contiguous array, 0 for none."""

class NetArgs:
    def __init__(
        self,
        networks: int,
        weights: list[int],
        biases: list[int],
        weight_steps: list[int],
        bias_steps: list[int],
        widths: list[int],
        omegas: list[float],
        /,
    ) -> None: ...

class LossArgs:
    def __init__(self, kind: int, target: int, weight: int, scale: float, /) -> None: ...

class GradArgs:
    def __init__(
        self, losses: int, x: int, first: int, second: int, weights: list[int], biases: list[int], /
    ) -> None: ...

class PassArgs:
    tape: int
    """Memory of jet_tape numbers that a forward pass of a jet fills for its backward pass; 0 for none."""

    def __init__(
        self,
        N: int,
        K: int,
        count: int,
        x: int,
        V: int,
        second: int,
        V_rows: bool,
        second_rows: bool,
        points_shared: bool,
        /,
    ) -> None: ...

class TapeMemory:
    """Bytes for a tape, from a pool; a buffer."""

    def __init__(self, size: int, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def jet_tape_f32(net: NetArgs, args: PassArgs, /) -> int: ...
def jet_fwd_f32(net: NetArgs, jet: PassArgs, y: int, first: int, second: int, threads: int, /) -> None: ...
def jet_bwd_f32(
    net: NetArgs,
    jet: PassArgs,
    y_bar: int,
    first_bar: int,
    second_bar: int,
    loss: LossArgs,
    grads: GradArgs,
    threads: int,
    /,
) -> None: ...
def value_bwdbwd_f32(
    net: NetArgs, jet: PassArgs, tangents: NetArgs, y_bar: int, y_dot: int, grads: GradArgs, threads: int, /
) -> None: ...
def sandwich_fwd_f32(
    net: NetArgs, sandwich: PassArgs, y: int, jacobian: int, hessian: int, threads: int, /
) -> None: ...
def sandwich_bwd_f32(
    net: NetArgs,
    sandwich: PassArgs,
    y_bar: int,
    jacobian_bar: int,
    hessian_bar: int,
    loss: LossArgs,
    grads: GradArgs,
    threads: int,
    /,
) -> None: ...
def grid_fwd_f32(
    net: NetArgs,
    origin: list[float],
    step: list[float],
    start: list[int],
    shape: list[int],
    out: int,
    pixel_type: int,
    gain: float,
    offset: float,
    threads: int,
    /,
) -> None: ...
def sinpi_f32(u: int, sine: int, cosine: int, n: int, /) -> None: ...

jet_tape_f64 = jet_tape_f32
jet_fwd_f64 = jet_fwd_f32
jet_bwd_f64 = jet_bwd_f32
value_bwdbwd_f64 = value_bwdbwd_f32
sandwich_fwd_f64 = sandwich_fwd_f32
sandwich_bwd_f64 = sandwich_bwd_f32
grid_fwd_f64 = grid_fwd_f32
sinpi_f64 = sinpi_f32

def isa_available() -> list[str]:
    """Instruction sets that this CPU has, the best one first."""

def isa_active() -> str:
    """The instruction set in use."""

def isa_select(name: str, /) -> None:
    """Use an instruction set from now on."""
