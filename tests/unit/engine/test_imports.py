from __future__ import annotations

import subprocess
import sys

TORCH_FREE = [
    "core.engine_stats",
    "engine.config",
    "engine.scheduling.blocks",
    "engine.scheduling.block_tables",
    "engine.scheduling.sequence",
    "engine.scheduling.plan",
    "engine.scheduling.scheduler",
]


def test_what_the_worker_and_the_simulations_import_loads_no_torch() -> None:
    modules = ", ".join(f"batchgen.{name}" for name in TORCH_FREE)
    code = f"import sys, {modules}, batchgen_kernels.layout, batchgen_kernels.registry\n"
    code += "print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
