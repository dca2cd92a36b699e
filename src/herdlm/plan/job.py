"""What the parts of the planner share: a model's shape, a layout, and the job of training one in the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herdlm.base.errors import InputError
from herdlm.model.config import ModelConfig

Mlp = Literal["gated", "plain"]
Schedule = Literal["1f1b", "interleaved", "zero-bubble", "gpipe"]
Recompute = Literal["none", "selective", "full"]
Precision = Literal["bf16", "fp8"]
Offload = Literal["none", "activations", "optimizer"]
Sharding = Literal["fsdp", "zero2", "zero1", "ddp"]
COUNTS = ("6n", "causal", "full")


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a dense decoder-only Transformer.

    Attributes:
        mlp: "gated" has three matrices of [F, D] (SwiGLU), "plain" two (GPT-3).
        tied: embedding and head are one matrix.
        head_dim: C, the head size; 0 stands for hidden / heads.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    mlp: Mlp = "gated"
    tied: bool = False
    head_dim: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "ffn", "heads", "kv_heads", "vocab"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", "Give a number of 1 or more")
        if self.heads % self.kv_heads:
            raise InputError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}", "Change one of them")
        if not self.head_dim and self.hidden % self.heads:
            raise InputError(f"hidden {self.hidden} is not a multiple of heads {self.heads}", "Change one of them")

    @classmethod
    def of(cls, config: ModelConfig) -> Shape:
        """The shape of a model of this package."""
        return cls(
            config.layers,
            config.dim,
            config.ffn_dim,
            config.heads,
            config.kv_heads,
            config.vocab_size,
            tied=config.tied_embeddings,
            head_dim=config.head_size,
        )

    @property
    def head_size(self) -> int:
        """C, the size of one head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def queries(self) -> int:
        """Width of all queries, H * C."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all keys, K * C; values are as wide."""
        return self.kv_heads * self.head_size

    @property
    def mlp_matrices(self) -> int:
        """Matrices of [F, D] in a layer."""
        return 3 if self.mlp == "gated" else 2

    @property
    def attention_weights(self) -> int:
        """Weights of the four matrices of attention in a layer."""
        return self.hidden * 2 * (self.queries + self.keys)

    @property
    def mlp_weights(self) -> int:
        """Weights of the feed-forward matrices in a layer."""
        return self.mlp_matrices * self.hidden * self.ffn

    @property
    def layer_parameters(self) -> int:
        """Parameters of a layer: matrices and two norms (biases are left out)."""
        return self.attention_weights + self.mlp_weights + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, and as many of the head."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; a tied embedding and head count once."""
        ends = self.embedding_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + self.hidden + ends

    def flops_per_token(self, seq_len: int) -> dict[str, int]:
        """Training FLOPs of a token by the three counts in use; recomputation is never counted.

        ``6n`` is 6 per parameter, embedding included. ``causal`` is 6 per weight of a matrix (head included, embedding
        lookup not) and 6 * L * H * C * seq_len for the part of attention that a causal mask keeps; ``full`` takes twice
        that for attention (Llama 3 report, section 3.3).
        """
        matrices = 6 * (self.layers * (self.attention_weights + self.mlp_weights) + self.embedding_parameters)
        attention = 6 * self.layers * self.queries * seq_len
        return {"6n": 6 * self.parameters, "causal": matrices + attention, "full": matrices + 2 * attention}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model is spread over GPUs, and how they run a step. Sequence parallelism goes with ``tp``.

    Attributes:
        vpp: virtual pipeline stages on each rank; above 1 with schedule "interleaved".
        dp_shard, dp_replicate: HSDP; ``dp_replicate`` copies of ``dp_shard`` shards. State is sharded over
            dp_shard * cp.
        micro_batch: rows of a micro-batch on a data-parallel rank.
        sharding: what is sharded: "fsdp" weights, gradients and optimizer (as this package does), "zero2" the last two,
            "zero1" the optimizer's state alone (Megatron's distributed optimizer), "ddp" nothing.
        reshard_after_forward: gathered weights are freed between forward and backward; for "fsdp".
        async_tp: the traffic of tensor parallelism runs in pieces beside the matrix products that it belongs to.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    vpp: int = 1
    dp_shard: int = 1
    dp_replicate: int = 1
    micro_batch: int = 1
    schedule: Schedule = "1f1b"
    recompute: Recompute = "none"
    precision: Precision = "bf16"
    reshard_after_forward: bool = False
    offload: Offload = "none"
    sharding: Sharding = "fsdp"
    async_tp: bool = False

    def __post_init__(self) -> None:
        for name in ("tp", "cp", "pp", "vpp", "dp_shard", "dp_replicate", "micro_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", "Give a number of 1 or more")
        if self.vpp > 1 and self.schedule != "interleaved":
            raise InputError(f"schedule {self.schedule!r} has one stage per rank, not {self.vpp}", "Give interleaved")
        if self.vpp > 1 and self.pp == 1:
            raise InputError(f"vpp is {self.vpp} without pipeline parallelism", "Raise pp, or leave vpp at 1")

    @property
    def dp(self) -> int:
        """Data-parallel ranks, which read different rows."""
        return self.dp_shard * self.dp_replicate

    @property
    def sharded(self) -> int:
        """Ranks over which state is sharded."""
        return self.dp_shard * self.cp

    @property
    def gpus(self) -> int:
        """GPUs of the layout."""
        return self.tp * self.cp * self.pp * self.dp

    def __str__(self) -> str:
        names = ("tp", "cp", "pp", "vpp", "dp_replicate", "dp_shard", "micro_batch")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


@dataclass(frozen=True, slots=True)
class Job:
    """Training one shape in one layout.

    Attributes:
        gpu: a name of the hardware files, such as "h100".
        software: the training stack, as a name that the fitted constants know; None is this package's or unknown.
    """

    shape: Shape
    layout: Layout
    gpus: int
    gpu: str
    seq_len: int
    tokens_per_step: int
    software: str | None = None

    def __post_init__(self) -> None:
        layout, rows = self.layout, self.rows_per_step
        if layout.gpus != self.gpus:
            raise InputError(
                f"the layout ({layout}) has {layout.gpus} GPUs, not {self.gpus}", "Change one of its sizes"
            )
        if rows < 1 or rows * self.seq_len != self.tokens_per_step:
            raise InputError(
                f"tokens_per_step {self.tokens_per_step} is not a multiple of seq_len {self.seq_len}", "Change one"
            )
        if rows % (layout.dp * layout.micro_batch):
            raise InputError(
                f"{rows} rows per step are not a multiple of data parallel {layout.dp} x micro_batch "
                f"{layout.micro_batch}",
                "Change tokens_per_step, dp_shard, dp_replicate or micro_batch",
            )
        if self.shape.heads % layout.tp:
            raise InputError(f"heads {self.shape.heads} is not a multiple of tp {layout.tp}", "Change tp")
        stages = layout.pp * layout.vpp  # the first and the last may have the embedding or the head alone
        if self.shape.layers + (2 if layout.pp > 1 else 0) < stages:
            raise InputError(
                f"{self.shape.layers} layers are too few for {stages} pipeline stages (pp x vpp)", "Lower pp or vpp"
            )

    @property
    def rows_per_step(self) -> int:
        """Rows (sequences) of a step, over all GPUs."""
        return self.tokens_per_step // self.seq_len

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a data-parallel rank in a step."""
        return self.rows_per_step // (self.layout.dp * self.layout.micro_batch)
