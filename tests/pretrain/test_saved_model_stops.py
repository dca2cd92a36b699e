"""A model trained here ends its answers in transformers, too: the saved folder tells its stop tokens."""

from __future__ import annotations

import json

import torch

from herdlm.model.hf import export_hf
from herdlm.pretrain.pretrain import save_model
from tests.conftest import small_model
from tests.tokens.folders import write_family


@torch.no_grad()
def saved(tokenizer_folder, size, end, folder):
    """A model that draws ``end`` third, whatever it reads, saved as training saves it."""
    model = small_model(vocab_size=size, layers=1, tied_embeddings=False)
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()  # the next token depends on the last one only
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.zero_()
    head.zero_()
    for token in range(size):
        embedding[token, {end: 3, 10: 2}.get(token, 1)] = 1.0
    head[10, 1], head[end, 2], head[12, 3] = 5.0, 5.0, 5.0
    save_model(model, folder, tokenizer=tokenizer_folder, work=folder)
    return folder


def test_transformers_stops_where_the_template_ends_a_turn(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name, end_name in (("llama-3", "<|eot_id|>"), ("smollm2", "<|im_end|>"), ("phi-3", "<|end|>")):
        source = write_family(name, tmp_path / name)
        theirs = AutoTokenizer.from_pretrained(source)
        end = theirs.convert_tokens_to_ids(end_name)
        folder = saved(source, len(theirs), end, tmp_path / f"{name}-model")
        export_hf(folder, tmp_path / f"{name}-export", "float32")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-export")
        asked = theirs.apply_chat_template(
            [{"role": "user", "content": "moo"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        drawn = model.generate(**asked, do_sample=False, max_new_tokens=40)[0, asked["input_ids"].shape[1] :].tolist()
        assert drawn == [10, end], name
        config = json.loads((tmp_path / f"{name}-export" / "config.json").read_text())
        assert end in config["eos_token_id"] and isinstance(config["pad_token_id"], int)
