# SPDX-License-Identifier: Apache-2.0
"""Frames to payloads and back, for every preset; model files that are read and refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from roi_codec_ros.codec import (
    FIRST_CLASS,
    HIDDEN,
    PRESETS,
    SKIPPED,
    BitstreamError,
    Decoder,
    Encoder,
    EntropyTables,
    Model,
    ModelFileError,
    Payload,
    RansCoder,
    RoiCodecError,
    find_model,
    load_model,
    untrained_model,
)
from roi_codec_ros.codec.eight_bits import in_eight_bits
from roi_codec_ros.codec.entropy import TABLES
from roi_codec_ros.codec.frequencies import neighbourly_map_cdf
from roi_codec_ros.codec.measured_entry import METADATA_KEY
from roi_codec_ros.common.devices import batch_limit

SIZES = [(1, 1), (7, 5), (513, 511), (1080, 1920)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module", params=list(PRESETS))
def model(request: pytest.FixtureRequest) -> Model:
    """Of each preset; one that codes every frame at one size does so at a small one."""
    model = untrained_model(request.param)
    if model.preset.coded_size is None:
        return model
    preset = dataclasses.replace(model.preset, coded_size=(128, 64))
    return Model.build(model.name, preset, model.tensors, model.tables, {})


def test_the_papers_presets_code_at_its_size() -> None:
    sizes = {name: preset.coded_size for name, preset in PRESETS.items()}
    assert {size for name, size in sizes.items() if name.startswith("paper")} == {(512, 512)}
    assert sizes["fast"] is sizes["nano"] is None


@pytest.mark.parametrize("size", SIZES)
def test_every_preset_codes_every_size(model: Model, size: tuple[int, int]) -> None:
    image = noise(*size)
    encoder = Encoder(model)

    frame = encoder.encode(image)
    decoded = Decoder(model).decode(frame.data)

    coded = model.preset.coded_size or size
    assert frame.original_size == decoded.original_size == size
    assert frame.coded_size == decoded.coded_size == coded
    assert decoded.image.shape == (*coded, 3)
    assert decoded.image.dtype == np.uint8
    assert frame.bits_per_pixel == 8 * len(frame.data) / (coded[0] * coded[1])


def test_the_latent_arrives_unchanged(model: Model) -> None:
    import cv2

    encoder = Encoder(model)
    image = noise(100, 75)
    frame = encoder.encode(image)
    payload = Payload.from_bytes(frame.data)
    coded = (payload.coded_width, payload.coded_height)
    sent = encoder.symbols(cv2.resize(image, coded, interpolation=cv2.INTER_LINEAR))

    received, blocks, _ = RansCoder(model.tables).decode(
        payload.block_map, payload.body, *sent.shape[1:], payload.levels
    )

    np.testing.assert_array_equal(received, sent)
    np.testing.assert_array_equal(blocks, frame.blocks)
    assert payload.levels == frame.levels
    assert model.codes_blocks or (blocks == FIRST_CLASS).all()


def test_a_hidden_block_says_nothing_of_its_pixels_and_none_is_skipped_alone() -> None:
    model = untrained_model("nano")
    encoder, decoder, coder = Encoder(model), Decoder(model), RansCoder(model.tables)
    image = noise(64, 96)
    frame = encoder.encode(image)
    assert frame.blocks.shape == (4, 6)
    blocks = np.full_like(frame.blocks, FIRST_CLASS)
    blocks[1, 2:4] = HIDDEN

    planned = encoder.encode_planned(image, blocks, frame.levels)
    decoded = decoder.decode(planned.data)

    np.testing.assert_array_equal(decoded.blocks, blocks)
    assert decoded.levels == frame.levels
    other = image.copy()
    other[16:32, 32:64] = 255 - other[16:32, 32:64]
    assert encoder.encode_planned(other, blocks, frame.levels).data == planned.data
    skipped = np.where(blocks == HIDDEN, SKIPPED, blocks).astype(np.uint8)
    block_map, body = coder.encode(encoder.symbols(image), skipped, frame.levels)
    alone = Payload(model.id, 64, 96, 64, 96, body, block_map, frame.levels)
    with pytest.raises(BitstreamError, match="decodes alone; found 2 of 24 blocks skipped"):
        decoder.decode(alone.to_bytes())


def test_levels_that_a_model_does_not_have_are_refused() -> None:
    model = untrained_model("nano")
    payload = Payload.from_bytes(Encoder(model).encode(noise(32, 32)).data)
    for levels in ((1,), (0, 0), (0, 0, 0, 24)):
        data = dataclasses.replace(payload, levels=levels).to_bytes()
        with pytest.raises(
            BitstreamError, match=r"a level of 0 to 23 for each of 4 classes, found \["
        ):
            Decoder(model).decode(data)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("frequencies", None, "expected .* to hold tensor entropy.frequencies, found none"),
        ("ladder", None, "expected .* to hold tensor entropy.ladder, found none"),
        ("ladder", np.zeros((1, 1), np.int32), "expected a ladder of steps"),
        ("frequencies", np.zeros(3, np.uint16), r"found uint16 \[3\] of \[128\] rows"),
        ("lengths", np.full(128, 2**31 - 1, np.int32), r"of \[128\] rows"),
        ("lengths", np.zeros(128, np.int32), r"of \[128\] rows"),
        ("lengths", np.zeros((2, 2), np.int32), r"of \[2, 2\] rows"),
        ("lengths", np.zeros(128, np.float32), r"of \[128\] rows"),
    ],
)
def test_damaged_tables_of_a_model_file_are_refused(name, value, found) -> None:
    model = untrained_model("paper-128-2")
    tensors = safetensors.numpy.load(model.content)
    metadata = {METADATA_KEY: json.dumps(model.header)}
    read = Model.from_bytes(safetensors.numpy.save(tensors, metadata=metadata))
    for table in TABLES:
        np.testing.assert_array_equal(getattr(read.tables, table), getattr(model.tables, table))
    forged = {key: array for key, array in tensors.items() if key != f"entropy.{name}"}
    if value is not None:
        forged[f"entropy.{name}"] = value
    with pytest.raises(ModelFileError, match=found):
        Model.from_bytes(safetensors.numpy.save(forged, metadata=metadata))


def test_levels_and_maps_of_a_model_are_in_its_file_and_in_its_graph() -> None:
    model = untrained_model("nano")
    channels = model.tables.channels
    rows = channels + 3 + 8  # two contexts more of each of two predicted channels at two levels
    tables = EntropyTables.from_pmfs(
        [[1.0]] * rows,
        [0.1] * rows,
        [0] * rows,
        (),
        (3, channels),
        np.array([[256, 300], [300, 500]]),
        np.array([(0, 1, 0, 1024), (1, 2, 1, 1000)]),
        neighbourly_map_cdf(3),
    )
    stepped = Model.build("stepped", model.preset, model.tensors, tables, {})
    for read in (Model.from_bytes(stepped.content), Model.from_text(stepped.to_text())):
        assert (read.tables.levels, read.tables.classes) == (2, 3)
        for name in TABLES:
            np.testing.assert_array_equal(getattr(read.tables, name), getattr(tables, name))


def test_wide_frames_are_scaled_down_and_keep_their_aspect() -> None:
    frame = Encoder(untrained_model("nano")).encode(noise(720, 1280), max_width=640)
    assert frame.original_size == (720, 1280)
    assert frame.coded_size == (360, 640)


def test_a_payload_of_another_model_is_refused_with_both_names() -> None:
    sender, receiver = untrained_model("nano", seed=1), untrained_model("nano", seed=2)
    data = Encoder(sender).encode(noise(32, 32)).data
    with pytest.raises(BitstreamError) as caught:
        Decoder(receiver).decode(data)
    assert sender.id.hex() in str(caught.value)
    assert f"untrained-nano ({receiver.id.hex()})" in str(caught.value)


def test_one_decoder_serves_several_models() -> None:
    models = [untrained_model("nano", seed=1), untrained_model("fast", seed=2)]
    decoder = Decoder(models)
    for model in models:
        assert decoder.decode(Encoder(model).encode(noise(40, 40)).data).model is model


def test_a_payload_cannot_claim_more_pixels_than_allowed() -> None:
    model = untrained_model("nano")
    data = Encoder(model).encode(noise(64, 64)).data
    with pytest.raises(BitstreamError, match="4095"):
        Decoder(model, max_pixels=64 * 64 - 1).decode(data)


# ------------------------------------------------------------------------------------ batches


def photographs() -> list[np.ndarray]:
    """Three of one size and one of another."""
    data = pytest.importorskip("skimage.data", reason="its photographs are the test's frames")
    astronaut, coffee = data.astronaut(), data.coffee()
    return [astronaut, astronaut[:, ::-1].copy(), coffee[:, :512], astronaut[::-1].copy()]


def test_frames_of_a_batch_are_those_of_each_payload_alone() -> None:
    trained = Path(__file__).resolve().parents[1] / "models" / "fast.safetensors"
    model = load_model(trained) if trained.is_file() else untrained_model("fast")
    encoder, decoder = Encoder(model), Decoder(model)
    payloads = [encoder.encode(image).data for image in photographs()]

    together = decoder.decode_batch(payloads)

    assert [frame.coded_size for frame in together] == [p.shape[:2] for p in photographs()]
    for frame, payload in zip(together, payloads, strict=True):
        apart = np.abs(frame.image.astype(int) - decoder.decode(payload).image)
        # Sums in another order: a value near a half may round to the other side.
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3


def test_what_is_wrong_with_one_payload_is_said_of_it_alone() -> None:
    ours, foreign = untrained_model("nano", seed=1), untrained_model("nano", seed=2)
    good = [Encoder(ours).encode(noise(48, 64)).data for _ in range(2)]
    stranger = Encoder(foreign).encode(noise(48, 64)).data
    hollow = dataclasses.replace(Payload.from_bytes(good[0]), body=b"\xff" * 40).to_bytes()
    bad = [b"", good[0][:-1], stranger, hollow]
    decoder = Decoder(ours)

    outcomes = decoder.decode_batch([good[0], *bad, good[1]])

    first, *refused, last = outcomes
    for data, outcome in zip(bad, refused, strict=True):
        with pytest.raises(BitstreamError) as caught:
            decoder.decode(data)
        assert isinstance(outcome, BitstreamError)
        assert str(outcome) == str(caught.value)
    for frame in (first, last):
        assert not isinstance(frame, BitstreamError)
        np.testing.assert_array_equal(frame.image, decoder.decode(good[0]).image)
    assert decoder.decode_batch([]) == []


def test_a_batch_takes_no_more_pixels_than_a_frame_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it mix models and sizes: what goes through the network at once is counted."""
    models = [untrained_model("nano", seed=1), untrained_model("nano", seed=2)]
    sizes = [(32, 32)] * 5 + [(32, 48)]
    payloads = [Encoder(models[0]).encode(noise(*size)).data for size in sizes]
    payloads.append(Encoder(models[1]).encode(noise(32, 32)).data)
    decoder = Decoder(models, max_pixels=2 * 32 * 32)
    batches: list[tuple[int, bytes, int]] = []
    synthesise = decoder._synthesise

    def counted(latents):  # type: ignore[no-untyped-def]
        payload = latents[0].payload
        batches.append((len(latents), payload.model_id, payload.coded_width))
        return synthesise(latents)

    monkeypatch.setattr(decoder, "_synthesise", counted)

    assert len(decoder.decode_batch(payloads)) == len(payloads)
    first, second = (model.id for model in models)
    of_one_kind = [(2, first, 32), (2, first, 32), (1, first, 32)]
    assert batches == [*of_one_kind, (1, first, 48), (1, second, 32)]


