"""llama.cpp, where it is installed (pip install llama-cpp-python): token ids and greedy text of a GGUF file."""

import pytest


def load(path, **options):
    """A model in llama.cpp, on the plain CPU buffers: repacked ones give wrong numbers on some virtual machines."""
    llama = pytest.importorskip("llama_cpp")
    low = llama.llama_cpp
    default = low.llama_model_default_params

    def plain():
        params = default()
        params.use_extra_bufts = False
        return params

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low, "llama_model_default_params", plain)
        return llama.Llama(str(path), n_ctx=256, n_threads=1, verbose=False, **options)


def greedy(model, prompt, count):
    """The ``count`` most likely tokens after ``prompt``, one after the other."""
    model.reset()
    out = []
    for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        out.append(token)
        if len(out) == count:
            return out
    return out


def encode(model, text):
    """Token ids of ``text``, which may name special tokens, without begin or end."""
    return model.tokenize(text.encode(), add_bos=False, special=True)
