"""The child process that turns a GGUF file into a folder of safetensors; see `default_model`.

    python -m rlm_runtime.engine.convert_gguf FILE.gguf FOLDER

vLLM serves the folder as it is; its own reading of GGUF is a plug-in apart. About 25 s and 1.5 GB
of memory for 135M weights on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(gguf: Path, folder: Path) -> None:
    """Write the model (bfloat16) and its tokenizer into `folder`.

    Args:
        gguf: The quantised weights, with the tokenizer in their metadata.
        folder: Made if missing.
    """
    # Loaded here: the package's other modules can be imported without the GPU stack.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
