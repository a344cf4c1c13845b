"""The tensors of a checkpoint, as a graph takes them.

Tensors are used as they are stored (bfloat16 or float32); float16 is cast to float32. Experts that are stored one by
one are stacked, which is a copy, made once at load and noted.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from config import ConfigError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class Part(NamedTuple):
    """A tensor of the checkpoint that is one part of a stacked one: its name, its shape, its place there."""

    name: str
    shape: Shape
    place: tuple[int | slice, ...]


@dataclass(frozen=True)
class Weight:
    """A tensor that a graph needs, and what it is made of: the checkpoint's tensor of the same name and shape, unless
    one of these says otherwise.

    Attributes:
        stored: its shape in the checkpoint, where that is another one of the same elements.
        parts: the tensors that are stacked to it, if it is not stored as a whole.
        source, function: it is this function of the tensor ``source`` (given and giving float32).
        optional: it may be missing.
    """

    shape: Shape
    stored: Shape | None = None
    parts: tuple[Part, ...] = ()
    source: str = ""
    function: Callable[[Array], Array] | None = None
    optional: bool = False


def stacked_rows(name: str, experts: int, projections: Sequence[str], rows: int, columns: int) -> Weight:
    """[experts, len(projections) * rows, columns] of ``<name>.<expert>.<projection>.weight`` [rows, columns]."""
    parts = [
        Part(f"{name}.{e}.{projection}.weight", (rows, columns), (e, slice(i * rows, (i + 1) * rows)))
        for e in range(experts)
        for i, projection in enumerate(projections)
    ]
    return Weight((experts, len(projections) * rows, columns), parts=tuple(parts))


def note(text: str) -> None:
    print(f"checkpoint: {text}", file=sys.stderr)


class Files:
    """The safetensors of a folder: model.safetensors, or the shards that model.safetensors.index.json lists."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        import ml_dtypes  # noqa: F401  teaches numpy, and through it safetensors, what bfloat16 is
        from safetensors import safe_open

        single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
        self.where, listed = single, {}
        if single.is_file():
            files: set[str] = {single.name}
        elif index.is_file():
            self.where, listed = index, json.loads(index.read_text())["weight_map"]
            files = set(listed.values())
        else:
            raise ConfigError(f"{folder}: neither {single.name} nor {index.name}")
        self.casts = 0
        self.files: dict[str, tuple[Path, Any]] = {}
        for file in sorted(files):
            try:
                tensors = stack.enter_context(safe_open(folder / file, "np"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{folder / file}: {error}") from error
            self.files |= dict.fromkeys(tensors.keys(), (folder / file, tensors))
        for name, file in listed.items():
            if name not in self.files:
                raise ConfigError(f"{folder / file}: no tensor {name}")

    def read(self, name: str, shape: Shape) -> Array:
        if name not in self.files:
            raise ConfigError(f"{self.where}: no tensor {name}")
        path, tensors = self.files[name]
        tensor: Array = tensors.get_tensor(name)
        if tensor.shape != shape:
            raise ConfigError(f"{path}: {name}: {tensor.shape}, config.json says {shape}")
        if tensor.dtype.name == "float16":
            self.casts += 1
            return tensor.astype(np.float32)
        if tensor.dtype.name not in ("bfloat16", "float32"):
            raise ConfigError(f"{path}: {name}: {tensor.dtype.name} is not supported")
        return tensor

    def stack(self, weight: Weight) -> Array:
        out: Array | None = None
        for part in weight.parts:
            tensor = self.read(part.name, part.shape)
            if out is None:
                out = np.empty(weight.shape, tensor.dtype)
            elif tensor.dtype != out.dtype:
                raise ConfigError(f"{self.where}: {part.name}: {tensor.dtype.name} beside {out.dtype.name}")
            out[part.place] = tensor
        assert out is not None
        return out


def load(
    folder: str | Path,
    weights: Mapping[str, Weight],
    ignored: Iterable[str] = (),
    note: Callable[[str], object] = note,
) -> dict[str, Array]:
    """The tensors that a graph needs, by name. Raises ConfigError for one that is missing or of another shape or type,
    and for one that the checkpoint has and the graph does not use: it would belong to something that is not computed.

    Args:
        ignored: patterns of names that are not needed though they are there.
    """
    found: dict[str, Array] = {}
    with ExitStack() as stack:
        files = Files(Path(folder), stack)
        used: set[str] = set()
        copied = 0
        for name, weight in weights.items():
            if weight.parts and name not in files.files:
                found[name] = files.stack(weight)
                used.update(part.name for part in weight.parts)
                copied += found[name].nbytes
                continue
            source = weight.source or name
            if source not in files.files and weight.optional:
                continue
            tensor = files.read(source, weight.stored or weight.shape)
            used.add(source)
            if weight.function is not None:
                tensor = weight.function(tensor.astype(np.float32)).astype(np.float32)
            found[name] = tensor.reshape(weight.shape)
        left = [name for name in files.files if name not in used]
        for pattern in ignored:
            matching = [name for name in left if re.search(pattern, name)]
            if matching:
                note(f"{len(matching)} tensors are not needed: {matching[0]}{', ...' * (len(matching) > 1)}")
            left = [name for name in left if name not in set(matching)]
        if left:
            path, _ = files.files[left[0]]
            raise ConfigError(f"{path}: {left[0]}: not needed by any option that config.json sets")
    if copied:
        note(f"experts are stored one by one: stacked, a copy of {copied / 2**20:.1f} MiB")
    if files.casts:
        note(f"{files.casts} float16 tensors were cast to float32")
    return found