@pytest.mark.parametrize(
    ("most", "device", "limit"),
    [(0, "cpu", 1), (0, "cuda", 8), (0, "cuda:1", 8), (3, "cpu", 3), (3, "cuda", 3)],
)
def test_a_batch_is_as_large_as_told_or_as_suits_the_device(
    most: int, device: str, limit: int
) -> None:
    assert batch_limit(most, device) == limit


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_one_clear_error(image: np.ndarray) -> None:
    with pytest.raises(RoiCodecError, match=r"expected a uint8 image \[H, W, 3\].*; found"):
        Encoder(untrained_model("nano")).encode(image)


# ------------------------------------------------------------------------------------ model files


def test_a_model_file_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = untrained_model("nano")
    model.save(path)
    loaded = load_model(path)
    assert loaded.identity == model.identity
    assert loaded.preset == model.preset
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor)


def test_the_identity_covers_what_decoding_needs() -> None:
    model = untrained_model("nano")
    weights = {**model.tensors, "latent_mean": model.tensors["latent_mean"] + 0.5}
    sizes = dataclasses.replace(model.preset, stride=8)
    tables = dataclasses.replace(model.tables, offsets=model.tables.offsets + 1)
    others = [
        Model.build(model.name, model.preset, weights, model.tables, model.header),
        Model.build(model.name, sizes, model.tensors, model.tables, model.header),
        Model.build(model.name, model.preset, model.tensors, tables, model.header),
    ]
    assert len({model.identity, *(other.identity for other in others)}) == 4


