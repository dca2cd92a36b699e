"""The output head over a sharded batch and vocabulary: the same numbers as of the whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from herdlm.model.distillation import Distillation, linear_distilled
from herdlm.model.losses import linear_logprobs, sums_by_document
from herdlm.parallel.batches import BatchShard
from herdlm.parallel.collectives import autograd_all_reduce, first_rank_gradient
from herdlm.parallel.linear import local
from herdlm.parallel.mesh import Mesh
from herdlm.parallel.sharding import run_of
from herdlm.parallel.stage import Stage
from herdlm.parallel.vocabulary import most_likely, vocabulary_distilled, vocabulary_logprobs


@dataclass(frozen=True, slots=True)
class ShardedOutputHead:
    """The output head of the last stage on this process's shard of a micro-batch; see ``train.objectives.OutputHead``.

    Document sums cover the rows of all processes; pairs, the columns of ``shard.batch``, are this process's share.
    """

    stage: Stage
    shard: BatchShard
    mesh: Mesh

    def target_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each target, [N]."""
        weight = local(self.stage.lm_head.weight)
        if self.mesh.sizes.tp == 1:
            return linear_logprobs(hidden, weight, targets)
        return vocabulary_logprobs(hidden, weight, targets, self._first_entry, self.mesh.tp.get_group())

    def most_likely(self, hidden: Tensor) -> Tensor:
        """The most likely next token after each hidden state, [N]."""
        group = self.mesh.tp.get_group() if self.mesh.sizes.tp > 1 else None
        return most_likely(hidden, local(self.stage.lm_head.weight), self._first_entry, group)

    def distilled(
        self, hidden: Tensor, targets: Tensor, ids: Tensor, logprobs: Tensor, loss: Distillation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Minus ``loss``, the target's log-probability and the divergence from a teacher at each target, [N] each."""
        weight = local(self.stage.lm_head.weight)
        if self.mesh.sizes.tp == 1:
            return linear_distilled(hidden, weight, targets, ids, logprobs, loss=loss)
        return vocabulary_distilled(
            hidden, weight, targets, ids, logprobs, loss=loss, start=self._first_entry, group=self.mesh.tp.get_group()
        )

    def scores_at(self, hidden: Tensor, ends: str) -> Tensor:
        """Scores at the ends of this process's pairs, whichever process holds them: [pairs / n]."""
        at = self.shard.ends[ends]
        read = hidden[at.clamp(min=0)]
        if self.mesh.sizes.tp > 1:
            read = first_rank_gradient(read, self.mesh.tp_rank)
        scores = autograd_all_reduce(self.scores(read).masked_fill(at < 0, 0.0), self.mesh.batch)
        return scores[self.mesh.batch_rank :: self.mesh.batch.size()]

    def scores(self, hidden: Tensor) -> Tensor:
        """A reward model's score [N] at each hidden state [N, D] of this process."""
        return (hidden @ local(self.stage.score.weight).mT.to(hidden.dtype)).squeeze(-1)

    def sums_by_document(self, values: Tensor, documents: Tensor) -> Tensor:
        """``values`` [N] of this process's tokens, summed by document over all processes, [documents]."""
        return autograd_all_reduce(sums_by_document(values, documents, self.shard.document_count), self.mesh.batch)

    @property
    def _first_entry(self) -> int:
        return run_of(self.stage.config.vocab_size, self.mesh.sizes.tp, self.mesh.tp_rank).start
