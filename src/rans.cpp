// SPDX-License-Identifier: Apache-2.0
//
// Interleaved rANS for integer tables, chosen by channel and by the symbols around. The format is
// defined in docs/bitstream.md;
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
constexpr int kReciprocalBits = 48;
constexpr int kBucketBits = 8;  // resolution of the first look-up in decoding
constexpr int kBucketShift = kPrecision - kBucketBits;
constexpr std::size_t kMaxSymbols = std::size_t{1} << 31;
constexpr std::int16_t kFarthest = 127;  // a bound between two contexts, at most, and its negative
constexpr std::int16_t kBelowAll = -128;  // below all bounds

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

struct Entry
{
  std::uint64_t reciprocal;  // 2^48 / frequency, rounded up
  std::uint32_t slots;       // start << 16 | frequency
};

// The look-up tables of one channel in one context.
struct Table
{
  const Entry * entries;          // of each symbol
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
  std::uint32_t slots = table.entries[symbol].slots;
  while (slot - (slots >> 16) >= (slots & 0xffffu)) {
    slots = table.entries[++symbol].slots;
  }
  return {symbol, slots & 0xffffu, slot - (slots >> 16)};
}

// The memory behind all tables of a coder, entries close together: each costs a cache line.
class Memory
{
public:
  void reserve(std::size_t rows, std::size_t entries)
  {
    entries_.reserve(entries);
    buckets_.reserve(rows << kBucketBits);
  }

  // Within what was reserved, so that earlier tables stay where they are.
  Table add(const std::int32_t * cdf, std::int32_t used, std::int32_t first)
  {
    const Entry * const entries = entries_.data() + entries_.size();
    const std::uint16_t * const buckets = buckets_.data() + buckets_.size();
    for (std::int32_t s = 0; s + 1 < used; ++s) {
      const auto start = static_cast<std::uint32_t>(cdf[s]);
      const std::uint32_t frequency = static_cast<std::uint32_t>(cdf[s + 1]) - start;
      const std::uint64_t unit = std::uint64_t{1} << kReciprocalBits;
      entries_.push_back({(unit + frequency - 1) / frequency, start << 16 | frequency});
    }
    std::uint16_t symbol = 0;
    for (std::int32_t slot = 0; slot < cdf[used - 1]; slot += 1 << kBucketShift) {
      while (cdf[symbol + 1] <= slot) {
        ++symbol;
      }
      buckets_.push_back(symbol);
    }
    return {entries, buckets, first, static_cast<std::uint32_t>(used - 2)};
  }

private:
  std::vector<Entry> entries_;
  std::vector<std::uint16_t> buckets_;
};

// Writes words from the back of a buffer to its front, since rANS is last in, first out.
struct Writer
{
  std::uint8_t * front;

  // The word is always stored and only sometimes kept: cheaper than a branch that is often wrong.
  // The buffer has two spare bytes in front for it.
  //
  // The quotient is exact: with the state x < 65536 f and the reciprocal m < 2^48 / f + 1 that is
  // rounded up, x m / 2^48 exceeds x / f by less than x / 2^48 < f / 2^32 < 1 / f. Nor does x m
  // reach 2^64, as f < 65536.
  void put(std::uint32_t & state, const Entry & entry)
  {
    const std::uint32_t start = entry.slots >> 16;
    const std::uint32_t frequency = entry.slots & 0xffffu;
    front[-2] = static_cast<std::uint8_t>(state);
    front[-1] = static_cast<std::uint8_t>(state >> 8);
    const std::uint32_t rest = state >> kWordBits;
    const bool full = rest >= frequency;
    front = full ? front - kWordBytes : front;
    const std::uint32_t x = full ? rest : state;
    const auto quotient = static_cast<std::uint32_t>(x * entry.reciprocal >> kReciprocalBits);
    state = (quotient << kPrecision) + (x - quotient * frequency) + start;
  }

  // A value as it is, as one of 65536 equally likely ones.
  void put_raw(std::uint32_t & state, std::uint16_t value)
  {
    front -= kWordBytes;
    front[0] = static_cast<std::uint8_t>(state);
    front[1] = static_cast<std::uint8_t>(state >> 8);
    state = (state >> kWordBits << kPrecision) + value;
  }

