// SPDX-License-Identifier: Apache-2.0
//
// Interleaved rANS for integer tables, chosen by level, channel and the symbols around, and the map
// that says which blocks are coded at which level. The format is defined in docs/bitstream.md;
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
constexpr std::size_t kMaxBytesPerSymbol = 4;  // an escape: two words
constexpr std::size_t kGroupBytes = kLanes * kWordBytes;  // most that a symbol of each state reads
constexpr int kReciprocalBits = 48;
constexpr int kBucketBits = 8;  // resolution of the first look-up in decoding
constexpr int kBucketShift = kPrecision - kBucketBits;
constexpr std::size_t kMaxSymbols = std::size_t{1} << 31;
constexpr int kMostActivity = 255;  // around a symbol, and a bound between two contexts
constexpr int kMostOfBlock = 3;  // that a symbol of the same block counts in an activity
constexpr int kMostOfNeighbour = 15;  // that one of a neighbour counts
constexpr std::size_t kGroup = 8;  // channels that are decoded at once
constexpr std::size_t kReach = 5 * kGroup;  // channels that count in an activity
constexpr std::size_t kNeighbours = 2;  // blocks that count: left and above
constexpr std::int32_t kMostActivityWeight = 255;
constexpr int kActivityBits = 4;  // of a weight, behind the point
constexpr std::size_t kFractions = 3;  // contexts of a predicted channel for each of the others
constexpr std::uint8_t kMiddle = 1;  // a prediction close to a whole number of steps
constexpr std::uint8_t kLone = 4;  // beside a fraction: nothing around is known
constexpr std::int64_t kOne = 1024;  // a weight of 1
constexpr std::int32_t kMostWeight = 1 << 13;
constexpr std::int64_t kFarthest = 4095;  // a prediction in steps, at most, and its negative
constexpr std::size_t kMostInputs = 16;  // of a prediction
constexpr std::size_t kPlaces = 5;  // that a prediction looks at: the block, and its neighbours
constexpr std::uint8_t kFirstClass = 2;  // a block of class 0; smaller ones are not coded
constexpr std::size_t kMaxClasses = 6;
constexpr std::size_t kMaxLevels = 64;
constexpr std::int8_t kNotCoded = -1;  // in place of a level
constexpr std::int32_t kMaxStep = 0xffff;  // of a ladder

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

