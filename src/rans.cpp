// SPDX-License-Identifier: Apache-2.0
//
// Interleaved rANS for static per-channel tables. The format is defined in docs/bitstream.md;
// roi_codec_ros/codec/rans_reference.py writes and reads the same bytes in plain Python.
//
// Portable C++17: no intrinsics, no unaligned or endian-dependent access. Nothing in here trusts
// its input: tables are validated once, bodies are checked as they are read.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace
{

constexpr std::size_t kLanes = 8;  // interleaved states
constexpr std::size_t kTail = 1024;  // so many last symbols belong to state 0 alone
constexpr int kPrecision = 16;  // bits of a cumulative frequency
constexpr std::uint32_t kTotal = 1u << kPrecision;
constexpr int kWordBits = 16;
constexpr std::size_t kWordBytes = 2;
constexpr std::uint32_t kLowest = 1u << 16;  // states live in [2^16, 2^32)
constexpr std::size_t kStateBytes = 4;
constexpr std::size_t kHeadBytes = kLanes * kStateBytes;
constexpr std::size_t kMaxBytesPerSymbol = 4;  // an escape: two words
constexpr std::size_t kGroupBytes = kLanes * kWordBytes;  // most that a symbol of each state reads
constexpr int kBucketBits = 8;  // resolution of the first look-up in decoding
constexpr int kBucketShift = kPrecision - kBucketBits;
constexpr std::size_t kMaxSymbols = std::size_t{1} << 31;

using States = std::array<std::uint32_t, kLanes>;

// Calls f(0) ... f(7) without a loop, whatever the compiler thinks of unrolling: a loop over the
// states in memory takes half as long again.
template<typename Function, std::size_t... lanes>
inline void each_lane(Function && f, std::index_sequence<lanes...>)
{
  (f(std::integral_constant<std::size_t, lanes>{}), ...);
}

template<typename Function>
inline void each_lane(Function && f)
{
  each_lane(f, std::make_index_sequence<kLanes>{});
}

[[noreturn]] void refuse(const std::string & expected, const std::string & found)
{
  throw std::invalid_argument("rANS body: expected " + expected + ", found " + found);
}

std::uint32_t word_at(const std::uint8_t * bytes)
{
  return bytes[0] | static_cast<std::uint32_t>(bytes[1]) << 8;
}

// One channel's look-up tables; a small value, so that loops keep it in registers.
struct Table
{
  const std::uint32_t * symbols;  // symbol -> start << 16 | frequency
  const std::uint16_t * buckets;  // slot >> kBucketShift -> the symbol at the bucket's first slot
  std::int32_t offset;            // the value of symbol 0
  std::uint32_t escape;           // the last symbol
};

inline std::int16_t value_of(const Table & table, std::uint32_t symbol)
{
  return static_cast<std::int16_t>(table.offset + static_cast<std::int32_t>(symbol));
}

// A symbol and where the slot lies in it.
struct Found
{
  std::uint32_t symbol;
  std::uint32_t frequency;
  std::uint32_t distance;  // of the slot from the symbol's start
};

// The symbol that a slot of 0 to 65535 belongs to.
inline Found find(const Table & table, std::uint32_t slot)
{
  std::uint32_t symbol = table.buckets[slot >> kBucketShift];
  std::uint32_t entry = table.symbols[symbol];
  while (slot - (entry >> 16) >= (entry & 0xffffu)) {
    entry = table.symbols[++symbol];
  }
  return {symbol, entry & 0xffffu, slot - (entry >> 16)};
}

// Owns the memory behind a Table.
struct Channel
{
  std::vector<std::uint32_t> symbols;
  std::vector<std::uint16_t> buckets;
  std::int32_t offset;

  Channel(const std::int32_t * cdf, std::int32_t used, std::int32_t first)
  : offset(first)
  {
    for (std::int32_t s = 0; s + 1 < used; ++s) {
      const auto start = static_cast<std::uint32_t>(cdf[s]);
      symbols.push_back(start << 16 | (static_cast<std::uint32_t>(cdf[s + 1]) - start));
    }
    std::uint16_t symbol = 0;
    for (std::int32_t slot = 0; slot < cdf[used - 1]; slot += 1 << kBucketShift) {
      while (cdf[symbol + 1] <= slot) {
        ++symbol;
      }
      buckets.push_back(symbol);
    }
  }

  Table table() const
  {
    return {symbols.data(), buckets.data(), offset,
      static_cast<std::uint32_t>(symbols.size() - 1)};
  }
};

// Writes words from the back of a buffer to its front, since rANS is last in, first out.
struct Writer
{
  std::uint8_t * front;

  // The word is always stored and only sometimes kept: cheaper than a branch that is often wrong.
  // The buffer has two spare bytes in front for it.
  void put(std::uint32_t & state, std::uint32_t start, std::uint32_t frequency)
  {
    front[-2] = static_cast<std::uint8_t>(state);
    front[-1] = static_cast<std::uint8_t>(state >> 8);
    const bool full = (state >> kWordBits) >= frequency;
    const std::uint32_t rest = state >> kWordBits;
    std::uint8_t * const kept = front - kWordBytes;
    front = full ? kept : front;
    const std::uint32_t x = full ? rest : state;
    const std::uint32_t quotient = x / frequency;
    state = (quotient << kPrecision) + (x - quotient * frequency) + start;
  }

  void put_symbol(std::uint32_t & state, const Table & table, std::int16_t value)
  {
    auto index = static_cast<std::uint32_t>(value - table.offset);
    if (index >= table.escape) {
      put(state, static_cast<std::uint16_t>(value), 1);
      index = table.escape;
    }
    const std::uint32_t symbol = table.symbols[index];
    put(state, symbol >> 16, symbol & 0xffffu);
  }

  void put_state(std::uint32_t state)
  {
    front -= kStateBytes;
    for (std::size_t i = 0; i < kStateBytes; ++i) {
      front[i] = static_cast<std::uint8_t>(state >> 8 * i);
    }
  }
};

struct Reader
{
  const std::uint8_t * next;
  const std::uint8_t * end;

  std::size_t left() const {return static_cast<std::size_t>(end - next);}

  std::uint32_t take_state()
  {
    std::uint32_t state = 0;
    for (std::size_t i = 0; i < kStateBytes; ++i) {
      state |= static_cast<std::uint32_t>(next[i]) << 8 * i;
    }
    next += kStateBytes;
    return state;
  }

  // False if a word is needed and none is left.
  bool refill(std::uint32_t & state)
  {
    if (state >= kLowest) {
      return true;
    }
    if (left() < kWordBytes) {
      return false;
    }
    state = state << kWordBits | word_at(next);
    next += kWordBytes;
    return true;
  }

  // False if the body ends too early.
  bool take_symbol(
    std::uint32_t & state, const Table & table, std::size_t channel, std::int16_t & value)
  {
    const std::uint32_t slot = state & (kTotal - 1);
    const Found found = find(table, slot);
    state = found.frequency * (state >> kPrecision) + found.distance;
    if (!refill(state)) {
      return false;
    }
    if (found.symbol != table.escape) {
      value = value_of(table, found.symbol);
      return true;
    }
    const auto raw = static_cast<std::int32_t>(state & 0xffffu);
    state >>= kPrecision;
    value = static_cast<std::int16_t>(raw < 0x8000 ? raw : raw - 0x10000);
    if (static_cast<std::uint32_t>(value - table.offset) < table.escape) {
      refuse(
        "escapes only for values outside the table of channel " + std::to_string(channel),
        std::to_string(value));
    }
    return refill(state);
  }
};

// Which symbols the eight states share, and which last ones state 0 codes alone.
struct Layout
{
  std::size_t plane;
  std::size_t total;
  std::size_t shared;

  Layout(std::size_t channels, std::size_t plane)
  : plane(plane), total(channels * plane), shared(total - std::min(total, kTail)) {}

  // How many of a channel's first symbols are shared.
  std::size_t shared_in(std::size_t channel) const
  {
    const std::size_t before = channel * plane;
    return shared <= before ? 0 : std::min(plane, shared - before);
  }
};

struct Body
{
  const std::uint8_t * begin;
  const std::uint8_t * end;
};

class Coder
{
public:
  Coder(
    const std::int32_t * cdf, std::size_t channels, std::size_t columns,
    const std::int32_t * lengths, const std::int32_t * offsets)
  {
    channels_.reserve(channels);
    for (std::size_t c = 0; c < channels; ++c) {
      const std::int32_t * row = cdf + c * columns;
      bool valid = lengths[c] >= 3 && static_cast<std::size_t>(lengths[c]) <= columns &&
        row[0] == 0 && row[lengths[c] - 1] == static_cast<std::int32_t>(kTotal) &&
        offsets[c] >= -0x8000 && offsets[c] <= 0x8000 - (lengths[c] - 2);
      for (std::int32_t i = 1; valid && i < lengths[c]; ++i) {
        valid = row[i] > row[i - 1];
      }
      if (!valid) {
        throw std::invalid_argument(
                "expected valid tables, found an error in channel " + std::to_string(c));
      }
      channels_.emplace_back(row, lengths[c], offsets[c]);
    }
  }

  std::size_t channels() const {return channels_.size();}

  // Bytes of the largest body for `plane` symbols in each channel.
  std::size_t bound(std::size_t plane) const
  {
    return kHeadBytes + kMaxBytesPerSymbol * channels_.size() * plane;
  }

  // Fills `buffer` (bound(plane) + kWordBytes bytes) from its end; returns where the body lies.
  Body encode(const std::int16_t * values, std::size_t plane, std::uint8_t * buffer) const
  {
    const Layout layout(channels_.size(), plane);
    Writer writer{buffer + bound(plane) + kWordBytes};
    const std::uint8_t * end = writer.front;
    States states;
    states.fill(kLowest);
    for (std::size_t i = layout.total; i-- > layout.shared; ) {
      writer.put_symbol(states[0], channels_[i / plane].table(), values[i]);
    }
    // The other states still stand at their lowest value, which has room for one word each.
    const std::size_t words = static_cast<std::size_t>(end - writer.front) / kWordBytes;
    const std::size_t absorbed = std::min<std::size_t>(words, kLanes - 1);
    end -= absorbed * kWordBytes;
    for (std::size_t k = 0; k < absorbed; ++k) {
      states[k + 1] |= word_at(end + k * kWordBytes);
    }
    for (std::size_t c = channels_.size(); c-- > 0; ) {
      encode_shared(writer, states, channels_[c].table(), values + c * plane, layout.shared_in(c));
    }
    for (std::size_t lane = kLanes; lane-- > 0; ) {
      writer.put_state(states[lane]);
    }
    return {writer.front, end};
  }

  void decode(
    const std::uint8_t * body, std::size_t size, std::int16_t * values, std::size_t plane) const
  {
    const Layout layout(channels_.size(), plane);
    Reader reader{body, body + size};
    States states = take_head(reader, plane);
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      const std::size_t count = layout.shared_in(c);
      const std::size_t done = decode_shared(reader, states, c, values + c * plane, count);
      if (done < count) {
        refuse_end(layout, c * plane + done);
      }
    }
    decode_tail(reader, states, values, layout);
  }

private:
  static void encode_shared(
    Writer & caller_writer, States & caller_states, const Table table, const std::int16_t * row,
    std::size_t count)
  {
    Writer writer = caller_writer;  // locals, so that the compiler may keep them in registers
    States states = caller_states;
    const std::size_t whole = count - count % kLanes;
    for (std::size_t i = count; i-- > whole; ) {
      writer.put_symbol(states[i % kLanes], table, row[i]);
    }
    for (std::size_t group = whole; group > 0; group -= kLanes) {
      for (std::size_t lane = kLanes; lane-- > 0; ) {
        writer.put_symbol(states[lane], table, row[group - kLanes + lane]);
      }
    }
    caller_writer = writer;
    caller_states = states;
  }

  // Decodes a symbol from each state, or returns false and leaves all as it was if one of them is
  // an escape. kGroupBytes must be readable. No branch in here depends on data that is hard to
  // predict, which is what makes it fast.
  static bool take_group(
    Reader & reader, States & states, const Table & table, std::int16_t * values)
  {
    States next;
    std::uint32_t highest = 0;
    each_lane([&](auto lane) {
      const std::uint32_t state = states[lane];
      const std::uint32_t slot = state & (kTotal - 1);
      const Found found = find(table, slot);
      next[lane] = found.frequency * (state >> kPrecision) + found.distance;
      values[lane] = value_of(table, found.symbol);
      highest = std::max(highest, found.symbol);
    });
    if (highest == table.escape) {
      return false;
    }
    const std::uint8_t * bytes = reader.next;
    each_lane([&](auto lane) {
      const std::uint32_t low = next[lane] < kLowest;
      states[lane] = next[lane] << kWordBits * low | (word_at(bytes) & (0u - low));
      bytes += kWordBytes * low;
    });
    reader.next = bytes;
    return true;
  }

  // Returns how many symbols were decoded: fewer than `count` if the body ended.
  std::size_t decode_shared(
    Reader & caller_reader, States & caller_states, std::size_t channel, std::int16_t * row,
    std::size_t count) const
  {
    const Table table = channels_[channel].table();
    Reader reader = caller_reader;
    States states = caller_states;
    std::size_t i = 0;
    while (i < count) {
      const bool group = i % kLanes == 0 && count - i >= kLanes && reader.left() >= kGroupBytes;
      if (group && take_group(reader, states, table, row + i)) {
        i += kLanes;
        continue;
      }
      const std::size_t stop = std::min(count, i - i % kLanes + kLanes);
      for (; i < stop; ++i) {
        if (!reader.take_symbol(states[i % kLanes], table, channel, row[i])) {
          break;
        }
      }
      if (i < stop) {
        break;
      }
    }
    caller_reader = reader;
    caller_states = states;
    return i;
  }

  void decode_tail(
    const Reader & body, States & states, std::int16_t * values, const Layout & layout) const
  {
    const std::size_t rest = body.left();
    if (rest > kMaxBytesPerSymbol * (layout.total - layout.shared)) {
      refuse("the end after the last symbol", std::to_string(rest) + " bytes before the tail");
    }
    std::array<std::uint8_t, kMaxBytesPerSymbol * kTail + kLanes * kWordBytes> words;
    std::uint8_t * end = std::copy(body.next, body.end, words.data());
    for (std::size_t lane = 1; lane < kLanes; ++lane) {
      if (states[lane] >> kWordBits != 1) {
        refuse(
          "last states of " + std::to_string(kLowest) + " to " + std::to_string(2 * kLowest - 1),
          std::to_string(states[lane]) + " in state " + std::to_string(lane));
      }
      *end++ = static_cast<std::uint8_t>(states[lane]);
      *end++ = static_cast<std::uint8_t>(states[lane] >> 8);
    }
    Reader reader{words.data(), end};
    for (std::size_t i = layout.shared; i < layout.total; ++i) {
      const std::size_t c = i / layout.plane;
      if (!reader.take_symbol(states[0], channels_[c].table(), c, values[i])) {
        refuse_end(layout, i);
      }
    }
    const bool cleared = std::all_of(reader.next, reader.end, [](auto byte) {return byte == 0;});
    if (reader.left() != 0 && (rest != 0 || !cleared)) {
      refuse("the end after the last symbol", std::to_string(reader.left()) + " more bytes");
    }
    if (states[0] != kLowest) {
      refuse(
        "a last state of " + std::to_string(kLowest), std::to_string(states[0]) + " in state 0");
    }
  }

  States take_head(Reader & reader, std::size_t plane) const
  {
    const std::size_t size = reader.left();
    if (size < kHeadBytes || size > bound(plane) || size % kWordBytes != 0) {
      refuse(
        "an even number of " + std::to_string(kHeadBytes) + " to " +
        std::to_string(bound(plane)) + " bytes", std::to_string(size));
    }
    States states;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      states[lane] = reader.take_state();
      if (states[lane] < kLowest) {
        refuse(
          "first states of " + std::to_string(kLowest) + " or more",
          std::to_string(states[lane]) + " in state " + std::to_string(lane));
      }
    }
    return states;
  }

  [[noreturn]] static void refuse_end(const Layout & layout, std::size_t done)
  {
    refuse(
      std::to_string(layout.total) + " symbols", "the end after " + std::to_string(done));
  }

  std::vector<Channel> channels_;
};

