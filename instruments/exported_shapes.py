"""The trained checkpoint of examples/shapes behind a runtime: exported, and loaded as a pipeline.

python -m exported_shapes onnx FOLDER
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

CHECKPOINT = Path(__file__).parents[1] / "examples" / "shapes" / "checkpoint"

#: The modules that have pipelines of diffusers' names, and what they put before those.
_RUNTIMES = {
    "onnx": ("optimum.onnxruntime", "ORT"),
    "openvino": ("optimum.intel", "OV"),
}


def export(runtime: str, folder: Path, **options: Any) -> None:
    """Write the checkpoint as the runtime's library exports it; what was there is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    made = _kind(runtime, "StableDiffusionPipeline").from_pretrained(
        str(CHECKPOINT), export=True, **options
    )
    made.save_pretrained(str(folder))


def load(runtime: str, folder: Path, name: str = "StableDiffusionPipeline", **options: Any) -> Any:
    """Load an exported pipeline, in float32 and with one thread.

    Args:
        runtime: "onnx" or "openvino".
        folder: the folder of the export.
        name: name of diffusers' class.
        options: arguments for the class's ``from_pretrained``.
    """
    if runtime == "onnx":
        from onnxruntime import SessionOptions

        settings = SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        options = {"session_options": settings, **options}
    else:
        # OpenVINO takes bfloat16 by itself where a processor has it.
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
        options = {"ov_config": config, **options}
    pipeline = _kind(runtime, name).from_pretrained(str(folder), export=False, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _kind(runtime: str, name: str) -> Any:
    module, prefix = _RUNTIMES[runtime]
    return getattr(importlib.import_module(module), f"{prefix}{name}")


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]))
