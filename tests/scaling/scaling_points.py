"""Ladders with a known truth, written by closed forms that do not use the code under test."""

import numpy as np

BESIROGLU = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
"""Besiroglu et al. (2024), table 1: their fit of the points of Chinchilla's figure 4."""
ERRORS = {"E": 0.03, "A": 124.58, "B": 1293.23, "alpha": 0.02, "beta": 0.02}
BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)


def loss(law, params, tokens):
    return law["E"] + law["A"] / params ** law["alpha"] + law["B"] / tokens ** law["beta"]


def best_tokens(law, flops):
    """Optimal tokens, from a fine search over sizes."""
    params = np.exp(np.linspace(np.log(1e5), np.log(1e14), 400_001))
    tokens = flops / 6 / params
    return float(tokens[np.argmin(loss(law, params, tokens))])


def isoflop_rows(law=BESIROGLU, budgets=BUDGETS, sizes=9, noise=0.0, spread=1.2, shift=0.0, seed=0):
    """(params, tokens, flops, loss) of sizes around each budget's optimum, shifted by ``shift`` in ln(params)."""
    rng = np.random.default_rng(seed)
    rows = []
    for flops in budgets:
        best = flops / 6 / best_tokens(law, flops)
        for step in np.linspace(-spread, spread, sizes):
            params = best * np.exp(step + shift)
            tokens = flops / 6 / params
            rows.append((params, tokens, flops, loss(law, params, tokens) * np.exp(noise * rng.normal())))
    return rows


def parabola_rows(coefficient, exponent, budgets=BUDGETS, sizes=7, noise=0.0, seed=0):
    """Losses that are exact parabolas in ln(tokens) around coefficient x C^exponent."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, flops in enumerate(budgets):
        center = np.log(coefficient * flops**exponent)
        for step in np.linspace(-1.2, 1.0, sizes):
            value = 0.9 - 0.02 * number + 0.016 * step**2 + noise * rng.normal()
            rows.append((flops / 6 / np.exp(center + step), np.exp(center + step), flops, value))
    return rows


def write(path, rows, header="params,tokens,flops,loss", columns=(0, 1, 2, 3)):
    lines = [",".join(repr(float(row[c])) for c in columns) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path