  void put_symbol(std::uint32_t & state, const Table & table, std::int16_t value)
  {
    auto index = static_cast<std::uint32_t>(value - table.offset);
    if (index >= table.escape) {
      put_raw(state, static_cast<std::uint16_t>(value));
      index = table.escape;
    }
    put(state, table.entries[index]);
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
  std::size_t channels;
  std::size_t height;
  std::size_t width;
  std::size_t total;
  std::size_t shared;

  Layout(std::size_t channels, std::size_t height, std::size_t width)
  : channels(channels), height(height), width(width), total(channels * height * width),
    shared(total - std::min(total, kTail)) {}

  std::size_t plane() const {return height * width;}

  // The state of the symbol at this place of the coding order.
  std::size_t lane(std::size_t index) const {return index < shared ? index % kLanes : 0;}
};

// A latent in coding order, all channels of a position together, with a border of zeros above and
// to the left: what the contexts of the first row and column see.
//
// Its memory is the thread's, and stays: fresh pages would cost as much time as the coding.
class Grid
{
public:
  explicit Grid(const Layout & layout)
  : channels_(layout.channels), row_((layout.width + 1) * layout.channels)
  {
    thread_local std::vector<std::int16_t> memory;
    const std::size_t size = (layout.height + 1) * row_;
    if (memory.size() < size) {
      memory.resize(size);
    }
    values_ = memory.data();
    std::fill_n(values_, row_, std::int16_t{0});
    for (std::size_t y = 1; y <= layout.height; ++y) {
      std::fill_n(values_ + y * row_, channels_, std::int16_t{0});
    }
  }

  // The channels of one position.
  std::int16_t * at(std::size_t y, std::size_t x) const
  {
    return values_ + (y + 1) * row_ + (x + 1) * channels_;
  }

  // Calls move(channel's symbol, grid's symbol) for all symbols, tile by tile.
  template<typename Value, typename Move>
  void each(Value * symbols, const Layout & layout, Move && move) const
  {
    constexpr std::size_t kTile = 16;
    for (std::size_t y = 0; y < layout.height; ++y) {
      for (std::size_t x = 0; x < layout.width; x += kTile) {
        const std::size_t columns = std::min(kTile, layout.width - x);
        for (std::size_t c = 0; c < channels_; ++c) {
          Value * const from = symbols + c * layout.plane() + y * layout.width + x;
          std::int16_t * const to = at(y, x) + c;
          for (std::size_t i = 0; i < columns; ++i) {
            move(from[i], to[i * channels_]);
          }
        }
      }
    }
  }

  std::size_t row() const {return row_;}

private:
  std::size_t channels_;
  std::size_t row_;
  std::int16_t * values_;
};

struct Body
{
  const std::uint8_t * begin;
  const std::uint8_t * end;
};

class Coder
{
public:
  // cdf: rows of `columns` entries, those of channel c in context k at c * contexts + k.
  Coder(
    const std::int32_t * cdf, std::size_t rows, std::size_t columns, const std::int32_t * lengths,
    const std::int32_t * offsets, const std::int32_t * bounds, std::size_t contexts)
  : contexts_(contexts), channels_(rows / contexts)
  {
    std::size_t entries = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      const std::int32_t * row = cdf + r * columns;
      bool valid = lengths[r] >= 3 && static_cast<std::size_t>(lengths[r]) <= columns &&
        row[0] == 0 && row[lengths[r] - 1] == static_cast<std::int32_t>(kTotal) &&
        offsets[r] >= -0x8000 && offsets[r] <= 0x8000 - (lengths[r] - 2);
      for (std::int32_t i = 1; valid && i < lengths[r]; ++i) {
        valid = row[i] > row[i - 1];
      }
      if (!valid) {
        throw std::invalid_argument(
                "expected valid tables, found an error in row " + std::to_string(r));
      }
      entries += static_cast<std::size_t>(lengths[r]) - 1;
    }
    memory_.reserve(rows, entries);
    for (std::size_t r = 0; r < rows; ++r) {
      tables_.push_back(memory_.add(cdf + r * columns, lengths[r], offsets[r]));
    }
    for (std::size_t i = 0; i + 1 < contexts; ++i) {
      if (bounds[i] < -kFarthest || bounds[i] > kFarthest || (i > 0 && bounds[i] <= bounds[i - 1])) {
        throw std::invalid_argument(
                "expected rising bounds of -127 to 127, found an error in bound " +
                std::to_string(i));
      }
    }
    for (std::int32_t sum = kBelowAll; sum <= kFarthest; ++sum) {
      const auto context = std::upper_bound(bounds, bounds + contexts - 1, sum) - bounds;
      context_of_.push_back(static_cast<std::uint8_t>(context));
    }
  }

