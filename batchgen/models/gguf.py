"""A GGUF file becomes a transformers folder with float32 safetensors, once, at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf_header import read_gguf_header

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
    read_gguf_header(source)
    command = [sys.executable, "-P", "-m", "batchgen.models.gguf_convert"]
    done = subprocess.run(
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