using Int32Array = py::array_t<std::int32_t, py::array::c_style>;
using Int16Array = py::array_t<std::int16_t, py::array::c_style>;

Coder make_coder(const Int32Array & cdf, const Int32Array & lengths, const Int32Array & offsets)
{
  if (cdf.ndim() != 2 || lengths.ndim() != 1 || offsets.ndim() != 1 ||
    lengths.shape(0) != cdf.shape(0) || offsets.shape(0) != cdf.shape(0) || cdf.shape(0) < 1)
  {
    throw py::value_error("expected tables cdf [C, L], lengths [C], offsets [C]");
  }
  return Coder(
    cdf.data(), static_cast<std::size_t>(cdf.shape(0)), static_cast<std::size_t>(cdf.shape(1)),
    lengths.data(), offsets.data());
}

// Checked before any product of sizes is formed, so that none can wrap around.
std::size_t checked_plane(const Coder & coder, py::ssize_t height, py::ssize_t width)
{
  if (height < 1 || width < 1 || height > 0xffff || width > 0xffff ||
    static_cast<std::size_t>(height) * static_cast<std::size_t>(width) >
    kMaxSymbols / coder.channels())
  {
    refuse(
      "sides of 1 to 65535 and at most " + std::to_string(kMaxSymbols) + " symbols",
      std::to_string(coder.channels()) + "x" + std::to_string(height) + "x" +
      std::to_string(width));
  }
  return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
}