  Coder(const Coder &) = delete;  // tables point into memory_, which only a move takes along
  Coder(Coder &&) = default;

  std::size_t channels() const {return channels_;}

  // Bytes of the largest body for `plane` symbols in each channel.
  std::size_t bound(std::size_t plane) const
  {
    return kHeadBytes + kMaxBytesPerSymbol * channels_ * plane;
  }

  // Fills `buffer` (bound(plane) + kWordBytes bytes) from its end; returns where the body lies.
  Body encode(const std::int16_t * symbols, const Layout & layout, std::uint8_t * buffer) const
  {
    const Grid grid(layout);
    grid.each(symbols, layout, [](std::int16_t symbol, std::int16_t & place) {place = symbol;});
    Writer writer{buffer + bound(layout.plane()) + kWordBytes};
    const std::uint8_t * end = writer.front;
    States states;
    states.fill(kLowest);
    std::vector<const Table *> tables = first_tables();
    std::vector<std::int16_t> sums(channels_);
    bool in_tail = true;
    std::size_t index = layout.total;
    const auto leave_tail = [&] {
      // The other states still stand at their lowest value, which has room for one word each.
      const std::size_t words = static_cast<std::size_t>(end - writer.front) / kWordBytes;
      const std::size_t absorbed = std::min<std::size_t>(words, kLanes - 1);
      end -= absorbed * kWordBytes;
      for (std::size_t k = 0; k < absorbed; ++k) {
        states[k + 1] |= word_at(end + k * kWordBytes);
      }
      in_tail = false;
    };
    for (std::size_t y = layout.height; y-- > 0; ) {
      for (std::size_t x = layout.width; x-- > 0; ) {
        const std::int16_t * values = grid.at(y, x);
        choose_tables(values, grid.row(), sums, tables);
        std::size_t c = channels_;
        while (c > 0) {
          if (in_tail && index == layout.shared) {
            leave_tail();
          }
          if (!in_tail && c >= kLanes && index % kLanes == 0) {
            const std::size_t grouped = c - c % kLanes;
            c -= grouped;
            index -= grouped;
            put_groups(writer, states, tables.data() + c, values + c, grouped);
            continue;
          }
          --c;
          --index;
          writer.put_symbol(states[layout.lane(index)], *tables[c], values[c]);
        }
      }
    }
    if (in_tail) {
      leave_tail();
    }
    for (std::size_t lane = kLanes; lane-- > 0; ) {
      writer.put_state(states[lane]);
    }
    return {writer.front, end};
  }

  void decode(
    const std::uint8_t * body, std::size_t size, std::int16_t * symbols,
    const Layout & layout) const
  {
    const Grid grid(layout);
    Reader reader{body, body + size};
    States states = take_head(reader, layout.plane());
    Tail tail;
    std::vector<const Table *> tables = first_tables();
    std::vector<std::int16_t> sums(channels_);
    std::size_t index = 0;
    for (std::size_t y = 0; y < layout.height; ++y) {
      for (std::size_t x = 0; x < layout.width; ++x) {
        std::int16_t * values = grid.at(y, x);
        choose_tables(values, grid.row(), sums, tables);
        std::size_t c = 0;
        while (c < channels_) {
          if (index == layout.shared) {
            reader = tail.begin(reader, states, layout);
          }
          std::size_t alone = 1;  // where groups cross a position, and in the tail
          if (index % kLanes == 0 && index + kLanes <= layout.shared && c + kLanes <= channels_) {
            std::size_t count = std::min(channels_ - c, layout.shared - index);
            count -= count % kLanes;
            const std::size_t done = take_groups(
              reader, states, tables.data() + c, values + c, count);
            c += done;
            index += done;
            alone = done < count ? kLanes : 0;
          }
          for (; alone > 0; --alone, ++c, ++index) {
            std::uint32_t & state = states[layout.lane(index)];
            if (!reader.take_symbol(state, *tables[c], c, values[c])) {
              refuse_end(layout, index);
            }
          }
        }
      }
    }
    tail.finish(reader, states);
    grid.each(symbols, layout, [](std::int16_t & symbol, std::int16_t place) {symbol = place;});
  }

private:
  // The last symbols of a body: its own last words, and those that states 1 to 7 have kept.
  class Tail
  {
public:
    Reader begin(const Reader & body, const States & states, const Layout & layout)
    {
      rest_ = body.left();
      if (rest_ > kMaxBytesPerSymbol * (layout.total - layout.shared)) {
        refuse(
          "the end after the last symbol", std::to_string(rest_) + " bytes before the tail");
      }
      std::uint8_t * end = std::copy(body.next, body.end, words_.data());
      for (std::size_t lane = 1; lane < kLanes; ++lane) {
        if (states[lane] >> kWordBits != 1) {
          refuse(
            "last states of " + std::to_string(kLowest) + " to " +
            std::to_string(2 * kLowest - 1),
            std::to_string(states[lane]) + " in state " + std::to_string(lane));
        }
        *end++ = static_cast<std::uint8_t>(states[lane]);
        *end++ = static_cast<std::uint8_t>(states[lane] >> 8);
      }
      return {words_.data(), end};
    }

