"""A network as a folder with config.json and model.safetensors, the layout of huggingface_hub's PyTorchModelHubMixin.

Reading and writing folders needs nothing of the hub; loading by the name of a repository needs huggingface_hub. Nothing
in the files is executed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from . import tensorfile
from .engine.values import described
from .faults import InputError, from_os_error
from .files import atomic_output, open_input
from .tensorfile import TensorFile

if TYPE_CHECKING:
    from .siren import Siren

    Net = TypeVar("Net", bound=Siren)

__all__ = ["arguments", "load", "save"]

CONFIG, TENSORS = "config.json", "model.safetensors"
_ARGUMENTS = (
    "in_features",
    "hidden_features",
    "hidden_layers",
    "out_features",
    "outermost_linear",
    "first_omega_0",
    "hidden_omega_0",
    "precision",
)


def arguments(net: Siren) -> dict[str, Any]:
    """The arguments that make a network of the same architecture, plain JSON values.

    Raises:
        ValueError: frequencies were changed since the network was made.
    """
    omegas = net.siren_parameters().omegas
    if omegas != [net.first_omega_0, *[net.hidden_omega_0] * (len(omegas) - 1)]:
        raise ValueError(
            f"net: got frequencies {omegas}, which the arguments of its constructor do not describe; make it anew with "
            "first_omega_0 and hidden_omega_0, or save its state_dict"
        )
    return {name: getattr(net, name) for name in _ARGUMENTS}


def save(net: Siren, folder: str | os.PathLike[str]) -> None:
    """Write the constructor's arguments and the tensors of a network; see Siren.save_pretrained."""
    config = arguments(net)
    config["bias"] = any(name.endswith("bias") for name, _ in net.named_parameters())
    config |= {"init": net.init} if isinstance(net.init, str) else {}
    state = net.state_dict()
    dtypes = {tensor.dtype for tensor in state.values()}
    if not dtypes <= {torch.float16, torch.float32, torch.float64}:
        raise ValueError(f"net: got parameters of {dtypes}, files hold torch.float16, torch.float32 or torch.float64")
    # On the device meta a network of any size costs nothing.
    if _shapes(type(net)(**config, device="meta").state_dict()) != _shapes(state):
        raise ValueError(
            "net: got layers or parametrizations that the arguments of its constructor do not describe; save its "
            "state_dict"
        )
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, str(folder), "write") from None
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
    tensorfile.write(folder / TENSORS, TensorFile({"network": config}, tensors))
    with atomic_output(folder / CONFIG) as file:
        file.write((json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def load(cls: type[Net], name: str | os.PathLike[str], device: Any, **download: Any) -> Net:
    """Make the network that a folder or a repository holds; see Siren.from_pretrained."""
    config = _config(_file(name, CONFIG, download))
    path = _file(name, TENSORS, download)
    description, tensors = tensorfile.read_any(path)
    sealed = description.get("network", {})
    if any(config.get(key) != value for key, value in sealed.items()):
        raise InputError(f"{path} was saved with another {CONFIG} than the one beside it; save the network again")
    state = {key: torch.from_numpy(array) for key, array in tensors.items()}
    dtypes = {tensor.dtype for tensor in state.values()}
    layers = config.get("hidden_layers")
    if len(dtypes) != 1 or not isinstance(layers, int) or layers > len(state):
        raise InputError(f"{path} does not hold the tensors of the network that {CONFIG} describes; save it again")
    net = cls(**{**config, "device": "meta", "dtype": dtypes.pop()})
    if _shapes(net.state_dict()) != _shapes(state):
        raise InputError(f"{path} does not hold the tensors of the network that {CONFIG} describes; save it again")
    net.load_state_dict(state, assign=True)
    return net.to(torch.get_default_device() if device is None else device)


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _config(path: str) -> dict[str, Any]:
    """The arguments of a constructor, from a file."""
    with open_input(path, f"a {CONFIG}") as file:
        text = file.read()
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); save the network again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path} holds {described(config)}, expected the arguments of Siren by name")
    return config


def _file(name: str | os.PathLike[str], file: str, download: dict[str, Any]) -> str:
    """The path of one file of a folder, or of a repository on the hub once it is downloaded."""
    if os.path.isdir(name):
        return os.path.join(name, file)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError(
            f"{os.fspath(name)} is no folder here; to load a network of that name from the Hugging Face hub, run: pip "
            "install 'fastsiren[hub]'"
        ) from None
    return str(hf_hub_download(os.fspath(name), file, **download))
