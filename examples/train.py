"""Train a tokenizer and a tiny model on a corpus, such as examples/curate.py makes.

python examples/train.py [CORPUS] [OUT] [STEPS]
"""

import sys
from pathlib import Path

from herdlm.model.config import ModelConfig
from herdlm.model.hf import save_folder
from herdlm.model.transformer import build, initialize
from herdlm.tokens.documents import read_documents
from herdlm.tokens.mixture import Mixture, PretrainBatches
from herdlm.tokens.rows import Source
from herdlm.tokens.shards import ShardWriter
from herdlm.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, PAD, TokenizerConfig, train_tokenizer
from herdlm.train import NextToken, TrainConfig, train


def main(corpus: str = "corpus", out: str = "model", steps: str = "300") -> None:
    texts = [document.text for document in read_documents(Path(corpus) / "documents")]
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=1024))
    writer = ShardWriter(Path(out) / "tokens", vocab_size=tokenizer.vocab_size, tokenizer=tokenizer.content())
    begin, end = tokenizer.special(BEGIN_OF_TEXT), tokenizer.special(END_OF_TEXT)
    for text in texts:
        writer.add([begin, *tokenizer.encode(text), end], text_bytes=len(text.encode()))
    writer.close()
    shape = {"dim": 96, "layers": 3, "heads": 4, "kv_heads": 2, "ffn_dim": 256, "max_seq_len": 256}
    model = build(ModelConfig(vocab_size=tokenizer.vocab_size, **shape))
    initialize(model, seed=0)
    mixture = Mixture([Source("web", Path(out) / "tokens", share=1.0)], seq_len=128, seed=0, pad=tokenizer.special(PAD))
    batches = PretrainBatches([(mixture, int(steps))], rows_per_step=8)
    result = train(model, NextToken(), batches, TrainConfig(peak_lr=5e-3, warmup_steps=5, precision="float32"))
    save_folder(model, Path(out))
    tokenizer.save(Path(out))
    print(f"{model.config.parameters:,} parameters in {out}, loss {result.last_loss:.2f} nats per token")


if __name__ == "__main__":
    main(*sys.argv[1:])
