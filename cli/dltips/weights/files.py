"""Reads files of weights as data: recognizes the content by its bytes, and never runs any of it."""

from __future__ import annotations

import argparse
import io
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from dltips.errors import ConfigError, suggest

KEY = "finetune.source"
WEIGHT_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".tar", ".safetensors", ".ckpt")
DOWNLOAD_AGAIN = "download it again"
# keys under which training scripts store the weights; an average over steps comes first, as the evaluated one
WRAPPERS = (
    *("state_dict_ema", "model_ema", "params_ema", "state_dict", "model_state_dict", "model_state", "model", "net"),
    *("network", "params", "weights", "module"),
)
# the first bytes of files that are mistaken for weights
FOREIGN_STARTS = (
    (b"\x89PNG", "is a picture (PNG)"),
    (b"\xff\xd8\xff", "is a picture (JPEG)"),
    (b"GIF8", "is a picture (GIF)"),
    (b"RIFF", "is a picture or a recording (RIFF)"),
    (b"%PDF", "is a PDF"),
    (b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (b"BZh", "is packed with bzip2; unpack it first"),
    (b"7z\xbc\xaf", "is packed with 7-Zip; unpack it first"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them"),
    (b"\x93NUMPY", "is a numpy array"),
    (b"GGUF", "is a GGUF file, whose tensors are quantized"),
)
REMEDY = "give a .pth or .safetensors file of weights"
ZIP_START = b"PK\x03\x04"
# types that torch allows besides its own
HARMLESS_NAMES = {"_codecs.encode", "__builtin__.set", "builtins.set", "__builtin__.bytearray", "builtins.bytearray"}
HTML_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")


def read(path: Path | str, key: str = KEY) -> dict[str, Tensor]:
    """Returns the tensors of a .pth (zip or legacy) or .safetensors file, on the CPU, floating ones as float32.

    Taken out of what a training script has wrapped around them (`state_dict`, `model`, ..., an average of the weights
    before the weights themselves), without `module.` in front of the names. Raises ConfigError, one line that begins
    with `key`: for a file without weights, a damaged one, or one that could be read only by running it.
    """
    return tensors(contents(path, key), path, key)


def contents(path: Path | str, key: str = KEY) -> Any:
    """Returns the file's content: plain data and tensors only. Raises ConfigError."""
    file = _existing_file(Path(path).expanduser(), path, key)
    try:
        with file.open("rb") as stream:
            start = stream.read(1024)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read ({error.strerror}); mind its permissions") from error
    _refuse_foreign(start, path, key)
    if start[:4] == ZIP_START:
        _check_archive(file, path, key)
        return _unpickled(file, path, key)
    if start[8:9] == b"{":
        return _safetensors(file, path, key)
    if start[:1] == b"\x80":
        return _unpickled(file, path, key)
    if start[257:262] == b"ustar":
        raise ConfigError(f"{key}: {path} is a tar archive; unpack it first, or {REMEDY}")
    if _is_text(start):
        line = start.decode(errors="replace").strip().splitlines()[0][:40]
        raise ConfigError(f"{key}: {path} is text, not weights (it begins with {line!r}); {REMEDY}")
    raise ConfigError(
        f"{key}: {path} is not a file of weights (it begins with the bytes {start[:8].hex(' ')}); {REMEDY}"
    )


def tensors(held: Any, path: Path | str, key: str = KEY) -> dict[str, Tensor]:
    """Returns the named tensors of a file's content, as `read` does. Raises ConfigError for none, or several sets."""
    state = _unwrapped(held, path, key)
    found = {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            if tensor.is_quantized:
                raise ConfigError(f"{key}: {path} holds quantized tensors ({name}); give the float weights")
            plain = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
            found[_plain_name(name)] = plain.float() if plain.is_floating_point() else plain
    return found


def _existing_file(file: Path, path: Path | str, key: str) -> Path:
    if not str(path).strip():
        raise ConfigError(f"{key}: '' is not a path; {REMEDY}")
    if file.is_dir():
        inside = _weights_in(file)
        remedy = f"write {key}={file / inside[0]}" if inside else REMEDY
        raise ConfigError(f"{key}: {path} is a folder, but not a run of dltips; {remedy}")
    if not file.exists():
        neighbours = _weights_in(file.parent) if file.parent.is_dir() else []
        hint = suggest(file.name, neighbours) if neighbours else f"; {REMEDY}"
        raise ConfigError(f"{key}: {path} does not exist{hint}")
    if not file.is_file():
        raise ConfigError(f"{key}: {path} is not a plain file; {REMEDY}")
    if file.stat().st_size == 0:
        raise ConfigError(f"{key}: {path} is empty; {DOWNLOAD_AGAIN}")
    return file


def _weights_in(folder: Path) -> list[str]:
    """Returns suggestions: files that look like weights, and run folders."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        return sorted(
            entry.name for entry in found if entry.suffix in WEIGHT_SUFFIXES or (entry / "config.yaml").is_file()
        )
    except OSError:
        return []


def _refuse_foreign(start: bytes, path: Path | str, key: str) -> None:
    """Raises ConfigError for a foreign type, recognized by the first bytes."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(HTML_STARTS):
        raise ConfigError(f"{key}: {path} is a web page, not weights; download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise ConfigError(f"{key}: {path} is git-lfs's pointer to the weights; fetch them with git lfs pull")
    for magic, what in FOREIGN_STARTS:
        if start.startswith(magic):
            remedy = "" if ";" in what else f"; {REMEDY}"
            raise ConfigError(f"{key}: {path} {what}, not weights{remedy}" if remedy else f"{key}: {path} {what}")


def _is_text(start: bytes) -> bool:
    try:
        # a character may be cut at the end
        text = start.decode() if len(start) < 1024 else start[:-4].decode(errors="strict")
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(character.isprintable() or character.isspace() for character in text)


def _check_archive(file: Path, path: Path | str, key: str) -> None:
    """Raises ConfigError unless the zip archive is complete and torch.save's."""
    try:
        # torch.load does not verify the checksums of the zip archive
        with zipfile.ZipFile(file) as archive:
            names = [Path(name).name for name in archive.namelist()]
            inner = {name.split("/")[1] for name in archive.namelist() if "/" in name}
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{key}: {path} is cut short or damaged ({_reason(error)}); {DOWNLOAD_AGAIN}") from error
    if broken is not None:
        raise ConfigError(f"{key}: {path} is damaged: {broken} fails its checksum; {DOWNLOAD_AGAIN}")
    if "constants.pkl" in names and "code" in inner:
        raise ConfigError(
            f"{key}: {path} is a TorchScript archive, which holds code; give its state dict"
            " (torch.save(torch.jit.load(FILE).state_dict(), ...)) or a .safetensors file"
        )
    if "data.pkl" not in names:
        kind = "numpy's archive" if all(name.endswith(".npy") for name in names) else "a zip archive, but not torch's"
        raise ConfigError(f"{key}: {path} is {kind} (it holds {', '.join(names[:2]) or 'nothing'}); {REMEDY}")


def _unpickled(file: Path, path: Path | str, key: str) -> Any:
    try:
        # opened here: torch.load would decide by the file's name whether it is .safetensors
        with file.open("rb") as stream, warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # of an unusual pickle protocol
            return torch.load(stream, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise ConfigError(f"{key}: {path} does not fit into this machine's memory; give a smaller file") from error
    except Exception as error:  # torch and pickle raise a dozen types
        calls = sorted(set(_unknown_imports(file)))
        if calls:
            raise ConfigError(
                f"{key}: {path} holds code: to read it would call {', '.join(calls[:3])}; refused, and not run: ask for"
                " a .safetensors file, or for the state dict alone"
            ) from error
        raise ConfigError(f"{key}: {path} is cut short or damaged ({_reason(error)}); {DOWNLOAD_AGAIN}") from error


def _safetensors(file: Path, path: Path | str, key: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device="cpu")
    except (SafetensorError, ValueError, RuntimeError, OSError, KeyError) as error:
        raise ConfigError(f"{key}: {path} is cut short or damaged ({_reason(error)}); {DOWNLOAD_AGAIN}") from error


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:100] if text and "weights_only" not in text else type(error).__name__


def _harmless() -> list[Any]:
    """Returns types that training scripts often save beside the weights: arguments, and scores as numpy's numbers."""
    import numpy

    multiarray = getattr(numpy, "_core", None) or numpy.core
    scalar = multiarray.multiarray.scalar
    kinds = {type(numpy.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [argparse.Namespace, numpy.dtype, *kinds, *((scalar, name) for name in names)]


def _unknown_imports(file: Path) -> Iterator[str]:
    """Returns what a pickle, or that of a zip archive, would import and call, except torch's and Python's containers.

    Found by reading its opcodes; nothing is imported.
    """
    harmless = {f"{each.__module__}.{each.__qualname__}" for each in _harmless() if isinstance(each, type)}
    harmless |= {each[1] for each in _harmless() if isinstance(each, tuple)} | HARMLESS_NAMES
    with file.open("rb") as opened:
        stream: IO[bytes] = opened
        if opened.read(4) == ZIP_START:
            with zipfile.ZipFile(file) as archive:
                inner = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                stream = io.BytesIO(archive.read(inner))
        stream.seek(0)
        try:
            while True:  # a legacy file is several pickles in a row, and then bytes
                for name in _imported_names(stream):
                    plain = name.startswith(("torch.", "collections.")) and not name.startswith("torch.nn.modules")
                    if not plain and name not in harmless:
                        yield name
        except Exception:  # the end, or bytes that are not opcodes
            return


def _imported_names(stream: IO[bytes]) -> Iterator[str]:
    """Yields the globals of one pickle: its opcodes GLOBAL, INST and STACK_GLOBAL."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif opcode.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else int(argument or 0)] = last
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            strings.append(memo.get(int(argument or 0), ""))
        last = argument if isinstance(argument, str) else ""
        if last and "UNICODE" in opcode.name:
            strings.append(last)


def _unwrapped(held: Any, path: Path | str, key: str) -> Mapping[str, Any]:
    for _ in range(4):
        if not isinstance(held, Mapping):
            what = "one tensor without a name" if isinstance(held, Tensor) else f"a {type(held).__name__}"
            raise ConfigError(f"{key}: {path} holds {what}, no state dict; save model.state_dict()")
        # keys beside a wrapped state dict may be tensors too: swa_utils counts its averages in one
        inside = [name for name in held if isinstance(held[name], Mapping) and _is_state(held[name])]
        if _is_state(held) and not any(name in WRAPPERS for name in inside):
            return held
        known = [name for name in WRAPPERS if name in inside or _wraps(held.get(name))]
        if not known and len(inside) > 1:
            raise ConfigError(
                f"{key}: {path} holds several state dicts ({', '.join(map(str, inside[:3]))}); save the one that you"
                " mean by itself"
            )
        if not known and not inside:
            break
        held = held[(known or inside)[0]]
    raise ConfigError(f"{key}: {path} holds no tensors with names; save model.state_dict()")


def _is_state(held: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in held.values()) and all(isinstance(name, str) for name in held)


def _wraps(held: Any) -> bool:
    """Returns whether it contains a state dict under one of the known names."""
    return isinstance(held, Mapping) and any(
        isinstance(held.get(name), Mapping) and _is_state(held[name]) for name in WRAPPERS
    )


def _plain_name(name: str) -> str:
    """Removes the prefixes of torch.compile and DataParallel; the former occurs before any part."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
