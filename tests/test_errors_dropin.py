"""What the classes of fastsiren.dropin refuse, made and evaluated, and in which words: every argument has rows.

Flags are what Python takes for true, as in the originals. Classes whose constructor is that of torch have rows of their
forward only.
"""

import inspect
import math

import pytest
import torch
from torch import nn

import fastsiren
import test_errors_dropin_functions
from dropin_calls import CLASSES, FILM, FORWARDS, OWN, PARAMS, X, made, uniform
from error_rows import Call, Row, check, identify, not_like, not_names, not_numbers, not_sizes, rows, without_row
from fastsiren.dropin import official

LINEAR = nn.Linear(2, 1)
FLAGS = (
    "bias", "is_first", "is_last", "use_bias", "outermost_linear", "special_first", "scale_req_grad", "modulate_scale",
    "modulate_shift", "use_latent", "identity_scale", "init_weights", "use_nyquist", "downsample", "partial_conv",
    "persistent_grid",
)  # fmt: skip
UNUSED = ("scale", "fn_samples", "device", "output_dim", "image_resolution", "mode", "kwargs", "args", "dtype")

SIZES = {
    "in_features", "hidden_features", "out_features", "dim_in", "dim_hidden", "dim_out", "latent_dim", "size", "width",
    "num_modulations", "modulation_net_dim_hidden", "out_channels", "num_modulation_layers", "image_width", "z_dim",
    "image_height", "hyper_in_features", "hyper_hidden_features", "channel", "hidden_dim", "input_dim", "sidelen",
    "map_hidden_dim", "map_output_dim", "dim",
}  # fmt: skip
COUNTS = {"hidden_layers": 0, "num_hidden_layers": 0, "hyper_hidden_layers": 0, "depth": 2}
COUNTS |= {"modulation_net_num_layers": 0}
OMEGAS = {"omega_0", "first_omega_0", "hidden_omega_0", "w0", "w0_initial"}
BOUNDS = {"c", "first_bias_scale", "latent_init_scale"}
FUNCTIONS = {"activation", "final_activation", "weight_init"}
LEAST = {"coin.Siren": 1, "lucidrains.SirenNet": 1, "lucidrains.Modulator": 1, "coinpp.LatentToModulation": 0}
"""Of num_layers; 2 elsewhere."""


def common(name: str) -> list[Row]:
    """Make the rows of the arguments that mean the same in all classes."""
    cls, _ = CLASSES[name]
    found = []
    for argument, parameter in inspect.signature(cls).parameters.items():
        none = parameter.default is None
        if argument in SIZES and argument not in free(name):
            cases = not_sizes(argument)
        elif argument in COUNTS or argument == "num_layers":
            cases = not_sizes(argument, COUNTS.get(argument, LEAST.get(name, 2)))
        elif argument in OMEGAS:
            cases = not_numbers(argument)
        elif argument in BOUNDS:
            cases = [({argument: "1"}, TypeError, "got '1' of type str, expected a number")]
            wrong = (-1.0, math.nan, math.inf)
            cases += [({argument: given}, ValueError, f"got {given}, expected a finite number >= 0") for given in wrong]
        elif argument in FUNCTIONS:
            cases = [({argument: "sine"}, TypeError, "got 'sine' of type str, expected None or a torch.nn.Module")]
        else:
            continue
        found += rows(name, *(case for case in cases if not (none and case[0][argument] is None)))
    return found


def free(name: str) -> tuple[str, ...]:
    """Name the arguments of a class that may be anything."""
    own = {
        "wire.INR": ("sidelength",), "pigan.SPATIALSIRENBASELINE": ("input_dim",),
        "official.SingleBVPNet": ("kwargs",), "official.PosEncodingNeRF": (),
    }  # fmt: skip
    unused = [argument for argument in UNUSED if (name, argument) not in USED]
    return (*FLAGS, *unused, *own.get(name, ()))


USED = {("official.SingleBVPNet", "mode"), ("official.PosEncodingNeRF", "fn_samples")}


ONLY_TENSORS = {"w0", "coordinates"}
SHAPED = {"gamma", "beta", "I", "context_x", "context_y", "freq", "phase_shift", "frequencies", "phase_shifts", "img"}
SHAPED |= {"ray_directions"}
PLAIN = {
    "official.ImageDownsampling()",
    "official.Sine()",
    *(f"{c}.Sine()" for c in ("coin", "coinpp", "lucidrains", "dalmia")),
}
RESHAPED = {"official.PosEncodingNeRF()", "official.RBFLayer()"}