[[noreturn]] void refuse_map(const std::string & expected, const std::string & found)
{
  throw std::invalid_argument("block map: expected " + expected + ", found " + found);
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

// The slots from `start` up to `end`.
Entry entry_of(std::int32_t start, std::int32_t end)
{
  const auto frequency = static_cast<std::uint32_t>(end - start);
  const std::uint64_t unit = std::uint64_t{1} << kReciprocalBits;
  return {
    (unit + frequency - 1) / frequency, static_cast<std::uint32_t>(start) << 16 | frequency};
}

// The look-up tables of one channel in one context at one level.
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
      entries_.push_back(entry_of(cdf[s], cdf[s + 1]));
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

// Sides of a latent, in blocks.
struct Size
{
  std::size_t height;
  std::size_t width;

  std::size_t area() const {return height * width;}
};

// How far symbols of neighbours lie apart in memory.
struct Strides
{
  std::ptrdiff_t channel;
  std::ptrdiff_t row;
  std::ptrdiff_t column;

  // Channels one after the other, each row by row.
  static Strides of_planes(const Size & size)
  {
    return {
      static_cast<std::ptrdiff_t>(size.area()), static_cast<std::ptrdiff_t>(size.width), 1};
  }

  std::ptrdiff_t of(std::size_t c, std::size_t y, std::size_t x) const
  {
    return static_cast<std::ptrdiff_t>(c) * channel + static_cast<std::ptrdiff_t>(y) * row +
           static_cast<std::ptrdiff_t>(x) * column;
  }
};

// Bytes that a coder wrote into a buffer.
struct Body
{
  const std::uint8_t * begin;
  const std::uint8_t * end;
};

using Blocks = std::vector<std::uint8_t>;  // what each is, row by row

// Codes what each block of a frame is, by what the ones left of it and above it are.
class MapCoder
{
public:
  // cdf: (values + 1)^2 rows of values + 1 entries, that of left l and above a at
  // l * (values + 1) + a, where `values` stands for what lies outside.
  MapCoder(const std::int32_t * cdf, std::size_t values)
  : values_(values)
  {
    const std::size_t rows = (values + 1) * (values + 1);
    for (std::size_t r = 0; r < rows; ++r, cdf += values + 1) {
      bool valid = cdf[0] == 0 && cdf[values] == static_cast<std::int32_t>(kTotal);
      for (std::size_t v = 0; valid && v < values; ++v) {
        valid = cdf[v + 1] > cdf[v];
      }
      if (!valid) {
        throw std::invalid_argument(
                "expected valid tables of the map, found an error in row " + std::to_string(r));
      }
      for (std::size_t v = 0; v < values; ++v) {
        entries_.push_back(entry_of(cdf[v], cdf[v + 1]));
      }
    }
  }

  std::size_t values() const {return values_;}

  // Bytes of the largest map.
  static std::size_t bound(const Size & size) {return kStateBytes + kWordBytes * size.area();}

  // Fills `buffer` (bound(size) + kWordBytes bytes) from its end; returns where the map lies.
  Body encode(const Blocks & blocks, const Size & size, std::uint8_t * buffer) const
  {
    const std::uint8_t * const end = buffer + bound(size) + kWordBytes;
    Writer writer{buffer + bound(size) + kWordBytes};
    if (is_plain(blocks)) {
      return {end, end};
    }
    std::uint32_t state = kLowest;
    for (std::size_t place = size.area(); place-- > 0; ) {
      writer.put(state, row_of(blocks, place, size)[blocks[place]]);
    }
    writer.put_state(state);
    return {writer.front, end};
  }

  Blocks decode(const std::uint8_t * map, std::size_t bytes, const Size & size) const
  {
    Blocks blocks;
    if (bytes == 0) {
      blocks.assign(size.area(), kFirstClass);
      return blocks;
    }
    if (bytes < kStateBytes || bytes > bound(size) || bytes % kWordBytes != 0) {
      refuse_map(
        "no bytes or an even number of " + std::to_string(kStateBytes) + " to " +
        std::to_string(bound(size)), std::to_string(bytes));
    }
    blocks.resize(size.area());
    Reader reader{map, map + bytes};
    std::uint32_t state = reader.take_state();
    if (state < kLowest) {
      refuse_map("a first state of " + std::to_string(kLowest) + " or more", std::to_string(state));
    }
    for (std::size_t place = 0; place < blocks.size(); ++place) {
      const Entry * const row = row_of(blocks, place, size);
      const std::uint32_t slot = state & (kTotal - 1);
      std::uint8_t value = 0;
      while (slot - (row[value].slots >> 16) >= (row[value].slots & 0xffffu)) {
        ++value;
      }
      const std::uint32_t slots = row[value].slots;
      state = (slots & 0xffffu) * (state >> kPrecision) + slot - (slots >> 16);
      blocks[place] = value;
      if (!reader.refill(state)) {
        refuse_map(
          std::to_string(blocks.size()) + " blocks", "the end after " + std::to_string(place));
      }
    }
    if (reader.left() != 0) {
      refuse_map("the end after the last block", std::to_string(reader.left()) + " more bytes");
    }
    if (state != kLowest) {
      refuse_map("a last state of " + std::to_string(kLowest), std::to_string(state));
    }
    if (is_plain(blocks)) {
      refuse_map("no bytes for a map of class 0 alone", std::to_string(bytes));
    }
    return blocks;
  }

private:
  // A map of class 0 alone takes no bytes.
  static bool is_plain(const Blocks & blocks)
  {
    return std::all_of(
      blocks.begin(), blocks.end(), [](auto value) {return value == kFirstClass;});
  }

  // The entries of all values, in the context of the block at `place`.
  const Entry * row_of(const Blocks & blocks, std::size_t place, const Size & size) const
  {
    const std::size_t left = place % size.width > 0 ? blocks[place - 1] : values_;
    const std::size_t above = place >= size.width ? blocks[place - size.width] : values_;
    return entries_.data() + (left * (values_ + 1) + above) * values_;
  }

  std::size_t values_;
  std::vector<Entry> entries_;
};

// Which symbols of a latent are coded, which of them the states share, and which last ones state 0
// codes alone.
class Layout
{
public:
  Size size;
  std::size_t depth = 0;   // channels of the block that has most
  std::size_t total = 0;
  std::size_t shared = 0;

  // coded: channels of each level. level_of: that of each value of a block, or kNotCoded.
  Layout(
    const Blocks & blocks, const Size & sides, const std::vector<std::size_t> & coded,
    const std::vector<std::int8_t> & level_of)
  : size(sides)
  {
    levels_.reserve(blocks.size());
    for (const std::uint8_t block : blocks) {
      const std::int8_t level = level_of[block];
      levels_.push_back(level);
      if (level != kNotCoded) {
        depth = std::max(depth, coded[static_cast<std::size_t>(level)]);
        total += coded[static_cast<std::size_t>(level)];
      }
    }
    shared = total - std::min(total, kTail);
  }

  // The level of a block.
  std::int8_t level(std::size_t y, std::size_t x) const {return levels_[y * size.width + x];}

  // How many states there are.
  std::size_t lanes() const {return shared > 0 ? kLanes : total > 0 ? 1 : 0;}

  // The state of the symbol at this place of the coding order.
  std::size_t lane(std::size_t index) const {return index < shared ? index % kLanes : 0;}

  // Bytes of the largest body.
  std::size_t bound() const {return kStateBytes * lanes() + kMaxBytesPerSymbol * total;}

private:
  std::vector<std::int8_t> levels_;
};

// A latent in coding order, all channels of a position together. As many channels as are coded
// anywhere; zeros where none is coded.
//
// Its memory is the thread's, and stays: fresh pages would cost as much time as the coding.
class Grid
{
public:
  explicit Grid(const Layout & layout)
  : size_(layout.size), depth_(layout.depth)
  {
    thread_local std::vector<std::int16_t> memory;
    if (memory.size() < size_.area() * depth_) {
      memory.resize(size_.area() * depth_);
    }
    values_ = memory.data();
  }

  // The channels of one position.
  std::int16_t * at(std::size_t y, std::size_t x) const
  {
    return values_ + (y * size_.width + x) * depth_;
  }

  // Zeros where nothing is coded. coded: channels of each level.
  void clear(const Layout & layout, const std::vector<std::size_t> & coded) const
  {
    for (std::size_t y = 0; y < size_.height; ++y) {
      for (std::size_t x = 0; x < size_.width; ++x) {
        const std::int8_t level = layout.level(y, x);
        const std::size_t used = level == kNotCoded ? 0 : coded[static_cast<std::size_t>(level)];
        std::fill_n(at(y, x) + used, depth_ - used, std::int16_t{0});
      }
    }
  }

  // As much as is coded anywhere of symbols with these distances in memory.
  void fill(const std::int16_t * symbols, const Strides & strides) const
  {
    if (strides.channel != 1) {
      each(symbols, strides, [](std::int16_t symbol, std::int16_t & place) {place = symbol;});
      return;
    }
    for (std::size_t y = 0; y < size_.height; ++y) {
      for (std::size_t x = 0; x < size_.width; ++x) {
        std::copy_n(symbols + strides.of(0, y, x), depth_, at(y, x));
      }
    }
  }

  // Calls move(channel's symbol, grid's symbol) for all symbols, tile by tile.
  template<typename Value, typename Move>
  void each(Value * symbols, const Strides & strides, Move && move) const
  {
    constexpr std::size_t kTile = 16;
    for (std::size_t y = 0; y < size_.height; ++y) {
      for (std::size_t x = 0; x < size_.width; x += kTile) {
        const std::size_t columns = std::min(kTile, size_.width - x);
        for (std::size_t c = 0; c < depth_; ++c) {
          Value * const from = symbols + strides.of(c, y, x);
          std::int16_t * const to = at(y, x) + c;
          for (std::size_t i = 0; i < columns; ++i) {
            move(from[static_cast<std::ptrdiff_t>(i) * strides.column], to[i * depth_]);
          }
        }
      }
    }
  }

private:
  Size size_;
  std::size_t depth_;
  std::int16_t * values_;
};

// How large the coded symbols are around each position, to kMostOfNeighbour each, with a border of
// zeros above and to the left; zeros where none is coded. Its memory is kept, as that of Grid.
class Magnitudes
{
public:
  explicit Magnitudes(const Layout & layout)
  : depth_(layout.depth), row_((layout.size.width + 1) * layout.depth)
  {
    thread_local std::vector<std::uint8_t> memory;
    const std::size_t size = (layout.size.height + 1) * row_ + depth_;
    if (memory.size() < size) {
      memory.resize(size);
    }
    std::fill_n(memory.data(), size, std::uint8_t{0});
    first_ = memory.data() + row_ + depth_;
  }

  // The channels of one position; one depth back and one row back are those left and above.
  std::uint8_t * at(std::size_t y, std::size_t x) const {return first_ + y * row_ + x * depth_;}
  std::size_t depth() const {return depth_;}
  std::size_t row() const {return row_;}

  static std::uint8_t of(std::int16_t difference)
  {
    const int magnitude = difference < 0 ? -static_cast<int>(difference) : difference;
    return static_cast<std::uint8_t>(std::min(magnitude, kMostOfNeighbour));
  }

private:
  std::size_t depth_;
  std::size_t row_;
  std::uint8_t * first_;
};

// One summand of a prediction.
struct Input
{
  std::size_t place;   // 0 for the block itself, then left, above, above left, above right
  std::size_t source;  // channel
  std::int64_t weight;
};

// A predicted symbol, and on which side of it the prediction lies.
struct Prediction
{
  std::int32_t symbol = 0;
  std::uint8_t fraction = kMiddle;
};

// Predicts the first channels of a block from those of the blocks around.
class Predictor
{
public:
  // entries: n rows of channel, place, source and weight. ladder: the step of each of `channels`
  // channels at each of `levels` levels.
  Predictor(
    const std::int32_t * entries, std::size_t n, const std::int32_t * ladder, std::size_t levels,
    std::size_t channels)
  : channels_(channels), ladder_(ladder, ladder + levels * channels), inputs_(channels)
  {
    for (std::size_t i = 0; i < ladder_.size(); ++i) {
      if (ladder_[i] < 1 || ladder_[i] > kMaxStep) {
        throw std::invalid_argument(
                "expected valid steps, found an error in level " + std::to_string(i / channels));
      }
      inverses_.push_back(1.0 / (2.0 * static_cast<double>(kOne * ladder_[i])));
    }
    std::size_t last = 0;
    for (std::size_t i = 0; i < n; ++i, entries += 4) {
      const auto channel = static_cast<std::size_t>(entries[0]);
      const auto place = static_cast<std::size_t>(entries[1]);
      const auto source = static_cast<std::size_t>(entries[2]);
      const bool valid = channel < channels && channel >= last && place < kPlaces &&
        source < (place == 0 ? channel : channels) && entries[3] >= -kMostWeight &&
        entries[3] <= kMostWeight && inputs_[channel].size() < kMostInputs;
      if (!valid) {
        throw std::invalid_argument(
                "expected a valid predictor, found an error in row " + std::to_string(i));
      }
      inputs_[channel].push_back({place, source, entries[3]});
      last = channel;
    }
  }

  std::size_t channels() const {return channels_;}

  // Values of a channel's symbol at a level, in the unit of the ladder.
  std::int32_t value(std::size_t level, std::size_t channel, std::int16_t symbol) const
  {
    return symbol * ladder_[level * channels_ + channel];
  }

  // places: the values of the block and of its neighbours, known ones in place of unknown ones.
  Prediction predict(
    std::size_t level, std::size_t channel,
    const std::array<const std::int32_t *, kPlaces> & places) const
  {
    std::int64_t total = 0;
    for (const Input & input : inputs_[channel]) {
      total += input.weight * places[input.place][input.source];
    }
    const std::size_t step = level * channels_ + channel;
    const std::int64_t unit = kOne * ladder_[step];
    // Rounded down. The product is off by less than one, which the comparisons undo: faster than
    // a division, and exact everywhere.
    const std::int64_t twice = 2 * total + unit;
    auto symbol = static_cast<std::int64_t>(static_cast<double>(twice) * inverses_[step]);
    symbol -= twice < symbol * 2 * unit;
    symbol -= twice < symbol * 2 * unit;
    symbol += twice >= (symbol + 1) * 2 * unit;
    symbol = std::min(std::max(symbol, -kFarthest), kFarthest);
    const std::int64_t rest = 6 * (total - unit * symbol);
    const int fraction = kMiddle + (rest >= unit) - (rest < -unit);
    return {static_cast<std::int32_t>(symbol), static_cast<std::uint8_t>(fraction)};
  }

private:
  std::size_t channels_;
  std::vector<std::int32_t> ladder_;
  std::vector<double> inverses_;  // of twice a step, in units of kOne
  std::vector<std::vector<Input>> inputs_;
};

// The values of the predicted channels at each position that others may be predicted from.
class Values
{
public:
  // differences: not 0 for blocks of differences to an earlier frame, which tell nothing.
  Values(const Layout & layout, const std::uint8_t * differences, std::size_t channels)
  : width_(layout.size.width), channels_(channels), known_(layout.size.area())
  {
    thread_local std::vector<std::int32_t> memory;
    const std::size_t size = (layout.size.area() + 1) * channels;
    if (memory.size() < size) {
      memory.resize(size);
    }
    values_ = memory.data() + channels;
    std::fill_n(memory.data(), channels, 0);  // of nothing
    for (std::size_t place = 0; place < known_.size(); ++place) {
      known_[place] = layout.level(place / width_, place % width_) != kNotCoded &&
        differences[place] == 0;
    }
  }

  std::int32_t * at(std::size_t y, std::size_t x) const
  {
    return values_ + (y * width_ + x) * channels_;
  }

  // What a block is predicted from. `known` is false for blocks that are not predicted, and
  // `lone` true where nothing around is known.
  struct Around
  {
    std::array<const std::int32_t *, kPlaces> places;
    bool known;
    bool lone;
  };

  Around around(std::size_t y, std::size_t x) const
  {
    const std::size_t place = y * width_ + x;
    const bool inside = x > 0;
    const auto there = [&](bool exists, std::size_t back) -> const std::int32_t * {
        return exists && known_[place - back] ? values_ + (place - back) * channels_ : nullptr;
      };
    const std::int32_t * left = there(inside, 1);
    const std::int32_t * above = there(y > 0, width_);
    const std::int32_t * above_left = there(y > 0 && inside, width_ + 1);
    const std::int32_t * above_right = there(y > 0 && x + 1 < width_, width_ - 1);
    const bool any = left || above || above_left || above_right;
    if (!left) {
      left = above ? above : above_left ? above_left : above_right;
    }
    if (!left) {
      left = values_ - channels_;
    }
    above = above ? above : left;
    above_left = above_left ? above_left : above;
    above_right = above_right ? above_right : above;
    return {
      {at(y, x), left, above, above_left, above_right}, known_[place] && any,
      known_[place] && !any};
  }

private:
  std::size_t width_;
  std::size_t channels_;
  std::vector<bool> known_;
  std::int32_t * values_;
};

// What the symbols around one count in its activity.
class ActivityWeights
{
public:
  // weights: of each channel those of the four groups of channels before, of its own group, and of
  // the blocks left and above.
  ActivityWeights(
    const std::int32_t * weights, std::size_t channels, std::size_t predicted)
  : of_block_((channels + kReach) * kReach), of_neighbours_(channels)
  {
    for (std::size_t c = 0; c < channels; ++c, weights += kReach + kNeighbours) {
      const std::size_t first = c / kGroup * kGroup;
      const std::size_t end = c < predicted ? c : first;  // of what is decoded before
      bool valid = std::all_of(
        weights, weights + kReach + kNeighbours,
        [](auto weight) {return weight >= 0 && weight <= kMostActivityWeight;});
      for (std::size_t i = 0; valid && i < kReach; ++i) {
        const std::size_t source = first + i;  // with a reach less a group in front
        if (source < kReach - kGroup) {
          continue;
        }
        const std::size_t channel = source - (kReach - kGroup);
        valid = channel < end || weights[i] == 0;
        if (channel < end) {
          const std::size_t target = c - channel / kGroup * kGroup;
          of_block_[channel * kReach + target] = static_cast<std::uint16_t>(weights[i]);
        }
      }
      if (!valid) {
        throw std::invalid_argument(
                "expected valid activity_weights, found an error in channel " + std::to_string(c));
      }
      of_neighbours_[c] = {weights[kReach], weights[kReach + 1]};
    }
  }

  // Of a channel, in the activities of the channels of its group and of the four groups after.
  const std::uint16_t * of_channel(std::size_t c) const {return of_block_.data() + c * kReach;}

  // Of the blocks left and above.
  const std::array<int, kNeighbours> & of_neighbours(std::size_t c) const
  {
    return of_neighbours_[c];
  }

private:
  std::vector<std::uint16_t> of_block_;
  std::vector<std::array<int, kNeighbours>> of_neighbours_;
};

// The activities of the channels of a block, while its symbols become known.
class BlockActivity
{
public:
  BlockActivity(const ActivityWeights & weights, std::size_t depth)
  : weights_(weights), sums_(depth + kReach) {}

  void begin_block() {std::fill(sums_.begin(), sums_.end(), std::uint16_t{0});}

  // Every sum stays below 2^16: at most 40 · 3 · 255.
  void add(std::size_t channel, std::uint8_t magnitude)
  {
    if (magnitude == 0) {
      return;
    }
    const int most = std::min<int>(magnitude, kMostOfBlock);
    const std::uint16_t * const weights = weights_.of_channel(channel);
    std::uint16_t * const sums = sums_.data() + channel / kGroup * kGroup;
    for (std::size_t i = 0; i < kReach; ++i) {
      sums[i] = static_cast<std::uint16_t>(sums[i] + most * weights[i]);
    }
  }

  // left, above: the magnitudes of the blocks there in this channel.
  std::size_t of(std::size_t channel, int left, int above) const
  {
    const auto & weights = weights_.of_neighbours(channel);
    const int sum = sums_[channel] + weights[0] * left + weights[1] * above;
    return static_cast<std::size_t>(std::min(sum >> kActivityBits, kMostActivity));
  }

private:
  const ActivityWeights & weights_;
  std::vector<std::uint16_t> sums_;
};

// Tables as they come from outside, each with its number of entries.
struct Numbers
{
  const std::int32_t * values;
  std::size_t count;
};

class Coder
{
public:
  // cdf: rows of `columns` entries: level by level those of its channels, of each in all contexts.
  // bounds: of the contexts. coded: channels of each level.
  Coder(
    const std::int32_t * cdf, std::size_t rows, std::size_t columns, const std::int32_t * lengths,
    const std::int32_t * offsets, Numbers bounds, Numbers coded, Predictor predictor, MapCoder map,
    ActivityWeights weights)
  : contexts_(bounds.count + 1), predictor_(std::move(predictor)), map_(std::move(map)),
    weights_(std::move(weights))
  {
    add_levels(coded, rows);
    add_tables(cdf, rows, columns, lengths, offsets);
    for (std::size_t i = 0; i < bounds.count; ++i) {
      const std::int32_t bound = bounds.values[i];
      if (bound < 1 || bound > kMostActivity || (i > 0 && bound <= bounds.values[i - 1])) {
        throw std::invalid_argument(
                "expected rising bounds of 1 to 255, found an error in bound " +
                std::to_string(i));
      }
    }
    for (std::int32_t activity = 0; activity <= kMostActivity; ++activity) {
      const std::int32_t * const end = bounds.values + bounds.count;
      context_of_.push_back(
        static_cast<std::size_t>(std::upper_bound(bounds.values, end, activity) - bounds.values));
    }
  }

  Coder(const Coder &) = delete;  // tables point into memory_, which only a move takes along
  Coder(Coder &&) = default;

  std::size_t channels() const {return channels_;}
  std::size_t levels() const {return coded_.size();}
  const MapCoder & map() const {return map_;}

  // What of a latent with these blocks is coded; levels: of each class.
  Layout layout(
    const Blocks & blocks, const Size & size, const std::vector<std::uint8_t> & levels) const
  {
    std::vector<std::int8_t> level_of(kFirstClass, kNotCoded);
    for (const std::uint8_t level : levels) {
      level_of.push_back(static_cast<std::int8_t>(level));
    }
    return Layout(blocks, size, coded_, level_of);
  }

  // Fills `buffer` (layout.bound() + kWordBytes bytes) from its end; returns where the body lies.
  // temporal: not 0 for blocks of differences to an earlier frame.
  Body encode(
    const std::int16_t * symbols, const Strides & strides, const Layout & layout,
    const std::uint8_t * temporal, std::uint8_t * buffer) const
  {
    const Grid grid(layout);
    grid.fill(symbols, strides);
    grid.clear(layout, coded_);
    const Magnitudes magnitudes(layout);
    const std::vector<std::uint8_t> fractions = subtract_predictions(
      grid, magnitudes, layout, temporal);
    Writer writer{buffer + layout.bound() + kWordBytes};
    const std::uint8_t * end = writer.front;
    States states;
    states.fill(kLowest);
    std::vector<const Table *> tables(layout.depth);
    BlockActivity activity(weights_, layout.depth);
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
    for (std::size_t y = layout.size.height; y-- > 0; ) {
      for (std::size_t x = layout.size.width; x-- > 0; ) {
        const std::int8_t level = layout.level(y, x);
        if (level == kNotCoded) {
          continue;
        }
        const std::int16_t * values = grid.at(y, x);
        const std::uint8_t * const fraction =
          fractions.data() + (y * layout.size.width + x) * predictor_.channels();
        std::size_t c = coded_[static_cast<std::size_t>(level)];
        const std::uint8_t * const magnitude = magnitudes.at(y, x);
        activity.begin_block();
        for (std::size_t i = 0; i < std::min(c, predictor_.channels()); ++i) {
          Prediction prediction;
          prediction.fraction = fraction[i] & (kLone - 1);
          const bool lone = (fraction[i] & kLone) != 0;
          tables[i] = table_of(
            static_cast<std::size_t>(level), i, activity, magnitudes, magnitude, prediction, lone);
          activity.add(i, magnitude[i]);
        }
        for (std::size_t i = predictor_.channels(); i < c; ) {
          const std::size_t end_of_group = std::min(i / kGroup * kGroup + kGroup, c);
          choose_tables(
            static_cast<std::size_t>(level), i, end_of_group, activity, magnitudes, magnitude,
            tables.data() + i);
          for (; i < end_of_group; ++i) {
            activity.add(i, magnitude[i]);
          }
        }
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
    for (std::size_t lane = layout.lanes(); lane-- > 0; ) {
      writer.put_state(states[lane]);
    }
    return {writer.front, end};
  }

  // Throws if no body of this layout has so many bytes.
  static void check_size(std::size_t bytes, const Layout & layout)
  {
    const std::size_t head = kStateBytes * layout.lanes();
    if (bytes < head || bytes > layout.bound() || bytes % kWordBytes != 0) {
      refuse(
        "an even number of " + std::to_string(head) + " to " + std::to_string(layout.bound()) +
        " bytes", std::to_string(bytes));
    }
  }

  // bytes: of a number that check_size lets pass. temporal: as for encode.
  void decode(
    const std::uint8_t * body, std::size_t bytes, std::int16_t * symbols, const Layout & layout,
    const std::uint8_t * temporal) const
  {
    const Grid grid(layout);
    grid.clear(layout, coded_);
    const Magnitudes magnitudes(layout);
    const Values values(layout, temporal, predictor_.channels());
    Reader reader{body, body + bytes};
    States states = take_head(reader, layout);
    Tail tail;
    std::array<const Table *, kLanes> tables;
    BlockActivity activity(weights_, layout.depth);
    std::size_t index = 0;
    for (std::size_t y = 0; y < layout.size.height; ++y) {
      for (std::size_t x = 0; x < layout.size.width; ++x) {
        if (layout.level(y, x) == kNotCoded) {
          continue;
        }
        const auto level = static_cast<std::size_t>(layout.level(y, x));
        const std::size_t coded = coded_[level];
        std::int16_t * const here = grid.at(y, x);
        std::uint8_t * const magnitude = magnitudes.at(y, x);
        std::int32_t * const value = values.at(y, x);
        std::fill_n(value, predictor_.channels(), 0);
        const Values::Around around = values.around(y, x);
        activity.begin_block();
        for (std::size_t first = 0; first < coded; first += kLanes) {
          const std::size_t end = std::min(first + kLanes, coded);
          const bool predicted = first < predictor_.channels();
          std::size_t c = first;
          if (!predicted) {
            choose_tables(level, first, end, activity, magnitudes, magnitude, tables.data());
            if (index % kLanes == 0 && index + kLanes <= layout.shared && end - first == kLanes) {
              c += take_group(reader, states, tables.data(), here + first);
              index += c - first;
            }
          }
          for (; c < end; ++c, ++index) {
            if (index == layout.shared && index > 0) {
              reader = tail.begin(reader, states, layout);
            }
            Prediction prediction;
            const Table * table = tables[c - first];
            if (predicted) {
              if (c < predictor_.channels() && around.known) {
                prediction = predictor_.predict(level, c, around.places);
              }
              table = table_of(level, c, activity, magnitudes, magnitude, prediction, around.lone);
            }
            if (!reader.take_symbol(states[layout.lane(index)], *table, c, here[c])) {
              refuse_end(layout, index);
            }
            magnitude[c] = Magnitudes::of(here[c]);
            if (c < predictor_.channels()) {
              activity.add(c, magnitude[c]);
              here[c] = static_cast<std::int16_t>(here[c] + prediction.symbol);
              value[c] = predictor_.value(level, c, here[c]);
            }
          }
          for (std::size_t i = std::max(first, predictor_.channels()); i < end; ++i) {
            magnitude[i] = Magnitudes::of(here[i]);
            activity.add(i, magnitude[i]);
          }
        }
      }
    }
    tail.finish(reader, states);
    grid.each(
      symbols, Strides::of_planes(layout.size),
      [](std::int16_t & symbol, std::int16_t place) {symbol = place;});
    const std::size_t plane = layout.size.area();
    std::fill_n(
      symbols + layout.depth * plane, (channels_ - layout.depth) * plane, std::int16_t{0});
  }

private:
  void add_levels(Numbers coded, std::size_t rows)
  {
    if (coded.count < 1 || coded.count > kMaxLevels) {
      throw std::invalid_argument(
              "expected coded channels for each of 1 to " + std::to_string(kMaxLevels) +
              " levels, found " + std::to_string(coded.count));
    }
    std::size_t row = 0;
    for (std::size_t l = 0; l < coded.count; ++l) {
      const auto count = static_cast<std::size_t>(coded.values[l]);
      if (coded.values[l] < 1 || count > rows || rows_before(count) > rows - row) {
        throw std::invalid_argument(
                "expected valid levels, found an error in level " + std::to_string(l));
      }
      coded_.push_back(count);
      first_rows_.push_back(row);
      channels_ = std::max(channels_, count);
      row += rows_before(count);
    }
    if (row != rows) {
      throw std::invalid_argument(
              "expected " + std::to_string(row) + " rows, found " + std::to_string(rows));
    }
    if (predictor_.channels() > channels_) {
      throw std::invalid_argument(
              "expected at most " + std::to_string(channels_) + " predicted channels, found " +
              std::to_string(predictor_.channels()));
    }
  }

  // The rows of a level's channels before this one.
  std::size_t rows_before(std::size_t channel) const
  {
    return contexts_ * (channel + (kFractions - 1) * std::min(channel, predictor_.channels()));
  }

  void add_tables(
    const std::int32_t * cdf, std::size_t rows, std::size_t columns, const std::int32_t * lengths,
    const std::int32_t * offsets)
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
  }

  // The last symbols of a body: its own last words, and those that states 1 to 7 have kept.
  class Tail
  {
public:
    Reader begin(const Reader & body, const States & states, const Layout & layout)
    {
      begun_ = true;
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
      const bool spare = begun_ && rest_ == 0 &&
        std::all_of(reader.next, reader.end, [](auto byte) {return byte == 0;});
      if (reader.left() != 0 && !spare) {
        refuse("the end after the last symbol", std::to_string(reader.left()) + " more bytes");
      }
      if (states[0] != kLowest) {
        refuse(
          "a last state of " + std::to_string(kLowest),
          std::to_string(states[0]) + " in state 0");
      }
    }

private:
    bool begun_ = false;
    std::size_t rest_ = 0;
    std::array<std::uint8_t, kMaxBytesPerSymbol * kTail + kLanes * kWordBytes> words_;
  };

  // Replaces symbols by their differences to predictions, and fills in the magnitudes. Returns the
  // fractions of the predictions: of each position those of the predicted channels.
  std::vector<std::uint8_t> subtract_predictions(
    const Grid & grid, const Magnitudes & magnitudes, const Layout & layout,
    const std::uint8_t * temporal) const
  {
    const std::size_t channels = predictor_.channels();
    const Values values(layout, temporal, channels);
    std::vector<std::uint8_t> fractions(layout.size.area() * channels, kMiddle);
    for (std::size_t y = 0; y < layout.size.height; ++y) {
      for (std::size_t x = 0; x < layout.size.width; ++x) {
        if (layout.level(y, x) == kNotCoded) {
          continue;
        }
        const auto level = static_cast<std::size_t>(layout.level(y, x));
        std::int16_t * const here = grid.at(y, x);
        std::uint8_t * const fraction =
          fractions.data() + (y * layout.size.width + x) * channels;
        std::int32_t * const value = values.at(y, x);
        std::fill_n(value, channels, 0);
        const Values::Around around = values.around(y, x);
        for (std::size_t c = 0; c < std::min(channels, coded_[level]); ++c) {
          value[c] = predictor_.value(level, c, here[c]);
          if (around.known) {
            const Prediction prediction = predictor_.predict(level, c, around.places);
            here[c] = static_cast<std::int16_t>(here[c] - prediction.symbol);
            fraction[c] = prediction.fraction;
          } else if (around.lone) {
            fraction[c] |= kLone;
          }
        }
        std::uint8_t * const magnitude = magnitudes.at(y, x);
        for (std::size_t c = 0; c < coded_[level]; ++c) {
          magnitude[c] = Magnitudes::of(here[c]);
        }
      }
    }
    return fractions;
  }

  // The table of a symbol. magnitude: of this block.
  const Table * table_of(
    std::size_t level, std::size_t channel, const BlockActivity & activity,
    const Magnitudes & magnitudes, const std::uint8_t * magnitude, const Prediction & prediction,
    bool lone) const
  {
    const std::size_t context = context_at(channel, activity, magnitudes, magnitude);
    const Table * const table = tables_.data() + first_rows_[level] + rows_before(channel);
    if (channel >= predictor_.channels()) {
      return table + context;
    }
    return table + kFractions * (lone ? contexts_ - 1 : context) + prediction.fraction;
  }

  std::size_t context_at(
    std::size_t channel, const BlockActivity & activity, const Magnitudes & magnitudes,
    const std::uint8_t * magnitude) const
  {
    const std::uint8_t * const here = magnitude + channel;
    return context_of_[activity.of(
          channel, *(here - magnitudes.depth()), *(here - magnitudes.row()))];
  }

  // The tables of channels `first` to `end` of a group, which are not predicted.
  void choose_tables(
    std::size_t level, std::size_t first, std::size_t end, const BlockActivity & activity,
    const Magnitudes & magnitudes, const std::uint8_t * magnitude, const Table ** tables) const
  {
    const Table * table = tables_.data() + first_rows_[level] + rows_before(first);
    for (std::size_t c = first; c < end; ++c, table += contexts_) {
      *tables++ = table + context_at(c, activity, magnitudes, magnitude);
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

  // Decodes eight symbols, one from each state. Returns eight, or 0 where one of them is an escape
  // or the body may end within them: then nothing has changed. No branch in here depends on data
  // that is hard to predict, which is what makes it fast.
  static std::size_t take_group(
    Reader & reader, States & states, const Table * const * tables, std::int16_t * values)
  {
    if (reader.left() < kGroupBytes) {
      return 0;
    }
    States next;
    bool escaped = false;
    each_lane([&](auto lane) {
      const Table & table = *tables[lane];
      const std::uint32_t state = states[lane];
      const Found found = find(table, state & (kTotal - 1));
      next[lane] = found.frequency * (state >> kPrecision) + found.distance;
      values[lane] = value_of(table, found.symbol);
      escaped |= found.symbol == table.escape;
    });
    if (escaped) {
      return 0;
    }
    const std::uint8_t * bytes = reader.next;
    each_lane([&](auto lane) {
      const std::uint32_t low = next[lane] < kLowest;
      states[lane] = next[lane] << kWordBits * low | (word_at(bytes) & (0u - low));
      bytes += kWordBytes * low;
    });
    reader.next = bytes;
    return kLanes;
  }

  static States take_head(Reader & reader, const Layout & layout)
  {
    States states;
    states.fill(kLowest);
    for (std::size_t lane = 0; lane < layout.lanes(); ++lane) {
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
  std::size_t channels_ = 0;
  Predictor predictor_;
  MapCoder map_;
  ActivityWeights weights_;
  std::vector<std::size_t> coded_;       // channels of each level
  std::vector<std::size_t> first_rows_;  // of each level
  Memory memory_;
  std::vector<Table> tables_;
  std::vector<std::size_t> context_of_;  // an activity -> its context
};

using Int32Array = py::array_t<std::int32_t, py::array::c_style>;
using Int16Array = py::array_t<std::int16_t, py::array::c_style>;
using SymbolArray = py::array_t<std::int16_t, 0>;  // in any layout
using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;

Numbers numbers_of(const Int32Array & array)
{
  return {array.data(), static_cast<std::size_t>(array.size())};
}

Coder make_coder(
  const Int32Array & cdf, const Int32Array & lengths, const Int32Array & offsets,
  const Int32Array & bounds, const Int32Array & coded_channels, const Int32Array & ladder,
  const Int32Array & predictor, const Int32Array & map_cdf, const Int32Array & activity_weights)
{
  if (cdf.ndim() != 2 || lengths.ndim() != 1 || offsets.ndim() != 1 || bounds.ndim() != 1 ||
    coded_channels.ndim() != 1 || ladder.ndim() != 2 || predictor.ndim() != 2 ||
    lengths.shape(0) != cdf.shape(0) || offsets.shape(0) != cdf.shape(0) || cdf.shape(0) < 1 ||
    bounds.shape(0) > kMostActivity || ladder.shape(0) != coded_channels.shape(0) ||
    predictor.shape(1) != 4)
  {
    throw py::value_error(
            "expected tables cdf [R, N], lengths [R], offsets [R], bounds [K - 1], "
            "coded_channels [L], ladder [L, M], predictor [n, 4]");
  }
  const py::ssize_t classes = map_cdf.ndim() == 2 ? map_cdf.shape(1) - 3 : 0;
  if (classes < 1 || classes > static_cast<py::ssize_t>(kMaxClasses) ||
    map_cdf.shape(0) != (classes + 3) * (classes + 3))
  {
    throw py::value_error(
            "expected map_cdf [(P + 3)^2, P + 3] of 1 to " + std::to_string(kMaxClasses) +
            " classes");
  }
  std::int32_t most = 0;
  for (py::ssize_t level = 0; level < coded_channels.size(); ++level) {
    most = std::max(most, coded_channels.data()[level]);
  }
  const auto channels = static_cast<std::size_t>(most);
  if (activity_weights.ndim() != 2 || activity_weights.shape(0) != most ||
    activity_weights.shape(1) != static_cast<py::ssize_t>(kReach + kNeighbours))
  {
    throw py::value_error(
            "expected activity_weights [" + std::to_string(channels) + ", " +
            std::to_string(kReach + kNeighbours) + "]");
  }
  return Coder(
    cdf.data(), static_cast<std::size_t>(cdf.shape(0)), static_cast<std::size_t>(cdf.shape(1)),
    lengths.data(), offsets.data(), numbers_of(bounds), numbers_of(coded_channels),
    Predictor(
      predictor.data(), static_cast<std::size_t>(predictor.shape(0)), ladder.data(),
      static_cast<std::size_t>(ladder.shape(0)), static_cast<std::size_t>(ladder.shape(1))),
    MapCoder(map_cdf.data(), static_cast<std::size_t>(classes) + kFirstClass),
    ActivityWeights(
      activity_weights.data(), channels, static_cast<std::size_t>(ladder.shape(1))));
}

// Checked before any product of sizes is formed, so that none can wrap around.
Size checked_size(const Coder & coder, py::ssize_t height, py::ssize_t width)
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
  return {static_cast<std::size_t>(height), static_cast<std::size_t>(width)};
}

std::vector<std::uint8_t> checked_levels(const Coder & coder, const ByteArray & levels)
{
  const std::size_t classes = coder.map().values() - kFirstClass;
  bool valid = levels.ndim() == 1 && static_cast<std::size_t>(levels.size()) == classes;
  for (py::ssize_t c = 0; valid && c < levels.size(); ++c) {
    valid = levels.data()[c] < coder.levels();
  }
  if (!valid) {
    throw py::value_error(
            "expected a level of 0 to " + std::to_string(coder.levels() - 1) + " for each of " +
            std::to_string(classes) + " classes");
  }
  return {levels.data(), levels.data() + levels.size()};
}

// A copy, so that nobody can change them later on.
Blocks checked_blocks(const Coder & coder, const ByteArray & blocks, const Size & size)
{
  if (blocks.ndim() != 2 || static_cast<std::size_t>(blocks.shape(0)) != size.height ||
    static_cast<std::size_t>(blocks.shape(1)) != size.width)
  {
    throw py::value_error(
            "expected blocks [" + std::to_string(size.height) + ", " + std::to_string(size.width) +
            "]");
  }
  Blocks copy(blocks.data(), blocks.data() + blocks.size());
  const auto largest = *std::max_element(copy.begin(), copy.end());
  if (largest >= coder.map().values()) {
    throw py::value_error(
            "expected blocks of 0 to " + std::to_string(coder.map().values() - 1) + ", found " +
            std::to_string(largest));
  }
  return copy;
}

// The end of the thread's own memory, which is kept, as Grid's is.
template<int purpose>
std::uint8_t * memory_of(std::size_t size)
{
  thread_local std::vector<std::uint8_t> buffer;
  if (buffer.size() < size) {
    buffer.resize(size);
  }
  return buffer.data() + (buffer.size() - size);
}

Strides checked_strides(const SymbolArray & symbols)
{
  constexpr auto bytes = static_cast<py::ssize_t>(sizeof(std::int16_t));
  bool aligned = reinterpret_cast<std::uintptr_t>(symbols.data()) % alignof(std::int16_t) == 0;
  for (py::ssize_t axis = 0; axis < 3; ++axis) {
    aligned = aligned && symbols.strides(axis) % bytes == 0;
  }
  if (!aligned) {
    throw py::value_error("expected symbols that are aligned");
  }
  return {symbols.strides(0) / bytes, symbols.strides(1) / bytes, symbols.strides(2) / bytes};
}

py::bytes bytes_of(const Body & body)
{
  return py::bytes(
    reinterpret_cast<const char *>(body.begin), static_cast<std::size_t>(body.end - body.begin));
}

// Of blocks [h, w].
void check_temporal(const ByteArray & temporal, const Size & size)
{
  if (temporal.ndim() != 2 || static_cast<std::size_t>(temporal.shape(0)) != size.height ||
    static_cast<std::size_t>(temporal.shape(1)) != size.width)
  {
    throw py::value_error(
            "expected temporal blocks [" + std::to_string(size.height) + ", " +
            std::to_string(size.width) + "]");
  }
}

py::tuple encode(
  const Coder & coder, const SymbolArray & symbols, const ByteArray & blocks,
  const ByteArray & levels, const ByteArray & temporal)
{
  if (symbols.ndim() != 3 || static_cast<std::size_t>(symbols.shape(0)) != coder.channels()) {
    throw py::value_error(
            "expected symbols [" + std::to_string(coder.channels()) + ", H, W]");
  }
  const Size size = checked_size(coder, symbols.shape(1), symbols.shape(2));
  const Strides strides = checked_strides(symbols);
  const Blocks map = checked_blocks(coder, blocks, size);
  const auto level_of_class = checked_levels(coder, levels);
  check_temporal(temporal, size);
  const std::int16_t * values = symbols.data();
  const std::uint8_t * differences = temporal.data();
  Body coded_map{};
  Body body{};
  {
    py::gil_scoped_release released;
    const Layout layout = coder.layout(map, size, level_of_class);
    coded_map = coder.map().encode(
      map, size, memory_of<0>(MapCoder::bound(size) + kWordBytes));
    body = coder.encode(
      values, strides, layout, differences, memory_of<1>(layout.bound() + kWordBytes));
  }
  return py::make_tuple(bytes_of(coded_map), bytes_of(body));
}

struct View
{
  const std::uint8_t * data;
  std::size_t size;

  explicit View(const py::bytes & bytes)
  {
    char * start = nullptr;
    py::ssize_t length = 0;
    if (PyBytes_AsStringAndSize(bytes.ptr(), &start, &length) != 0) {
      throw py::error_already_set();
    }
    data = reinterpret_cast<const std::uint8_t *>(start);
    size = static_cast<std::size_t>(length);
  }
};

ByteArray decode_map(
  const Coder & coder, const py::bytes & map, py::ssize_t height, py::ssize_t width)
{
  const Size size = checked_size(coder, height, width);
  const View coded(map);
  const Blocks blocks = coder.map().decode(coded.data, coded.size, size);
  ByteArray decoded({height, width});
  std::copy(blocks.begin(), blocks.end(), decoded.mutable_data());
  return decoded;
}

Int16Array decode_body(
  const Coder & coder, const py::bytes & body, const ByteArray & blocks, const ByteArray & levels,
  const ByteArray & temporal)
{
  if (blocks.ndim() != 2) {
    throw py::value_error("expected blocks [h, w]");
  }
  const Size size = checked_size(coder, blocks.shape(0), blocks.shape(1));
  const Blocks map = checked_blocks(coder, blocks, size);
  const auto level_of_class = checked_levels(coder, levels);
  check_temporal(temporal, size);
  const View coded(body);
  const Layout layout = coder.layout(map, size, level_of_class);
  Coder::check_size(coded.size, layout);  // before anything is allocated for its symbols
  Int16Array symbols(
    {static_cast<py::ssize_t>(coder.channels()), blocks.shape(0), blocks.shape(1)});
  std::int16_t * values = symbols.mutable_data();
  const std::uint8_t * differences = temporal.data();
  {
    py::gil_scoped_release released;
    coder.decode(coded.data, coded.size, values, layout, differences);
  }
  return symbols;
}

}  // namespace

PYBIND11_MODULE(_rans, module)
{
  module.doc() = "Interleaved rANS for tables with levels and contexts (see docs/bitstream.md).";
  py::class_<Coder>(module, "Coder")
  .def(
    py::init(&make_coder), py::arg("cdf").noconvert(), py::arg("lengths").noconvert(),
    py::arg("offsets").noconvert(), py::arg("bounds").noconvert(),
    py::arg("coded_channels").noconvert(), py::arg("ladder").noconvert(),
    py::arg("predictor").noconvert(), py::arg("map_cdf").noconvert(),
    py::arg("activity_weights").noconvert())
  .def(
    "encode", &encode, py::arg("symbols").noconvert(), py::arg("blocks").noconvert(),
    py::arg("levels").noconvert(), py::arg("temporal").noconvert())
  .def("decode_map", &decode_map, py::arg("map"), py::arg("height"), py::arg("width"))
  .def(
    "decode_body", &decode_body, py::arg("body"), py::arg("blocks").noconvert(),
    py::arg("levels").noconvert(), py::arg("temporal").noconvert());
}
