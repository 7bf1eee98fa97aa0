"""Descriptors as bytes, bits and principal components."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cv_superpoint import FeatureError
from cv_superpoint.decoding.descriptors import (
    KINDS,
    NOT_FITTED,
    Compaction,
    DescriptorFormat,
    Encoder,
    from_bytes,
    steps,
    to_bytes,
)

DIM, BITS = 12, 32
RNG = np.random.default_rng(4)
ROTATION = np.linalg.qr(RNG.normal(size=(DIM, DIM)))[0].astype(np.float32)
PLANES = RNG.normal(size=(BITS, DIM)).astype(np.float32)
COMPACTION = Compaction(
    mean=np.full(DIM, 0.05, np.float32),
    components=ROTATION,
    planes=PLANES,
    offsets=PLANES.sum(axis=1) * np.float32(0.05),
    digest="c0ffee",
)


def unit_rows(most=300, dim=DIM):
    numbers = arrays.arrays(
        np.float64, st.tuples(st.integers(0, most), st.just(dim)), elements=st.floats(-1, 1)
    )
    return numbers.map(lambda rows: as_unit(rows + np.r_[1.5, np.zeros(dim - 1)]))


def as_unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def formats():
    numbers = st.builds(
        DescriptorFormat,
        kind=st.sampled_from(["float32", "uint8"]),
        dim=st.none() | st.integers(1, DIM),
    )
    bits = st.builds(
        DescriptorFormat, kind=st.just("binary"), dim=st.sampled_from(range(8, BITS + 1, 8))
    )
    return numbers | bits


@given(unit_rows(), formats())
def test_a_row_does_not_depend_on_the_rows_beside_it(rows, descriptors):
    encoder = Encoder.of(descriptors, DIM, COMPACTION)
    found = encoder(rows)
    assert found.shape == (len(rows), encoder.size)
    assert found.dtype == (np.float32 if descriptors.kind == "float32" else np.uint8)
    apart = [encoder(rows[index : index + 1])[0] for index in range(min(len(rows), 20))]
    # The last digit of a float may differ, and with it the rounding of a byte; no bit does.
    slack = {"float32": 1e-6, "uint8": 1, "binary": 0}[descriptors.kind]
    for one, beside in zip(apart, found, strict=False):
        assert np.abs(one.astype(float) - beside).max() <= slack


@given(unit_rows(), st.integers(1, DIM))
def test_fewer_numbers_are_the_first_components_of_unit_length(rows, dim):
    found = Encoder.of(DescriptorFormat(dim=dim), DIM, COMPACTION)(rows)
    if dim == DIM:
        assert np.array_equal(found, rows)
        return
    expected = (rows - COMPACTION.mean).astype(np.float64) @ ROTATION[:dim].T.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    clear = lengths[:, 0] > 1e-3  # what is nearly nothing points anywhere
    assert np.allclose(found[clear], (expected / lengths)[clear], atol=1e-4)


@given(unit_rows(), st.sampled_from(range(8, BITS + 1, 8)))
def test_bits_are_the_sides_of_planes(rows, count):
    found = Encoder.of(DescriptorFormat(kind="binary", dim=count), DIM, COMPACTION)(rows)
    heights = rows.astype(np.float64) @ PLANES[:count].T - COMPACTION.offsets[:count]
    bits = np.unpackbits(found, axis=1).astype(bool)
    clear = np.abs(heights) > 1e-5
    assert np.array_equal(bits[clear], (heights > 0)[clear])


@given(unit_rows(dim=64))
def test_bytes_keep_cosines_and_distances(rows):
    found = to_bytes(rows)
    again = from_bytes(found)
    whole = np.abs(rows).max(axis=1, initial=0) < 127 / steps(64)  # none of its numbers is clipped
    assert np.allclose(np.linalg.norm(again[whole], axis=1), 1, atol=1e-5)
    cosines = (rows[whole] * again[whole]).sum(axis=1)
    # 64 numbers are off by 0.5 / 200 at most.
    assert np.all(cosines > 1 - 64 * (0.5 / steps(64)) ** 2)


def test_bytes_of_nothing_and_of_what_is_clipped():
    assert np.all(to_bytes(np.zeros((2, 256), np.float32)) == 128)
    one = np.eye(256, dtype=np.float32)[:2]
    assert to_bytes(one).max() == 255
    assert to_bytes(-one).min() == 0
    assert np.allclose(from_bytes(to_bytes(one)), one)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "float16"}, "must be one of float32, uint8, binary"),
        ({"dim": 0}, "descriptor_dim"),
        ({"dim": True}, "descriptor_dim"),
        ({"kind": "binary", "dim": 100}, "multiple of 8"),
    ],
)
def test_what_is_no_format_is_refused(options, said):
    with pytest.raises(FeatureError, match=said):
        DescriptorFormat(**options)


def test_what_the_weights_do_not_give_is_refused():
    with pytest.raises(FeatureError, match="at most 12"):
        Encoder.of(DescriptorFormat(dim=13), DIM, COMPACTION)
    with pytest.raises(FeatureError, match="at most 32"):
        Encoder.of(DescriptorFormat(kind="binary"), DIM, COMPACTION)
    for descriptors in (DescriptorFormat(dim=5), DescriptorFormat(kind="binary", dim=16)):
        with pytest.raises(FeatureError, match="python -m train compact"):
            Encoder.of(descriptors, DIM, NOT_FITTED)
    for kind in KINDS[:2]:  # with all numbers they need nothing
        assert Encoder.of(DescriptorFormat(kind=kind, dim=DIM), DIM, NOT_FITTED).numbers == DIM
