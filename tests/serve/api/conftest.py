"""A server of a model with room for tools, and its client."""

import json

import pytest

from tests.serve.conftest import running, write_model


@pytest.fixture(scope="module")
def roomy(tmp_path_factory, tokenizer):
    """A server of the model ``flagship``, whose context is 2,048 tokens."""
    folder = write_model(tmp_path_factory.mktemp("roomy") / "flagship", tokenizer)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    with running(folder) as server:
        yield server
