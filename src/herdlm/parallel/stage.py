"""A pipeline stage: consecutive layers of a Transformer, under their names in the whole model."""

from __future__ import annotations

from torch import Tensor, nn

from herdlm.model.attention import Attend
from herdlm.model.rope import inverse_frequencies
from herdlm.model.transformer import Transformer, rotation


class Stage(Transformer):
    """The layers of a stage, with the embedding on the first and norm and head on the last.

    It shares the parameters of the model it is made from, under the same names.
    """

    def __init__(self, model: Transformer, layers: range, *, number: int, stages: int) -> None:
        nn.Module.__init__(self)
        self.config, self.number = model.config, number
        self.is_first, self.is_last = number == 0, number == stages - 1
        body = nn.Module()
        if self.is_first:
            body.embed_tokens = model.model.embed_tokens
        body.layers = nn.ModuleDict({str(i): model.model.layers[i] for i in layers})
        self.model = body  # type: ignore[assignment]
        if self.is_last:
            body.norm = model.model.norm
            name = "score" if model.config.head == "score" else "lm_head"
            setattr(self, name, getattr(model, name))
        self.register_buffer("frequencies", inverse_frequencies(model.config).to(model.frequencies.device), False)
        self.rotation_scale = model.rotation_scale

    def forward(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """From tokens [B, T] or the previous stage's output to this stage's output, or to hidden states on the last."""
        cosine, sine = rotation(positions, self.frequencies, self.rotation_scale)
        if self.is_first:
            x = self.model.embed_tokens(x)
        for layer in self.model.layers.children():
            x = layer(x, cosine, sine, attend)
        if self.is_last:
            x = self.model.norm(x)
        return x
