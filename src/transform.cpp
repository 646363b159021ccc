// SPDX-License-Identifier: Apache-2.0
//
// The block transform: blocks of 16×16 pixels, RGB, to their coefficients in steps of their level.
//
//     block ─► upper half ± lower half ─► cosines down ─► cosines along ─► colours ─► ÷ step
//
// roi_codec_ros/codec/transform_reference.py computes the same numbers in NumPy, bit for bit: what
// is added to what, and in which order, is fixed here, no product is fused with a sum (compile with
// -ffp-contract=off), and vectors lie across results, never across what is summed. So every
// processor gives the same symbols.
//
// C++17 with the vectors of GCC and Clang, without intrinsics: of four numbers, which every 64-bit
// processor has (SSE2, NEON), and on x86-64 of eight and sixteen too; the processor that runs it
// says which.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

// Into each function below that is compiled for instructions of its own.
#define ROI_CODEC_INLINE inline __attribute__((always_inline))

namespace py = pybind11;

namespace
{

constexpr std::size_t kSize = 16;  // side of a block, pixels
constexpr std::size_t kHalf = kSize / 2;
constexpr std::size_t kColours = 3;
constexpr std::size_t kLine = kSize * kColours;
constexpr std::uint8_t kFirstClass = 2;  // a block of class 0; smaller ones are not coded
constexpr float kRoundDown = 0.4f;  // 1 - ROUND_UP_FROM of ladder.py

// Where a channel's coefficient lies in a block's, and what it is multiplied by.
struct Channel
{
  std::uint32_t place;
  float scale;
};

// What of a block a level codes.
struct Level
{
  std::vector<Channel> channels;
  std::size_t down = 0;   // frequencies down the columns
  std::size_t along = 0;  // and along the lines
};

// [frequency down][colour][frequency along]
using Coefficients = std::array<float, kSize * kLine>;

struct Waves
{
  std::array<float, kSize * kSize> down;   // [frequency][place]
  std::array<float, kSize * kSize> along;  // [place][frequency]
};

// Sums of `count` results at once, in vectors of `width`, which the processor has.
template<std::size_t count, std::size_t width>
struct Sums
{
  using Vector __attribute__((vector_size(width * sizeof(float)))) = float;
  static constexpr std::size_t kVectors = count / width;

  Vector vectors[kVectors] = {};

  ROI_CODEC_INLINE void add_product(const float * values, float factor)
  {
    for (std::size_t i = 0; i < kVectors; ++i) {
      Vector vector;
      std::memcpy(&vector, values + i * width, sizeof vector);
      vectors[i] += vector * factor;
    }
  }