def evaluated(name: str) -> list[Row]:
    """Make the rows of the tensors that a class is evaluated at."""
    found = []
    for argument, good in FORWARDS[name][1].items():
        if not isinstance(good, torch.Tensor):
            continue
        narrow = good[..., :-1]
        said = "got widths" if argument.startswith("context") else f"got shape {tuple(narrow.shape)}, expected ("
        shape = ({argument: narrow}, ValueError, said)
        cases = not_like(argument, good)
        optional = (name, argument) in {("lucidrains.SirenWrapper()", "img"), ("lucidrains.SirenWrapper()", "latent")}
        if name in PLAIN or argument == "coordinates":
            cases = cases[:3]
        elif (
            argument in SHAPED
            or name in RESHAPED
            or (name, argument) == ("coinpp.ModulatedSiren().modulated_forward", "latent")
        ):
            cases = [*cases[:3], shape]
        elif name == "colab.Siren()":
            cases = [
                *cases[:3],
                ({argument: good.long()}, TypeError, "got dtype torch.int64, expected a floating"),
                shape,
            ]
        else:
            cases = [*cases, shape]
        found += rows(name, *cases[optional:])
    return found


CALLS = {
    **{name: Call(cls, arguments, free(name)) for name, (cls, arguments) in CLASSES.items()},
    **{
        name: Call(getattr(made(name.partition("()")[0]), method), arguments, ("kwargs", "retain_grad", "ctxt_mask"))
        for name, (method, arguments) in FORWARDS.items()
    },
    "official.Sine()": Call(official.Sine().forward, {"input": X}),
    "official.MetaSequential()": Call(
        official.MetaSequential(made("official.BatchLinear")).forward, {"input": X, "params": None}
    ),
}


