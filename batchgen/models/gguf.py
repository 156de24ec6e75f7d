"""A GGUF file becomes a transformers folder with float32 safetensors, once, at import."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

from batchgen.errors import UnsafeModel, UnsupportedModel

HEADER = struct.Struct("<4sIQQ")  # magic, version, tensors, metadata entries
VERSIONS = (2, 3)
MAX_COUNT = 1_000_000  # tensors or metadata entries; large models have thousands

# The converter is told nothing but the two paths, and reaches for no network.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def convert_gguf(source: Path, target: Path) -> None:
    """Write config, tokenizer and safetensors of the GGUF file `source` into `target`.

    It runs in a process of its own: what reads the file may crash or take much memory, and the
    caller stays free of torch. Raises UnsafeModel or UnsupportedModel.
    """
    check_gguf(source)
    command = [sys.executable, "-P", "-m", "batchgen.models.gguf_convert"]
    done = subprocess.run(  # noqa: S603 - our own module, our own interpreter
        [*command, str(source.resolve()), str(target.resolve())],
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise UnsupportedModel(f"{source.name} cannot be converted: {last[0]}")


def check_gguf(path: Path) -> None:
    """Raise UnsafeModel where the file does not begin as a GGUF file does."""
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size or head[:4] != b"GGUF":
        raise UnsafeModel(f"{path.name} is not a GGUF file.")
    _, version, tensors, entries = HEADER.unpack(head)
    if version not in VERSIONS:
        raise UnsupportedModel(f"{path.name} is GGUF version {version}; 2 and 3 are read.")
    if tensors > MAX_COUNT or entries > MAX_COUNT:
        raise UnsafeModel(f"{path.name} claims {tensors} tensors and {entries} entries.")
