"""Peer: infinity-emb as a server of MiniLM, on the loopback alone.

Arguments: the checkpoint's folder, a folder to build in, the engine (torch, optimum or
ctranslate2), the type (float32, bfloat16, or int8: optimum's dynamically quantised products), the
port. This process becomes the server.
"""

import os
import shutil
import sys
from pathlib import Path

from decoder_checkpoint import built

NAME = "minilm"
PREFIX = "/v1"


def with_graph(minilm: Path, builds: Path, dtype: str) -> Path:
    """The checkpoint with the ONNX graph that the engine `optimum` reads."""

    def export(folder: Path) -> None:
        from optimum.exporters.onnx import main_export

        shutil.copytree(minilm, folder, dirs_exist_ok=True)
        main_export(str(minilm), folder, task="feature-extraction", library_name="transformers")
        if dtype == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            plain = folder / "model.onnx"
            quantize_dynamic(
                plain,
                folder / "model_quantized.onnx",
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
            plain.unlink()

    return built(builds / f"minilm-infinity-{dtype}", export)


def options(minilm: Path, builds: Path, engine: str, dtype: str) -> list[str]:
    if engine == "optimum":
        # optimum takes the graph by its bare name, infinity gives its path: from here they are one.
        os.chdir(with_graph(minilm, builds, dtype))
        return ["--model-id", ".", "--pooling-method", "mean"]
    # BetterTransformer has gone from optimum; compiling for every new shape is slower than running.
    plain = ["--dtype", dtype, "--no-bettertransformer", "--no-compile"]
    return ["--model-id", str(minilm), *plain]


def main() -> None:
    minilm, builds, engine, dtype, port = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:6]
    chosen = options(minilm, builds, engine, dtype)
    environment = os.environ | {
        "HF_HOME": str(builds / "infinity"),  # it converts into the hub's cache
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
    }
    program = Path(sys.executable).with_name("infinity_emb")
    command = [str(program), "v2", "--engine", engine, "--device", "cpu", *chosen]
    command += ["--served-model-name", NAME, "--url-prefix", PREFIX, "--log-level", "warning"]
    command += ["--host", "127.0.0.1", "--port", port]
    os.execve(program, command, environment)  # noqa: S606 - the arguments are this file's own


if __name__ == "__main__":
    main()