TABLE = [
    *(row for name in CLASSES for row in common(name)),
    *(row for name in FORWARDS for row in evaluated(name)),
    *rows("official.Sine()", *not_like("input", X)[:3]),
    *rows(
        "official.MetaSequential()",
        *not_like("input", X),
        ({"params": 3}, TypeError, "got 3 of type int, expected None or a dict of tensors"),
    ),
    *rows(
        "dalmia.SIREN",
        *(({"layers": given}, AssertionError, "expected a list of at least one width") for given in ([], (8,), 8)),
        ({"layers": [8, 2.0]}, TypeError, "got 2.0 of type float, expected an int"),
        ({"initializer": "xavier"}, ValueError, "got 'xavier', expected None or one of 'siren'"),
    ),
    *(
        row
        for name in ("lucidrains.Siren", "lucidrains.SirenNet")
        for row in rows(
            name,
            ({"dropout": "0"}, TypeError, "got '0' of type str, expected a number"),
            ({"dropout": 1.5}, ValueError, "got 1.5, expected a probability in [0, 1]"),
        )
    ),
    *rows(
        "lucidrains.SirenNet()",
        ({"mods": (uniform(5),)}, ValueError, "got 1 of them, expected 2, one per sine layer"),
        ({"mods": ("a", "b")}, TypeError, "got 'a' of type str, expected a torch.Tensor"),
        ({"mods": uniform(3, 1, 4)}, ValueError, "got shape (3, 1, 4), expected (..., 5)"),
    ),
    *rows("lucidrains.SirenWrapper", ({"net": LINEAR}, TypeError, "got a module Linear, expected a SirenNet")),
    *rows("lucidrains.SirenWrapper()", ({"latent": None}, ValueError, "got None, expected a tensor exactly when")),
    *(
        row
        for name in ("functa.LatentModulatedSiren", "functa.LatentToModulation")
        for row in rows(
            name,
            ({"layer_sizes": 6}, TypeError, "got 6 of type int, expected a list of ints"),
            ({"layer_sizes": (6, 0)}, ValueError, "got 0, expected an int >= 1"),
        )
    ),
    *(
        row
        for name in ("functa.LatentModulatedSiren", "functa.ModulatedSiren")
        for row in rows(
            name,
            ({"use_meta_sgd": True}, ValueError, "got True, expected False"),
            ({"modulate_scale": False, "modulate_shift": False}, ValueError, "got neither, expected at least one"),
        )
    ),
    *rows("coinpp.ModulatedSiren", ({"modulate_shift": False}, AssertionError, "got neither, expected at least one")),
    *rows(
        "coinpp.ModulatedSiren().modulated_forward",
        ({"x": X[0, 0]}, ValueError, "got shape (2,), expected (B, ..., 2), B networks in front"),
    ),
    *(
        row
        for name, key in (
            ("metasdf.BatchLinear()", "bias"),
            ("official.BatchLinear()", "bias"),
            ("metasdf.Siren()", ""),
        )
        for row in rows(
            name,
            ({"params": 3}, TypeError, "got 3 of type int, expected a dict with"),
            ({"params": {}}, KeyError, "got the keys [], expected", "weight' among them"),
            ({"params": {**PARAMS, **OWN, key or "net.0.linear.bias": 1.0}}, TypeError, "got 1.0 of type float under"),
            ({"params": {**PARAMS, **OWN, key or "net.0.linear.bias": uniform(4)}}, ValueError, "got shape (4,) under"),
        )
    ),
    *rows(
        "metasdf.Siren().forward_with_film",
        ({"film": 3}, TypeError, "got 3 of type int, expected a list of dicts"),
        ({"film": FILM[:1]}, ValueError, "got 1 of them, expected 2 or more, one per layer but the last"),
        ({"film": [{}, {}]}, KeyError, "got the keys [], expected 'gamma' among them"),
        ({"film": [{"gamma": 1.0, "beta": 1.0}] * 2}, TypeError, "got 1.0 of type float, expected a torch.Tensor"),
    ),
    *(
        row
        for name in FORWARDS
        if "model_input" in FORWARDS[name][1]
        for row in rows(
            name,
            ({"model_input": X}, TypeError, "got a torch.Tensor of shape (3, 4, 2)", "expected a dict with"),
            ({"model_input": {}}, KeyError, "got the keys [], expected '"),
        )
    ),
    *(
        row
        for name in ("official.PINNet()", "official.SingleBVPNet()", "official.SingleBVPNet().forward_with_activations")
        for row in rows(
            name,
            ({"model_input": {"coords": X.tolist()}}, TypeError, "of type list, expected a torch.Tensor"),
            (
                {"model_input": {"coords": X.long()}},
                TypeError,
                "got dtype torch.int64, expected a floating-point dtype",
            ),
            ({"model_input": {"coords": X.double()}}, TypeError, "got dtype torch.float64, expected torch.float32"),
            ({"model_input": {"coords": X[..., :1]}}, ValueError, "got shape (3, 4, 1), expected (..., 2)"),
        )
    ),
    *(
        row
        for name, call in CALLS.items()
        if "params" in inspect.signature(call.function).parameters and "params" not in call.arguments
        for row in rows(name, ({"params": 3}, TypeError, "got 3 of type int, expected", "a dict"))
    ),
    *rows("wire.INR", ({"pos_encode": True}, ValueError, "got True, expected False: this network has no positional")),
    *rows(
        "official.SetEncoder()",
        ({"context_x": X[0, 0]}, ValueError, "got shape (2,), expected (..., M, D)"),
        ({"context_x": uniform(3, 4, 2)}, ValueError, "context_x, context_y: got widths (2, 1), expected 2 together"),
    ),
    *rows("official.FCBlock", *not_names("nonlinearity", "sine", "relu", "tanh")),
    *rows("official.PINNet", *not_names("type", "sine", "relu", "tanh")),
    *rows("official.SingleBVPNet", *not_names("type", "sine"), *not_names("mode", "mlp", "rbf", "nerf")),
    *rows("official.SetEncoder", ({"nonlinearity": "tanh"}, AssertionError, "got 'tanh' of type str, expected 'relu'")),
    *rows(
        "official.NeuralProcessImplicit2DHypernet",
        ({"encoder_nl": "tanh"}, AssertionError, "got 'tanh' of type str, expected 'relu' or 'sine'"),
    ),
    *rows("official.HyperNetwork", ({"hypo_module": LINEAR}, TypeError, "got a module Linear, expected a MetaModule")),
    *rows(
        "official.ImageDownsampling",
        ({"sidelength": None}, AssertionError, "got None with downsample=True, expected the size of the image"),
        ({"sidelength": (8, "8")}, TypeError, "got '8' of type str, expected an int"),
        ({"sidelength": 0}, ValueError, "got 0, expected an int >= 1"),
    ),
    *rows(
        "official.PosEncodingNeRF",
        ({"in_features": 4}, ValueError, "got 4, expected 1, 2 or 3"),
        ({"sidelength": None}, AssertionError, "got None, expected the number of samples per axis"),
        ({"sidelength": 3}, ValueError, "got 3, expected an int >= 4"),
        ({"sidelength": (8, 8.0)}, TypeError, "got 8.0 of type float, expected an int"),
        ({"in_features": 1, "fn_samples": None}, AssertionError, "got None, expected the number of samples per axis"),
        ({"in_features": 1, "fn_samples": "8"}, TypeError, "got '8' of type str, expected an int"),
    ),
    *rows("pigan.UniformBoxWarp", *not_numbers("sidelength")),
]


@pytest.mark.parametrize("row", identify(TABLE))
def test_refused(row):
    check(CALLS, row)


@pytest.mark.parametrize("name", CALLS)
def test_served_but_for_what_a_row_changes(name):
    CALLS[name].function(**CALLS[name].arguments)


def test_every_argument_has_rows():
    assert without_row(CALLS, TABLE) == set()


# Records, bases, and what torch makes.
RECORDS = {"checkpoint.LAYOUTS", "checkpoint.Layout", "official.MetaModule", "official.MetaSequential", "official.Sine"}


def test_every_public_name_is_in_the_table():
    """Functions by their names, classes by theirs and once more for their forward."""
    for code in fastsiren.dropin.__all__:
        module = getattr(fastsiren.dropin, code)
        for name in getattr(module, "__all__", ()):
            found = f"{code}.{name}"
            assert found in CALLS or found in test_errors_dropin_functions.CALLS or found in RECORDS
            assert not inspect.isclass(getattr(module, name)) or f"{found}()" in CALLS or found in RECORDS
