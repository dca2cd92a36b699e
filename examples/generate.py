"""Generate with the engine: a batch of prompts, several samples of one prompt, and JSON that keeps to a schema.

python examples/generate.py [MODEL]
"""

import json
import sys
from pathlib import Path

from herdlm.generate import Engine, SamplingParams
from herdlm.generate.sampling.grammar import Grammar
from herdlm.model.folders import model_folder
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT

SCHEMA = {
    "type": "object",
    "properties": {"package": {"type": "string", "maxLength": 12}, "installed": {"type": "boolean"}},
    "required": ["package", "installed"],
    "additionalProperties": False,
}


def main(model: str = "runs/tiny") -> None:
    engine = Engine.load(model_folder(Path(model)))
    begin = engine.tokenizer.special(BEGIN_OF_TEXT)
    prompts = [[begin, *engine.tokenizer.encode(text)] for text in ("The package manager", "A server", "To install")]
    greedy = engine.generate(prompts, SamplingParams(max_tokens=24, temperature=0))
    for (completion,) in greedy:
        print(f"greedy: {completion.text!r}")
    sampling = SamplingParams(max_tokens=24, temperature=0.8, top_p=0.95, n=3, seed=1)
    for completion in engine.generate(prompts[:1], sampling)[0]:
        print(f"sampled: {completion.text!r}")
    constrained = SamplingParams(max_tokens=100, seed=2, grammar=Grammar.json_schema(SCHEMA))
    print(f"JSON: {json.loads(engine.generate(prompts[:1], constrained)[0][0].text)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