    void finish(const Reader & reader, const States & states) const
    {
      const bool cleared =
        std::all_of(reader.next, reader.end, [](auto byte) {return byte == 0;});
      if (reader.left() != 0 && (rest_ != 0 || !cleared)) {
        refuse("the end after the last symbol", std::to_string(reader.left()) + " more bytes");
      }
      if (states[0] != kLowest) {
        refuse(
          "a last state of " + std::to_string(kLowest),
          std::to_string(states[0]) + " in state 0");
      }
    }

private:
    std::size_t rest_ = 0;
    std::array<std::uint8_t, kMaxBytesPerSymbol * kTail + kLanes * kWordBytes> words_;
  };

  // Each channel's table in context 0.
  std::vector<const Table *> first_tables() const
  {
    std::vector<const Table *> tables;
    for (std::size_t c = 0; c < channels_; ++c) {
      tables.push_back(&tables_[c * contexts_]);
    }
    return tables;
  }

  // Each channel's table at a position, by the bounds that 2 left + 2 above - above left reaches.
  void choose_tables(
    const std::int16_t * here, std::size_t row, std::vector<std::int16_t> & sums,
    std::vector<const Table *> & tables) const
  {
    if (contexts_ == 1) {
      return;
    }
    const std::int16_t * left = here - channels_;
    const std::int16_t * above = here - row;
    const std::int16_t * corner = above - channels_;
    for (std::size_t c = 0; c < channels_; ++c) {  // in 16 bits, of which vectors hold most
      const auto sum = static_cast<std::int16_t>(2 * left[c] + 2 * above[c] - corner[c]);
      sums[c] = std::min(std::max(sum, kBelowAll), kFarthest);
    }
    const std::uint8_t * const context_of = context_of_.data() - kBelowAll;
    const Table * table = tables_.data();
    for (std::size_t c = 0; c < channels_; ++c, table += contexts_) {
      tables[c] = table + context_of[sums[c]];
    }
  }

  // Codes `count` symbols, a multiple of eight, the last ones first: eight at a time, one into
  // each state.
  static void put_groups(
    Writer & caller_writer, States & caller_states, const Table * const * tables,
    const std::int16_t * values, std::size_t count)
  {
    Writer writer = caller_writer;  // locals, so that the compiler may keep them in registers
    States states = caller_states;
    for (std::size_t group = count; group > 0; group -= kLanes) {
      each_lane([&](auto lane) {
        constexpr std::size_t last = kLanes - 1 - lane;
        const std::size_t place = group - 1 - lane;
        writer.put_symbol(states[last], *tables[place], values[place]);
      });
    }
    caller_writer = writer;
    caller_states = states;
  }