py::bytes encode(const Coder & coder, const Int16Array & symbols)
{
  if (symbols.ndim() != 3 || static_cast<std::size_t>(symbols.shape(0)) != coder.channels()) {
    throw py::value_error(
            "expected symbols [" + std::to_string(coder.channels()) + ", H, W]");
  }
  const std::size_t plane = checked_plane(coder, symbols.shape(1), symbols.shape(2));
  const std::size_t size = coder.bound(plane) + kWordBytes;
  const std::int16_t * values = symbols.data();
  std::unique_ptr<std::uint8_t[]> buffer;
  Body body{};
  {
    py::gil_scoped_release released;
    buffer.reset(new std::uint8_t[size]);  // not cleared: only its used end is ever touched
    body = coder.encode(values, plane, buffer.get());
  }
  return py::bytes(
    reinterpret_cast<const char *>(body.begin), static_cast<std::size_t>(body.end - body.begin));
}

Int16Array decode(
  const Coder & coder, const py::bytes & body, py::ssize_t height, py::ssize_t width)
{
  const std::size_t plane = checked_plane(coder, height, width);
  char * data = nullptr;
  py::ssize_t size = 0;
  if (PyBytes_AsStringAndSize(body.ptr(), &data, &size) != 0) {
    throw py::error_already_set();
  }
  Int16Array symbols({static_cast<py::ssize_t>(coder.channels()), height, width});
  std::int16_t * values = symbols.mutable_data();
  {
    py::gil_scoped_release released;
    coder.decode(
      reinterpret_cast<const std::uint8_t *>(data), static_cast<std::size_t>(size), values, plane);
  }
  return symbols;
}

}  // namespace

PYBIND11_MODULE(_rans, module)
{
  module.doc() = "Interleaved rANS for static per-channel tables (see docs/bitstream.md).";
  py::class_<Coder>(module, "Coder")
  .def(
    py::init(&make_coder), py::arg("cdf").noconvert(), py::arg("lengths").noconvert(),
    py::arg("offsets").noconvert())
  .def("encode", &encode, py::arg("symbols").noconvert())
  .def("decode", &decode, py::arg("body"), py::arg("height"), py::arg("width"));
}