def test_the_identity_covers_no_more_than_that() -> None:
    model = untrained_model("nano")
    carded = model.with_card(figures={"bpp": 0.1}, date="another day", name="another name")
    measured = carded.with_measured(figures={"bpp": 0.2})
    assert carded.content != model.content
    assert carded.identity == measured.identity == model.identity
    assert measured.header["figures"] == {"bpp": 0.2}
    image = noise(32, 32)
    assert Decoder(measured).decode(Encoder(model).encode(image).data).image.shape == image.shape


def test_measurements_change_neither_identity_nor_anything_else_of_a_file() -> None:
    shipped = load_model(find_model("paper-128-2"))
    strange = {"faces": 3, "original_faces": 4, "detector": '"\\ é", "roi_codec":"{}'}
    measured = shipped.with_measured(figures=strange)
    again = Model.from_bytes(measured.content).with_measured(figures={"faces": 1})
    assert shipped.identity == measured.identity == again.identity
    assert measured.figures == strange
    assert measured.content != shipped.content
    # Everything but what was measured is as it was, to the byte.
    assert measured.with_measured(figures=strange).content == measured.content
    other = bytearray(measured.content)
    other[len(other) // 2] ^= 1  # of a weight
    assert Model.from_bytes(bytes(other)).identity != shipped.identity


@pytest.mark.parametrize("measured", ['"roi_codec_measured":"[]"', '"roi_codec_measured":"no"'])
def test_what_was_measured_is_an_object(measured: str) -> None:
    content = untrained_model("nano").with_measured(figures={}).content
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(
        b'"roi_codec_measured":"{\\"figures\\": {}}"', measured.encode()
    )
    forged = len(header).to_bytes(8, "little") + header + content[8 + length :]
    with pytest.raises(ModelFileError):
        Model.from_bytes(forged)


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"PK\x03\x04 no pickle"])
def test_what_is_no_model_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ModelFileError, match=r"expected .*broken\.safetensors to be a safetensors"
    ):
        load_model(path)


