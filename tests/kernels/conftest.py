from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def quiet_arithmetic() -> Iterator[None]:
    """Let NaN and infinity pass, as they do on a GPU: Triton's interpreter computes with NumPy."""
    with np.errstate(all="ignore"):
        yield
