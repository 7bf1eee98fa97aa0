"""The photograph that the viewer's tests look at, and its detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skimage.data


@pytest.fixture(scope="package")
def coffee() -> Any:
    return np.ascontiguousarray(skimage.data.coffee()[60:300, 150:470, ::-1])