def test_sizes_that_do_not_fit_the_weights_are_refused_without_allocating_them() -> None:
    model = untrained_model("nano")
    options = {**model.preset.options, "coarse_width": 4096, "coarse_blocks": 64}
    forged = Model.build(
        "forged",
        dataclasses.replace(model.preset, options=options),
        model.tensors,
        model.tables,
        {},
    )
    with pytest.raises(ModelFileError, match="expected weights of preset nano in model forged"):
        Decoder(forged)


def test_kernels_of_eight_bits_make_the_same_picture_of_half_their_bytes() -> None:
    model = load_model(find_model("fast"))
    small = Model.build(
        "small", model.preset, in_eight_bits(model.tensors), model.tables, model.header
    )
    whole, eight = model.weights("synthesis"), small.weights("synthesis")
    assert whole.keys() == eight.keys()
    for key, value in eight.items():
        rows = np.abs(whole[key].reshape(len(value), -1).astype(np.float32))
        error = np.abs(value.reshape(rows.shape) - whole[key].reshape(rows.shape))
        assert (error <= rows.max(axis=1, keepdims=True) / 254 + 1e-6).all(), key
    weights = sum(v.nbytes for k, v in model.tensors.items() if k.startswith("synthesis."))
    assert len(model.content) - len(small.content) > 0.4 * weights
    photograph = pytest.importorskip("skimage.data").astronaut()
    pictures = [
        Decoder(m).decode(Encoder(m).encode(photograph).data).image.astype(float)
        for m in (model, small)
    ]
    assert np.square(pictures[0] - pictures[1]).mean() < 255**2 / 10**3.0  # 30 dB


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("synthesis.head.weight.scale", None),
        ("synthesis.head.weight.scale", lambda scale: scale[:-1]),
        ("synthesis.head.weight.scale", lambda scale: scale.astype(np.float64)),
        ("synthesis.head.weight", lambda kernel: kernel.astype(np.float16)),
    ],
)
def test_kernels_of_eight_bits_without_their_scales_are_refused(key: str, change) -> None:  # type: ignore[no-untyped-def]
    model = untrained_model("nano")
    tensors = in_eight_bits(model.tensors)
    if change is None:
        del tensors[key]
    else:
        tensors[key] = change(tensors[key])
    with pytest.raises(ModelFileError, match=r"expected the model file to hold synthesis\.head"):
        Model.build("forged", model.preset, tensors, model.tables, {})


def test_an_unknown_model_is_one_error_that_lists_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROI_CODEC_MODELS", str(tmp_path))
    untrained_model("nano").save(tmp_path / "shed.safetensors")
    with pytest.raises(ModelFileError, match=r"shed.*found 'barn'"):
        find_model("barn")
    assert find_model("shed") == tmp_path / "shed.safetensors"
    with pytest.raises(ModelFileError, match=r"a graph only encodes, with backend onnxruntime"):
        find_model("shed.onnx")


def test_the_codec_imports_without_torch_and_codes_without_compressai_or_a_detector() -> None:
    program = """
import sys
import numpy as np
from roi_codec_ros.codec import Decoder, Encoder, untrained_model
print("torch" in sys.modules)
model = untrained_model("nano")
Decoder(model).decode(Encoder(model).encode(np.zeros((32, 32, 3), np.uint8)).data)
print([m for m in ("compressai", "ultralytics", "rclpy") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "[]"]