  // Decodes up to `count` symbols, a multiple of eight: eight at a time, one from each state.
  // Returns how many: fewer where a group holds an escape, which is left as it was, or where the
  // body may end within it. No branch in here depends on data that is hard to predict, which is
  // what makes it fast.
  static std::size_t take_groups(
    Reader & caller_reader, States & caller_states, const Table * const * tables,
    std::int16_t * values, std::size_t count)
  {
    Reader reader = caller_reader;
    States states = caller_states;
    std::size_t done = 0;
    for (; done < count && reader.left() >= kGroupBytes; done += kLanes) {
      States next;
      bool escaped = false;
      each_lane([&](auto lane) {
        const Table & table = *tables[done + lane];
        const std::uint32_t state = states[lane];
        const Found found = find(table, state & (kTotal - 1));
        next[lane] = found.frequency * (state >> kPrecision) + found.distance;
        values[done + lane] = value_of(table, found.symbol);
        escaped |= found.symbol == table.escape;
      });
      if (escaped) {
        break;
      }
      const std::uint8_t * bytes = reader.next;
      each_lane([&](auto lane) {
        const std::uint32_t low = next[lane] < kLowest;
        states[lane] = next[lane] << kWordBits * low | (word_at(bytes) & (0u - low));
        bytes += kWordBytes * low;
      });
      reader.next = bytes;
    }
    caller_reader = reader;
    caller_states = states;
    return done;
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

  std::size_t contexts_;
  std::size_t channels_;
  Memory memory_;
  std::vector<Table> tables_;
  std::vector<std::uint8_t> context_of_;  // a sum of -128 to 127 -> its context
};

using Int32Array = py::array_t<std::int32_t, py::array::c_style>;
using Int16Array = py::array_t<std::int16_t, py::array::c_style>;

Coder make_coder(
  const Int32Array & cdf, const Int32Array & lengths, const Int32Array & offsets,
  const Int32Array & bounds)
{
  if (cdf.ndim() != 2 || lengths.ndim() != 1 || offsets.ndim() != 1 || bounds.ndim() != 1 ||
    lengths.shape(0) != cdf.shape(0) || offsets.shape(0) != cdf.shape(0) || cdf.shape(0) < 1 ||
    bounds.shape(0) > kFarthest || cdf.shape(0) % (bounds.shape(0) + 1) != 0)
  {
    throw py::value_error(
            "expected tables cdf [C * K, L], lengths [C * K], offsets [C * K], bounds [K - 1]");
  }
  return Coder(
    cdf.data(), static_cast<std::size_t>(cdf.shape(0)), static_cast<std::size_t>(cdf.shape(1)),
    lengths.data(), offsets.data(), bounds.data(),
    static_cast<std::size_t>(bounds.shape(0)) + 1);
}

// Checked before any product of sizes is formed, so that none can wrap around.
Layout checked_layout(const Coder & coder, py::ssize_t height, py::ssize_t width)
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
  return {coder.channels(), static_cast<std::size_t>(height), static_cast<std::size_t>(width)};
}

py::bytes encode(const Coder & coder, const Int16Array & symbols)
{
  if (symbols.ndim() != 3 || static_cast<std::size_t>(symbols.shape(0)) != coder.channels()) {
    throw py::value_error(
            "expected symbols [" + std::to_string(coder.channels()) + ", H, W]");
  }
  const Layout layout = checked_layout(coder, symbols.shape(1), symbols.shape(2));
  const std::size_t size = coder.bound(layout.plane()) + kWordBytes;
  const std::int16_t * values = symbols.data();
  thread_local std::vector<std::uint8_t> buffer;  // kept, as Grid's memory is
  Body body{};
  {
    py::gil_scoped_release released;
    if (buffer.size() < size) {
      buffer.resize(size);
    }
    body = coder.encode(values, layout, buffer.data() + (buffer.size() - size));
  }
  return py::bytes(
    reinterpret_cast<const char *>(body.begin), static_cast<std::size_t>(body.end - body.begin));
}

Int16Array decode(
  const Coder & coder, const py::bytes & body, py::ssize_t height, py::ssize_t width)
{
  const Layout layout = checked_layout(coder, height, width);
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
      reinterpret_cast<const std::uint8_t *>(data), static_cast<std::size_t>(size), values, layout);
  }
  return symbols;
}

}  // namespace

PYBIND11_MODULE(_rans, module)
{
  module.doc() = "Interleaved rANS for integer tables with contexts (see docs/bitstream.md).";
  py::class_<Coder>(module, "Coder")
  .def(
    py::init(&make_coder), py::arg("cdf").noconvert(), py::arg("lengths").noconvert(),
    py::arg("offsets").noconvert(), py::arg("bounds").noconvert())
  .def("encode", &encode, py::arg("symbols").noconvert())
  .def("decode", &decode, py::arg("body"), py::arg("height"), py::arg("width"));
}
