"""Quantize a model to FP8 and compare it with the original: divergence, perplexity, size.

python examples/compare.py [MODEL] [TEXT] [OUT]
"""

import sys
from pathlib import Path

from herdlm.compare.compare import compare, lines
from herdlm.compare.data import ComparisonData
from herdlm.generate.fp8.config import Fp8Config
from herdlm.generate.fp8.quantize import quantize
from herdlm.model.folders import model_folder


def main(model: str = "runs/tiny", text: str = "README.md", out: str = "comparison") -> None:
    original, changed = model_folder(Path(model)), Path(f"{out}-fp8")
    counts = quantize(original, changed, Fp8Config(skip_first_layers=0, skip_last_layers=0))
    print(f"{counts['share_fp8']:.0%} of the parameters are in FP8: {changed}")
    result = compare(original, changed, Path(out), ComparisonData(text=Path(text)), seq_len=128, rows=64)
    print("\n".join(lines(result)))
    print(f"the report: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
