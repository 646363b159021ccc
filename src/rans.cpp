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
constexpr std::int16_t kFarthest = 127;  // a bound between two contexts, at most, and its negative
constexpr std::int16_t kBelowAll = -128;  // below all bounds
constexpr std::uint8_t kFirstClass = 2;  // a block of class 0; smaller ones are not coded
constexpr std::size_t kMaxClasses = 6;
constexpr std::size_t kMaxLevels = 64;
constexpr std::int8_t kNotCoded = -1;  // in place of a level
constexpr std::int32_t kMaxStep = 1 << 24;  // of a ladder
constexpr std::uint64_t kMaxRatio = 0xffff;  // between two levels, in 1/256
constexpr std::uint32_t kFarthestNeighbour = 4095;  // that a symbol of another level counts as

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
  : size(sides), levels_((sides.height + 1) * (sides.width + 1), kNotCoded)
  {
    for (std::size_t y = 0; y < sides.height; ++y) {
      for (std::size_t x = 0; x < sides.width; ++x) {
        const std::int8_t level = level_of[blocks[y * sides.width + x]];
        levels_[(y + 1) * row() + x + 1] = level;
        if (level != kNotCoded) {
          depth = std::max(depth, coded[static_cast<std::size_t>(level)]);
          total += coded[static_cast<std::size_t>(level)];
        }
      }
    }
    shared = total - std::min(total, kTail);
  }

  // The level of a block; one row back and one place back are those above and left of it.
  const std::int8_t * level(std::size_t y, std::size_t x) const
  {
    return levels_.data() + (y + 1) * row() + x + 1;
  }

  std::size_t row() const {return size.width + 1;}

  // How many states there are.
  std::size_t lanes() const {return shared > 0 ? kLanes : total > 0 ? 1 : 0;}

  // The state of the symbol at this place of the coding order.
  std::size_t lane(std::size_t index) const {return index < shared ? index % kLanes : 0;}

  // Bytes of the largest body.
  std::size_t bound() const {return kStateBytes * lanes() + kMaxBytesPerSymbol * total;}

private:
  std::vector<std::int8_t> levels_;  // with a border above and to the left
};

// A latent in coding order, all channels of a position together, with a border of zeros above and
// to the left: what the contexts of the first row and column see. As many channels as are coded
// anywhere; zeros where none is coded.
//
// Its memory is the thread's, and stays: fresh pages would cost as much time as the coding.
class Grid
{
public:
  explicit Grid(const Layout & layout)
  : size_(layout.size), depth_(layout.depth), row_((layout.size.width + 1) * layout.depth)
  {
    thread_local std::vector<std::int16_t> memory;
    const std::size_t size = (size_.height + 1) * row_;
    if (memory.size() < size) {
      memory.resize(size);
    }
    values_ = memory.data();
    std::fill_n(values_, row_, std::int16_t{0});
    for (std::size_t y = 1; y <= size_.height; ++y) {
      std::fill_n(values_ + y * row_, depth_, std::int16_t{0});
    }
  }

  // The channels of one position.
  std::int16_t * at(std::size_t y, std::size_t x) const
  {
    return values_ + (y + 1) * row_ + (x + 1) * depth_;
  }

