# SPDX-License-Identifier: Apache-2.0
"""The block transform: what training computes, and the same bits by every implementation."""

from __future__ import annotations

import numpy as np
import pytest

from roi_codec_ros.codec import load_model, transform_reference, untrained_model
from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.entropy import FIRST_CLASS, HIDDEN, SKIPPED
from roi_codec_ros.codec.kernels import BLOCK_TRANSFORM, KERNELS
from roi_codec_ros.codec.ladder import ROUND_UP_FROM, frequencies, ladder_steps
from roi_codec_ros.codec.rans import RansCoder

needs_kernel = pytest.mark.skipif(
    BLOCK_TRANSFORM not in KERNELS, reason="the C++ kernel is not built"
)
LEVELS = np.array([23, 18, 10, 0], np.uint8)  # 8, 16, 104 and 128 channels of `fast`


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def some_blocks(height: int, width: int) -> np.ndarray:
    """Some of every kind."""
    size = -(-height // 16), -(-width // 16)
    return np.random.default_rng(1).integers(SKIPPED, FIRST_CLASS + 4, size, np.uint8)


@pytest.mark.parametrize("preset", ["fast", "nano"])
def test_cameras_compute_what_training_does(preset):
    torch = pytest.importorskip("torch")
    from roi_codec_ros.codec.networks import BlockAnalysis

    image = pytest.importorskip("skimage.data").astronaut()
    model = untrained_model(preset)
    channels = model.preset.latent_channels
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 255
    with torch.inference_mode():
        wanted = BlockAnalysis(channels).double()(x)[0].numpy()
    wanted /= ladder_steps(channels, 16)[0][:, None, None]

    blocks = np.full((32, 32), FIRST_CLASS, np.uint8)
    transform = BlockTransform(model)
    values = transform.values(image, blocks, np.zeros(4, np.uint8))
    symbols = transform.symbols(image, blocks, np.zeros(4, np.uint8))

    np.testing.assert_allclose(values, wanted, atol=1e-3)
    rounded = np.trunc(wanted + np.copysign(1 - ROUND_UP_FROM, wanted))
    clear = np.abs(np.abs(wanted) % 1 - ROUND_UP_FROM) > 1e-3
    np.testing.assert_array_equal(symbols[clear], rounded[clear])
    assert clear.mean() > 0.99 and np.abs(symbols - rounded).max() <= 1


@needs_kernel
@pytest.mark.parametrize("size", [(512, 512), (245, 333), (16, 16), (1, 1), (33, 5)])
def test_all_implementations_give_the_same_bits(size):
    image, blocks = noise(*size), some_blocks(*size)
    model = load_model("fast")
    reference = BlockTransform(model, "numpy")
    values, symbols = (of(image, blocks, LEVELS) for of in (reference.values, reference.symbols))

    for instructions in KERNELS[BLOCK_TRANSFORM].instructions():
        kernel = BlockTransform(model, "c++", instructions)
        found = kernel.values(image, blocks, LEVELS)
        np.testing.assert_array_equal(found.view(np.int32), values.view(np.int32), instructions)
        np.testing.assert_array_equal(kernel.symbols(image, blocks, LEVELS), symbols, instructions)
    assert (values[:, blocks < FIRST_CLASS] == 0).all()


@needs_kernel
@pytest.mark.parametrize("factor", [1e3, -1e3])
def test_symbols_end_where_their_bits_do(factor):
    data = transform_data()
    data[2] *= np.float32(factor)
    image, blocks = np.full((16, 32, 3), 255, np.uint8), np.full((1, 2), FIRST_CLASS, np.uint8)

    for module in (KERNELS[BLOCK_TRANSFORM], transform_reference):
        symbols = module.Transform(*data).symbols(image, blocks, np.zeros(1, np.uint8))
        assert symbols[0, 0, 0] == (32767 if factor > 0 else -32768)


def test_pixels_of_hidden_blocks_are_not_read():
    image, blocks = noise(64, 64), np.full((4, 4), FIRST_CLASS + 3, np.uint8)
    blocks[1:3, 1:3] = HIDDEN
    other = image.copy()
    other[16:48, 16:48] = noise(32, 32, seed=5)
    transform = BlockTransform(load_model("fast"))

    first, second = (transform.symbols(frame, blocks, LEVELS) for frame in (image, other))

    np.testing.assert_array_equal(first, second)


def test_symbols_are_coded_alike_however_they_lie_in_memory():
    model = load_model("fast")
    image, blocks = noise(80, 112), some_blocks(80, 112)
    coder = RansCoder(model.tables)
    symbols = BlockTransform(model).symbols(image, blocks, LEVELS)
    planes = np.ascontiguousarray(symbols)
    assert symbols.strides != planes.strides

    for layout in (planes, np.asfortranarray(symbols), np.repeat(planes, 2, axis=2)[..., ::2]):
        assert coder.encode(layout, blocks, LEVELS) == coder.encode(symbols, blocks, LEVELS)


def transform_data() -> list[np.ndarray]:
    """Of one level of 8 channels."""
    waves = np.eye(16, dtype=np.float32)
    chosen = np.array(frequencies(8, 16), np.int32)
    return [waves, chosen, np.ones((1, 8), np.float32), np.array([8], np.int32)]


@needs_kernel
def test_the_kernel_trusts_no_data():
    make = KERNELS[BLOCK_TRANSFORM].Transform
    good = transform_data()
    make(*good)
    for place, bad in (
        (0, good[0][:, :8].copy()),
        (1, good[1] + np.int32(16)),
        (1, good[1] - np.int32(1)),
        (2, good[2][:, :7].copy()),
        (3, good[3] + np.int32(1)),
        (3, good[3] - np.int32(9)),
    ):
        with pytest.raises(ValueError, match="expected"):
            make(*good[:place], bad, *good[place + 1 :])
    with pytest.raises(ValueError, match=r"expected instructions .* found punched cards"):
        make(*good, "punched cards")


@needs_kernel
def test_the_kernel_trusts_no_arrays():
    transform = KERNELS[BLOCK_TRANSFORM].Transform(*transform_data())
    good = [noise(20, 40), np.full((2, 3), FIRST_CLASS, np.uint8), np.zeros(1, np.uint8)]
    transform.symbols(*good)
    for place, bad in (
        (0, good[0][:, :, :2].copy()),
        (0, good[0][:0]),
        (0, noise(40, 40)),
        (1, np.full((2, 4), FIRST_CLASS, np.uint8)),
        (1, good[1] + np.uint8(1)),
        (2, good[2] + np.uint8(1)),
        (2, good[2][:0]),
        (2, np.zeros((1, 1), np.uint8)),
    ):
        with pytest.raises(ValueError, match="expected"):
            transform.values(*good[:place], bad, *good[place + 1 :])


def test_the_reference_stands_in_for_a_missing_kernel(monkeypatch):
    monkeypatch.delitem(KERNELS, BLOCK_TRANSFORM, raising=False)

    assert BlockTransform(load_model("fast")).implementation == "numpy"
