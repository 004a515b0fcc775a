"""A real language model, too small to say anything: real classes, random weights, a byte-level tokenizer, and
`transformers serve`, which speaks the OpenAI protocol for it."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def save_tiny_llm(folder: Path) -> None:
    """Writes model and tokenizer to `folder`, the same at every call. What it says are bytes at random."""
    torch.manual_seed(0)
    vocab = {piece: i for i, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"])}
    bytes_only = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="</s>", chat_template=TEMPLATE)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    end = tokenizer.eos_token_id
    config = LlamaConfig(vocab_size=len(vocab), max_position_embeddings=16384, eos_token_id=end, **shape)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """`transformers serve` in a process of its own; gives the address for OPENAI_BASE_URL."""
    program = [Path(sys.executable).with_name("transformers"), "serve", folder, "--host", "127.0.0.1"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen([*program, "--port", "0", "--device", "cpu", "--default-seed", "0"], stderr=log)
    try:
        yield f"{_address(process, folder / 'serve.log')}/v1"
    finally:
        process.terminate()
        process.wait()


def _address(process: subprocess.Popen, log: Path) -> str:
    """The system chooses the port, and the log tells it."""
    while process.poll() is None:
        if found := re.search(r"running on (http://[\d.:]+)", log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise RuntimeError(log.read_text())