  ROI_CODEC_INLINE void store(float * values) const {std::memcpy(values, vectors, sizeof vectors);}
};

// The inner products of one block, lines of which are `stride` bytes apart; `lanes` frequencies
// along the lines, which are no fewer than the level's; `width` numbers are a vector.
template<std::size_t lanes, std::size_t width>
ROI_CODEC_INLINE void transform_lanes(
  const std::uint8_t * pixels, std::size_t stride, const Waves & waves, std::size_t frequencies,
  float * result)
{
  // Cosines are even or odd about the middle: sums serve the one kind, differences the other.
  // Counted from grey, 127.5, of which two make 255.
  float folded[2][kHalf][kLine];
  for (std::size_t y = 0; y < kHalf; ++y) {
    const std::uint8_t * const upper = pixels + y * stride;
    const std::uint8_t * const lower = pixels + (kSize - 1 - y) * stride;
    for (std::size_t i = 0; i < kLine; ++i) {
      const std::int32_t a = upper[i];
      const std::int32_t b = lower[i];
      folded[0][y][i] = static_cast<float>(a + b - 255);
      folded[1][y][i] = static_cast<float>(a - b);
    }
  }
  for (std::size_t u = 0; u < frequencies; ++u) {
    const float * const wave = waves.down.data() + u * kSize;
    float line[kLine];
    for (std::size_t part = 0; part < kLine; part += kSize) {
      Sums<kSize, width> sums;
      for (std::size_t y = 0; y < kHalf; ++y) {
        sums.add_product(folded[u % 2][y] + part, wave[y]);
      }
      sums.store(line + part);
    }
    Sums<lanes, std::min(lanes, width)> red, green, blue;
    for (std::size_t x = 0; x < kSize; ++x) {
      const float * const along = waves.along.data() + x * kSize;
      red.add_product(along, line[kColours * x]);
      green.add_product(along, line[kColours * x + 1]);
      blue.add_product(along, line[kColours * x + 2]);
    }
    float * const colours = result + u * kLine;
    red.store(colours);
    green.store(colours + kSize);
    blue.store(colours + 2 * kSize);
    for (std::size_t v = 0; v < lanes; ++v) {
      const float outer = colours[v] + colours[2 * kSize + v];
      const float inner = colours[kSize + v];
      colours[kSize + v] = colours[v] - colours[2 * kSize + v];
      colours[v] = outer + inner;
      colours[2 * kSize + v] = outer - 2.0f * inner;
    }
  }
}

template<std::size_t width>
ROI_CODEC_INLINE void transform_block(
  const std::uint8_t * pixels, std::size_t stride, const Waves & waves, const Level & level,
  float * result)
{
  if (level.along <= 4) {
    transform_lanes<4, width>(pixels, stride, waves, level.down, result);
  } else if (level.along <= 8) {
    transform_lanes<8, width>(pixels, stride, waves, level.down, result);
  } else {
    transform_lanes<kSize, width>(pixels, stride, waves, level.down, result);
  }
}

using Transform = void (*)(
  const std::uint8_t *, std::size_t, const Waves &, const Level &, float *);

void transform_anywhere(
  const std::uint8_t * pixels, std::size_t stride, const Waves & waves, const Level & level,
  float * result)
{
  transform_block<4>(pixels, stride, waves, level, result);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) void transform_avx2(
  const std::uint8_t * pixels, std::size_t stride, const Waves & waves, const Level & level,
  float * result)
{
  transform_block<8>(pixels, stride, waves, level, result);
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void transform_avx512(
  const std::uint8_t * pixels, std::size_t stride, const Waves & waves, const Level & level,
  float * result)
{
  transform_block<16>(pixels, stride, waves, level, result);
}

#endif

struct Choice
{
  const char * name;
  Transform transform;
};

// What this processor can run, the best first.
std::vector<Choice> choices()
{
  std::vector<Choice> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
  {
    found.push_back({"avx512", transform_avx512});
  }
  if (__builtin_cpu_supports("avx2")) {
    found.push_back({"avx2", transform_avx2});
  }
#endif
  found.push_back({"portable", transform_anywhere});
  return found;
}

// A frame and what its blocks are.
struct Frame
{
  const std::uint8_t * pixels;
  std::size_t height;
  std::size_t width;
  const std::uint8_t * blocks;
  std::size_t rows;
  std::size_t columns;
};

inline void put(float value, float & place) {place = value;}

inline void put(float value, std::int16_t & place)
{
  const float beyond = value + std::copysign(kRoundDown, value);
  place = static_cast<std::int16_t>(
    static_cast<std::int32_t>(std::min(std::max(beyond, -32768.0f), 32767.0f)));
}

// Of one model.
class BlockTransform
{
public:
  BlockTransform(const Waves & waves, std::vector<Level> levels, std::size_t channels, Choice choice)
  : waves_(waves), levels_(std::move(levels)), channels_(channels), choice_(choice) {}

  std::size_t channels() const {return channels_;}
  std::size_t levels() const {return levels_.size();}

  // Fills `result`, [rows, columns, channels]. level_of: that of each class.
  template<typename Value>
  void run(const Frame & frame, const std::uint8_t * level_of, Value * result) const
  {
    Coefficients coefficients;
    const std::uint8_t * block = frame.blocks;
    for (std::size_t row = 0; row < frame.rows; ++row) {
      for (std::size_t column = 0; column < frame.columns; ++column, ++block) {
        Value * const end = result + channels_;
        if (*block >= kFirstClass) {  // else its pixels are not read
          const Level & level = levels_[level_of[*block - kFirstClass]];
          transform_at(frame, row, column, level, coefficients.data());
          for (const Channel & channel : level.channels) {
            put(coefficients[channel.place] * channel.scale, *result++);
          }
        }
        result = std::fill_n(result, end - result, Value{0});
      }
    }
  }

private:
  void transform_at(
    const Frame & frame, std::size_t row, std::size_t column, const Level & level,
    float * result) const
  {
    const std::size_t stride = frame.width * kColours;
    const std::size_t top = row * kSize;
    const std::size_t left = column * kSize;
    if (top + kSize <= frame.height && left + kSize <= frame.width) {
      choice_.transform(
        frame.pixels + top * stride + left * kColours, stride, waves_, level, result);
      return;
    }
    std::array<std::uint8_t, kSize * kLine> whole;  // its border is repeated
    for (std::size_t y = 0; y < kSize; ++y) {
      const std::uint8_t * const line =
        frame.pixels + std::min(top + y, frame.height - 1) * stride;
      for (std::size_t x = 0; x < kSize; ++x) {
        const std::uint8_t * const pixel = line + std::min(left + x, frame.width - 1) * kColours;
        std::copy_n(pixel, kColours, whole.data() + y * kLine + x * kColours);
      }
    }
    choice_.transform(whole.data(), kLine, waves_, level, result);
  }

  Waves waves_;
  std::vector<Level> levels_;
  std::size_t channels_;
  Choice choice_;
};

using FloatArray = py::array_t<float, py::array::c_style>;
using Int32Array = py::array_t<std::int32_t, py::array::c_style>;
using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;

BlockTransform make_transform(
  const FloatArray & waves, const Int32Array & frequencies, const FloatArray & scales,
  const Int32Array & coded, const std::string & instructions)
{
  if (waves.ndim() != 2 || waves.shape(0) != kSize || waves.shape(1) != kSize ||
    frequencies.ndim() != 2 || frequencies.shape(1) != 3 || scales.ndim() != 2 ||
    scales.shape(1) != frequencies.shape(0) || coded.ndim() != 1 ||
    coded.shape(0) != scales.shape(0))
  {
    throw py::value_error(
            "expected waves [16, 16], frequencies [C, 3], scales [L, C], coded [L]");
  }
  Waves both;
  for (std::size_t f = 0; f < kSize; ++f) {
    for (std::size_t i = 0; i < kSize; ++i) {
      both.down[f * kSize + i] = waves.data()[f * kSize + i];
      both.along[i * kSize + f] = waves.data()[f * kSize + i];
    }
  }
  const auto channels = static_cast<std::size_t>(frequencies.shape(0));
  std::vector<Level> levels(static_cast<std::size_t>(coded.shape(0)));
  for (std::size_t l = 0; l < levels.size(); ++l) {
    if (coded.data()[l] < 0 || static_cast<std::size_t>(coded.data()[l]) > channels) {
      throw py::value_error("expected levels of 0 to " + std::to_string(channels) + " channels");
    }
    for (std::size_t c = 0; c < static_cast<std::size_t>(coded.data()[l]); ++c) {
      const std::int32_t * const of_channel = frequencies.data() + 3 * c;
      if (std::any_of(of_channel, of_channel + 3, [](auto f) {return f < 0 || f >= 16;}) ||
        of_channel[0] >= static_cast<std::int32_t>(kColours))
      {
        throw py::value_error("expected a colour of 0 to 2 and frequencies of 0 to 15");
      }
      const auto colour = static_cast<std::size_t>(of_channel[0]);
      const auto down = static_cast<std::size_t>(of_channel[1]);
      const auto along = static_cast<std::size_t>(of_channel[2]);
      levels[l].channels.push_back(
        {static_cast<std::uint32_t>(down * kLine + colour * kSize + along),
          scales.data()[l * channels + c]});
      levels[l].down = std::max(levels[l].down, down + 1);
      levels[l].along = std::max(levels[l].along, along + 1);
    }
  }
  for (const Choice & choice : choices()) {
    if (instructions.empty() || instructions == choice.name) {
      return BlockTransform(both, std::move(levels), channels, choice);
    }
  }
  throw py::value_error("expected instructions that this processor has, found " + instructions);
}

template<typename Value>
py::array_t<Value> run(
  const BlockTransform & transform, const ByteArray & image, const ByteArray & blocks,
  const ByteArray & levels)
{
  const auto size_of = [](py::ssize_t side) {return static_cast<std::size_t>(side);};
  if (image.ndim() != 3 || image.shape(2) != kColours || image.size() == 0 || blocks.ndim() != 2 ||
    size_of(blocks.shape(0)) != (size_of(image.shape(0)) + kSize - 1) / kSize ||
    size_of(blocks.shape(1)) != (size_of(image.shape(1)) + kSize - 1) / kSize)
  {
    throw py::value_error(
            "expected an image [H, W, 3] and its blocks [H / 16, W / 16], rounded up");
  }
  if (levels.ndim() != 1) {
    throw py::value_error("expected levels [P]");
  }
  for (py::ssize_t i = 0; i < levels.size(); ++i) {
    if (levels.data()[i] >= transform.levels()) {
      throw py::value_error("expected levels below " + std::to_string(transform.levels()));
    }
  }
  const std::uint8_t * const last = blocks.data() + blocks.size();
  if (*std::max_element(blocks.data(), last) >= kFirstClass + levels.size()) {
    throw py::value_error("expected blocks of classes that have levels");
  }
  const Frame frame{
    image.data(), size_of(image.shape(0)), size_of(image.shape(1)),
    blocks.data(), size_of(blocks.shape(0)), size_of(blocks.shape(1))};
  py::array_t<Value> result(
    {blocks.shape(0), blocks.shape(1), static_cast<py::ssize_t>(transform.channels())});
  Value * const values = result.mutable_data();
  const std::uint8_t * const level_of = levels.data();
  {
    py::gil_scoped_release released;
    transform.run(frame, level_of, values);
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_transform, module)
{
  module.doc() = "The block transform (see roi_codec_ros/codec/transform_reference.py).";
  module.def(
    "instructions", [] {
      py::list names;
      for (const Choice & choice : choices()) {
        names.append(choice.name);
      }
      return names;
    }, "The sets of instructions that are compiled in and that this processor has, the best first.");
  py::class_<BlockTransform>(module, "Transform")
  .def(
    py::init(&make_transform), py::arg("waves").noconvert(), py::arg("frequencies").noconvert(),
    py::arg("scales").noconvert(), py::arg("coded").noconvert(), py::arg("instructions") = "")
  .def(
    "values", &run<float>, py::arg("image").noconvert(), py::arg("blocks").noconvert(),
    py::arg("levels").noconvert())
  .def(
    "symbols", &run<std::int16_t>, py::arg("image").noconvert(), py::arg("blocks").noconvert(),
    py::arg("levels").noconvert());
}
