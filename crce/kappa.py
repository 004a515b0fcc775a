"""Cohen's κ: how far two agree beyond chance."""

import numpy as np


def kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's κ (1960), (p_o − p_e) / (1 − p_e), of tables [n, k, k]: how often one gave the row's answer where the
    other gave the column's. NaN for an empty table, and where p_e is 1: chance explains all."""
    with np.errstate(invalid="ignore"):
        shares = tables / tables.sum(axis=(1, 2), keepdims=True)
        observed = np.trace(shares, axis1=1, axis2=2)
        expected = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