  // Zeros where nothing is coded. coded: channels of each level.
  void clear(const Layout & layout, const std::vector<std::size_t> & coded) const
  {
    for (std::size_t y = 0; y < size_.height; ++y) {
      for (std::size_t x = 0; x < size_.width; ++x) {
        const std::int8_t level = *layout.level(y, x);
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

  std::size_t depth() const {return depth_;}
  std::size_t row() const {return row_;}

private:
  Size size_;
  std::size_t depth_;
  std::size_t row_;
  std::int16_t * values_;
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
  // bounds: of the contexts. coded: channels of each level. ladder: step of each level.
  Coder(
    const std::int32_t * cdf, std::size_t rows, std::size_t columns, const std::int32_t * lengths,
    const std::int32_t * offsets, Numbers bounds, Numbers coded, Numbers ladder, MapCoder map)
  : contexts_(bounds.count + 1), map_(std::move(map))
  {
    add_levels(coded, ladder, rows);
    add_tables(cdf, rows, columns, lengths, offsets);
    for (std::size_t i = 0; i < bounds.count; ++i) {
      const std::int32_t bound = bounds.values[i];
      if (bound < -kFarthest || bound > kFarthest || (i > 0 && bound <= bounds.values[i - 1])) {
        throw std::invalid_argument(
                "expected rising bounds of -127 to 127, found an error in bound " +
                std::to_string(i));
      }
    }
    for (std::int32_t sum = kBelowAll; sum <= kFarthest; ++sum) {
      const std::int32_t * const end = bounds.values + bounds.count;
      const auto context = std::upper_bound(bounds.values, end, sum) - bounds.values;
      context_of_.push_back(static_cast<std::uint8_t>(context));
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
  Body encode(
    const std::int16_t * symbols, const Strides & strides, const Layout & layout,
    std::uint8_t * buffer) const
  {
    const Grid grid(layout);
    grid.fill(symbols, strides);
    grid.clear(layout, coded_);
    Writer writer{buffer + layout.bound() + kWordBytes};
    const std::uint8_t * end = writer.front;
    States states;
    states.fill(kLowest);
    Choice choice(layout.depth);
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
        const std::int8_t * const level = layout.level(y, x);
        if (*level == kNotCoded) {
          continue;
        }
        const std::int16_t * values = grid.at(y, x);
        choose_tables(values, grid, level, layout.row(), choice);
        std::size_t c = coded_[static_cast<std::size_t>(*level)];
        while (c > 0) {
          if (in_tail && index == layout.shared) {
            leave_tail();
          }
          if (!in_tail && c >= kLanes && index % kLanes == 0) {
            const std::size_t grouped = c - c % kLanes;
            c -= grouped;
            index -= grouped;
            put_groups(writer, states, choice.tables.data() + c, values + c, grouped);
            continue;
          }
          --c;
          --index;
          writer.put_symbol(states[layout.lane(index)], *choice.tables[c], values[c]);
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

  // bytes: of a number that check_size lets pass.
  void decode(
    const std::uint8_t * body, std::size_t bytes, std::int16_t * symbols,
    const Layout & layout) const
  {
    const Grid grid(layout);
    grid.clear(layout, coded_);
    Reader reader{body, body + bytes};
    States states = take_head(reader, layout);
    Tail tail;
    Choice choice(layout.depth);
    std::size_t index = 0;
    for (std::size_t y = 0; y < layout.size.height; ++y) {
      for (std::size_t x = 0; x < layout.size.width; ++x) {
        const std::int8_t * const level = layout.level(y, x);
        if (*level == kNotCoded) {
          continue;
        }
        std::int16_t * values = grid.at(y, x);
        choose_tables(values, grid, level, layout.row(), choice);
        const std::size_t coded = coded_[static_cast<std::size_t>(*level)];
        std::size_t c = 0;
        while (c < coded) {
          if (index == layout.shared && index > 0) {
            reader = tail.begin(reader, states, layout);
          }
          std::size_t alone = 1;  // where groups cross a position, and in the tail
          if (index % kLanes == 0 && index + kLanes <= layout.shared && c + kLanes <= coded) {
            std::size_t count = std::min(coded - c, layout.shared - index);
            count -= count % kLanes;
            const std::size_t done = take_groups(
              reader, states, choice.tables.data() + c, values + c, count);
            c += done;
            index += done;
            alone = done < count ? kLanes : 0;
          }
          for (; alone > 0; --alone, ++c, ++index) {
            std::uint32_t & state = states[layout.lane(index)];
            if (!reader.take_symbol(state, *choice.tables[c], c, values[c])) {
              refuse_end(layout, index);
            }
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
  // The tables of a position's channels, and what it takes to choose them.
  struct Choice
  {
    explicit Choice(std::size_t depth)
    : tables(depth), sums(depth), left(depth), above(depth), corner(depth) {}

    std::int8_t level = kNotCoded;  // that `tables` are of, where there is one context
    std::vector<const Table *> tables;
    std::vector<std::int16_t> sums;
    std::vector<std::int16_t> left, above, corner;  // symbols of other levels, in this one's steps
  };

  void add_levels(Numbers coded, Numbers ladder, std::size_t rows)
  {
    if (coded.count < 1 || coded.count > kMaxLevels || ladder.count != coded.count) {
      throw std::invalid_argument(
              "expected coded channels and a step for each of 1 to " + std::to_string(kMaxLevels) +
              " levels, found " + std::to_string(coded.count) + " and " +
              std::to_string(ladder.count));
    }
    std::size_t row = 0;
    for (std::size_t l = 0; l < coded.count; ++l) {
      const std::int32_t step = ladder.values[l];
      const std::size_t left = (rows - row) / contexts_;
      if (coded.values[l] < 1 || static_cast<std::size_t>(coded.values[l]) > left || step < 1 ||
        step > kMaxStep)
      {
        throw std::invalid_argument(
                "expected valid levels, found an error in level " + std::to_string(l));
      }
      const auto count = static_cast<std::size_t>(coded.values[l]);
      coded_.push_back(count);
      first_rows_.push_back(row);
      channels_ = std::max(channels_, count);
      row += count * contexts_;
    }
    if (row != rows) {
      throw std::invalid_argument(
              "expected " + std::to_string(row) + " rows, found " + std::to_string(rows));
    }
    for (std::size_t from = 0; from < coded.count; ++from) {
      for (std::size_t to = 0; to < coded.count; ++to) {
        const auto step = static_cast<std::uint64_t>(ladder.values[to]);
        const auto ratio =
          (512 * static_cast<std::uint64_t>(ladder.values[from]) + step) / (2 * step);
        ratios_.push_back(static_cast<std::uint32_t>(std::min(ratio, kMaxRatio)));
      }
    }
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

  // Each channel's table at a position, by the bounds that 2 left + 2 above - above left reaches.
  // level: that of the position, as Layout::level gives it; `row` back is that above.
  void choose_tables(
    const std::int16_t * here, const Grid & grid, const std::int8_t * level, std::size_t row,
    Choice & choice) const
  {
    const auto own = static_cast<std::size_t>(*level);
    const std::size_t coded = coded_[own];
    const Table * table = tables_.data() + first_rows_[own];
    const Table ** const tables = choice.tables.data();
    if (contexts_ == 1) {
      for (std::size_t c = 0; choice.level != *level && c < coded; ++c) {
        tables[c] = table + c;
      }
      choice.level = *level;
      return;
    }
    const std::int16_t * const above_here = here - grid.row();
    const std::int16_t * const left = in_steps_of(
      own, level[-1], here - grid.depth(), choice.left);
    const std::int16_t * const above = in_steps_of(
      own, *(level - row), above_here, choice.above);
    const std::int16_t * const corner = in_steps_of(
      own, *(level - row - 1), above_here - grid.depth(), choice.corner);
    std::int16_t * const sums = choice.sums.data();
    for (std::size_t c = 0; c < coded; ++c) {  // in 16 bits, of which vectors hold most
      const auto sum = static_cast<std::int16_t>(2 * left[c] + 2 * above[c] - corner[c]);
      sums[c] = std::min(std::max(sum, kBelowAll), kFarthest);
    }
    const std::uint8_t * const context_of = context_of_.data() - kBelowAll;
    for (std::size_t c = 0; c < coded; ++c, table += contexts_) {
      tables[c] = table + context_of[sums[c]];
    }
  }

  // Symbols of a neighbour at `level`, as many as are coded at level `own`, in the latter's steps:
  // rounded, halves away from 0. Those of the same level, and zeros, are left where they are.
  const std::int16_t * in_steps_of(
    std::size_t own, std::int8_t level, const std::int16_t * symbols,
    std::vector<std::int16_t> & room) const
  {
    if (level == kNotCoded || static_cast<std::size_t>(level) == own) {
      return symbols;
    }
    const std::uint32_t ratio = ratios_[static_cast<std::size_t>(level) * coded_.size() + own];
    std::int16_t * const scaled = room.data();
    for (std::size_t c = 0; c < coded_[own]; ++c) {
      const std::int32_t symbol = symbols[c];
      const auto magnitude = static_cast<std::uint32_t>(symbol < 0 ? -symbol : symbol);
      const auto limited = static_cast<std::int32_t>(
        std::min((magnitude * ratio + 128) >> 8, kFarthestNeighbour));
      scaled[c] = static_cast<std::int16_t>(symbol < 0 ? -limited : limited);
    }
    return scaled;
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
  MapCoder map_;
  std::vector<std::size_t> coded_;       // channels of each level
  std::vector<std::size_t> first_rows_;  // of each level
  std::vector<std::uint32_t> ratios_;    // a step of one level in steps of another, times 256
  Memory memory_;
  std::vector<Table> tables_;
  std::vector<std::uint8_t> context_of_;  // a sum of -128 to 127 -> its context
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
  const Int32Array & map_cdf)
{
  if (cdf.ndim() != 2 || lengths.ndim() != 1 || offsets.ndim() != 1 || bounds.ndim() != 1 ||
    coded_channels.ndim() != 1 || ladder.ndim() != 1 || lengths.shape(0) != cdf.shape(0) ||
    offsets.shape(0) != cdf.shape(0) || cdf.shape(0) < 1 || bounds.shape(0) > kFarthest)
  {
    throw py::value_error(
            "expected tables cdf [R, N], lengths [R], offsets [R], bounds [K - 1], "
            "coded_channels [L], ladder [L]");
  }
  const py::ssize_t classes = map_cdf.ndim() == 2 ? map_cdf.shape(1) - 3 : 0;
  if (classes < 1 || classes > static_cast<py::ssize_t>(kMaxClasses) ||
    map_cdf.shape(0) != (classes + 3) * (classes + 3))
  {
    throw py::value_error(
            "expected map_cdf [(P + 3)^2, P + 3] of 1 to " + std::to_string(kMaxClasses) +
            " classes");
  }
  return Coder(
    cdf.data(), static_cast<std::size_t>(cdf.shape(0)), static_cast<std::size_t>(cdf.shape(1)),
    lengths.data(), offsets.data(), numbers_of(bounds), numbers_of(coded_channels),
    numbers_of(ladder),
    MapCoder(map_cdf.data(), static_cast<std::size_t>(classes) + kFirstClass));
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

py::tuple encode(
  const Coder & coder, const SymbolArray & symbols, const ByteArray & blocks,
  const ByteArray & levels)
{
  if (symbols.ndim() != 3 || static_cast<std::size_t>(symbols.shape(0)) != coder.channels()) {
    throw py::value_error(
            "expected symbols [" + std::to_string(coder.channels()) + ", H, W]");
  }
  const Size size = checked_size(coder, symbols.shape(1), symbols.shape(2));
  const Strides strides = checked_strides(symbols);
  const Blocks map = checked_blocks(coder, blocks, size);
  const auto level_of_class = checked_levels(coder, levels);
  const std::int16_t * values = symbols.data();
  Body coded_map{};
  Body body{};
  {
    py::gil_scoped_release released;
    const Layout layout = coder.layout(map, size, level_of_class);
    coded_map = coder.map().encode(
      map, size, memory_of<0>(MapCoder::bound(size) + kWordBytes));
    body = coder.encode(values, strides, layout, memory_of<1>(layout.bound() + kWordBytes));
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

py::tuple decode(
  const Coder & coder, const py::bytes & map, const py::bytes & body, py::ssize_t height,
  py::ssize_t width, const ByteArray & levels)
{
  const Size size = checked_size(coder, height, width);
  const auto level_of_class = checked_levels(coder, levels);
  const View coded_map(map);
  const View coded(body);
  const Blocks blocks = coder.map().decode(coded_map.data, coded_map.size, size);
  const Layout layout = coder.layout(blocks, size, level_of_class);
  Coder::check_size(coded.size, layout);  // before anything is allocated for its symbols
  ByteArray decoded({height, width});
  std::copy(blocks.begin(), blocks.end(), decoded.mutable_data());
  Int16Array symbols({static_cast<py::ssize_t>(coder.channels()), height, width});
  std::int16_t * values = symbols.mutable_data();
  {
    py::gil_scoped_release released;
    coder.decode(coded.data, coded.size, values, layout);
  }
  return py::make_tuple(symbols, decoded);
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
    py::arg("map_cdf").noconvert())
  .def(
    "encode", &encode, py::arg("symbols").noconvert(), py::arg("blocks").noconvert(),
    py::arg("levels").noconvert())
  .def(
    "decode", &decode, py::arg("map"), py::arg("body"), py::arg("height"), py::arg("width"),
    py::arg("levels").noconvert());
}
