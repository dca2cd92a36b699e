"""An FP8 folder behind the server, as any other folder."""

from __future__ import annotations

import torch

from herdlm.generate import Engine, SamplingParams
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.folder import quantize_folder
from herdlm.generate.fp8.linear import Fp8Linear
from tests.serve.conftest import running


def test_an_fp8_folder_is_served_and_answers_like_its_engine(folder, tmp_path):
    fp8 = tmp_path / "flagship-fp8"
    quantize_folder(folder, fp8, Fp8Config(skip_first_layers=0, skip_last_layers=0))
    engine = Engine.load(fp8, device="cpu", dtype="float32")
    assert any(isinstance(module, Fp8Linear) for module in engine.model.modules())
    alone = Engine.load(fp8, device="cpu", dtype=torch.float32)
    with running(fp8, engine=engine) as server:
        assert [model.id for model in server.client.models.list()] == ["flagship-fp8"]
        answer = server.client.completions.create(
            model="flagship-fp8", prompt="The package manager", max_tokens=12, temperature=0
        )
        prompt = server.text.text_prompt("The package manager")
    greedy = SamplingParams(max_tokens=12, temperature=0, stop_tokens=server.text.stop_tokens)
    ((expected,),) = alone.generate([prompt], greedy)
    assert answer.choices[0].text == expected.text
    assert answer.usage.completion_tokens == len(expected.logprobs)
