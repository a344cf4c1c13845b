"""The image of the CUDA kernels: compiles kernels/cuda, writes kernels.fatbin and a manifest that says from what.

    tools/kernels.py build NVCC_VENV FOLDER     compiles, writes both
    tools/kernels.py check NVCC_VENV FOLDER     compiles, and compares with what is there

The same sources give the same bytes, wherever they lie: the compiler is pinned, each run compiles in another folder.
kernels/cuda/image_test.go holds the manifest to the sources and the image without compiling.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ["arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=sm_90a", "arch=compute_100,code=sm_100"]
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Werror", "all-warnings", "-Xfatbin=-compress-all", "-Iinclude"]


def sources() -> list[Path]:
    """What the image is made from, by rising path."""
    found = [*ROOT.glob("kernels/cuda/*.cu"), ROOT / "kernels/cuda/requirements.txt", ROOT / "tools/kernels.py"]
    seen: set[Path] = set()
    pending = list(found)
    while pending:  # and what they include
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.suffix in (".cu", ".h"):
            for name in re.findall(r'^#include ["<]([^">]+)[">]', path.read_text(), re.M):
                for folder in (path.parent, ROOT / "include"):
                    if (folder / name).is_file():
                        pending.append((folder / name).resolve())
    return sorted(seen)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def compile_image(venv: Path) -> tuple[bytes, str]:
    """The fat binary, and the compiler's version."""
    toolkit = next(venv.glob("lib/python3*/site-packages/nvidia/cu13"))
    nvcc = str(toolkit / "bin/nvcc")
    with tempfile.TemporaryDirectory() as folder:  # another place each time: what depends on it differs from run to run
        for path in sources():
            copy = Path(folder) / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        gencode = [f"-gencode={t}" for t in TARGETS]
        argv = [nvcc, *FLAGS, *gencode, "--threads=0", "-fatbin", "-o", "kernels.fatbin", "kernels/cuda/all.cu"]
        subprocess.run(argv, cwd=folder, check=True, env={**os.environ, "TMPDIR": folder})
        image = (Path(folder) / "kernels.fatbin").read_bytes()
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return image, version.strip().splitlines()[-1]


def manifest(image: bytes, compiler: str) -> str:
    return (
        json.dumps(
            {
                "compiler": compiler,
                "flags": [*FLAGS, *(f"-gencode={t}" for t in TARGETS)],
                "image": digest(image),
                "sources": {str(p.relative_to(ROOT)): digest(p.read_bytes()) for p in sources()},
            },
            indent=2,
        )
        + "\n"
    )


def main() -> int:
    command, venv, folder = sys.argv[1], Path(sys.argv[2]).absolute(), Path(sys.argv[3])
    image, compiler = compile_image(venv)
    files = {folder / "kernels.fatbin": image, folder / "manifest.json": manifest(image, compiler).encode()}
    if command == "build":
        folder.mkdir(exist_ok=True)
        for path, data in files.items():
            path.write_bytes(data)
        print(f"kernels.py: {len(image)} bytes, {digest(image)}")
        return 0
    differing = [str(path) for path, data in files.items() if not path.exists() or path.read_bytes() != data]
    for name in differing:
        print(f"kernels.py: {name}: differs from what the sources give (make kernels)")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
