"""A server whose model is spread over processes, asked by the openai client."""

import numpy as np

from herdlm.generate import SamplingParams
from herdlm.generate.embedding import embedding
from herdlm.serve.workers.model_text import ModelText
from herdlm.serve.workers.models import Models
from tests.serve.conftest import running


def test_a_pipeline_gives_the_answers_and_embeddings_of_one_process(folder, engine_apart):
    models = Models([ModelText.read(folder)], device="cpu", dtype="float32", pipeline_parallel=2)
    prompt = models.default.text.text_prompt("The package manager")
    with running(folder, models=models) as server:
        answers = [
            server.client.completions.create(model="flagship", prompt=prompt, max_tokens=12, temperature=0)
            for _ in range(2)
        ]
        vector = server.client.embeddings.create(model="flagship", input=prompt).data[0].embedding
        assert models.default.backend.info.bytes > 0
    ((expected,),) = engine_apart.generate([prompt], SamplingParams(max_tokens=12, temperature=0))
    assert [answer.choices[0].text for answer in answers] == [expected.text] * 2
    np.testing.assert_allclose(vector, embedding(engine_apart.model, prompt), atol=1e-6)
