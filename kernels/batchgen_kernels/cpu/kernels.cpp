// Kernels for a CPU: paged attention, block copies, and the other parts of a decoder layer.
//
// All products use one tile of arithmetic: R rows times 16 columns, summed over `depth`
//
//     linear      inputs  [M, K]  · a panel of the weights [K, 16]
//     scores      queries [R, Dk] · 16 keys, transposed    [Dk, 16]
//     outputs     weights [R, n]  · 16 columns of n values [n, 16]
//
// The order of every sum depends only on the row: keys are processed in chunks of 64 at fixed
// positions, and the chunks are merged first to last. So a row's result has the same bits in every
// batch and with any number of threads.
//
// Vectors are the compiler's vector types (GCC 9 or newer, clang), as wide as the target's.
// NaN and infinity are kept: never compile this with -ffast-math.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

// ── vectors ──────────────────────────────────────────────────────────────────────────────────

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int ROWS = 12;  // of one tile, so that its sums fit the registers
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr int ROWS = 6;
#else
constexpr int LANES = 4;
constexpr int ROWS = 6;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef Vec Loose __attribute__((aligned(4), may_alias));  // for unaligned memory

constexpr int PANEL = 16;  // columns of a tile
constexpr int PARTS = PANEL / LANES;
constexpr int AHEAD = 2048;  // bytes that prefetching runs ahead

inline Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }
inline Vec fill(float x) { return Vec{} + x; }

// LANES codes as floats; without these instructions compilers convert them one by one.
inline Vec load(const int8_t* codes) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)codes)));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)codes)));
#else
  Ints wide;
  for (int i = 0; i < LANES; i++) wide[i] = codes[i];
  return __builtin_convertvector(wide, Vec);
#endif
}

inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

inline float sum(Vec v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}

inline float largest(Vec v) {
  float found = v[0];
  for (int i = 1; i < LANES; i++) found = v[i] > found ? v[i] : found;
  return found;
}

// exp to 2 units in the last place; NaN stays NaN, below -87 it is about 1e-38.
inline Vec exponential(Vec x) {
  x = x < -87.0f ? fill(-87.0f) : x;
  x = x > 88.0f ? fill(88.0f) : x;
  const float round = 12582912.0f;  // 1.5 · 2²³: adding it rounds to an integer
  Vec n = x * 1.44269504f + round;
  n = n - round;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  return p * (Vec)power;
}

inline Vec tangent(Vec x) {
  const Vec z = x * x;
  Vec p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Vec small = p * z * x + x;
  const Vec big = 1.0f - 2.0f / (exponential(x + x) + 1.0f);
  return (x < 0.625f) & (x > -0.625f) ? small : big;
}

// ── the tile ─────────────────────────────────────────────────────────────────────────────────

// Each accumulator is a variable, because compilers keep an array of them in memory.
struct Cell {
#if defined(__AVX512F__)
  Vec a;
  template <class T>
  void set(const T* p) { a = load(p); }
  void put(float* p) const { store(p, a); }
  void add(float x, const Cell& b) { a += x * b.a; }
#elif defined(__AVX__)
  Vec a, b;
  template <class T>
  void set(const T* p) { a = load(p), b = load(p + 8); }
  void put(float* p) const { store(p, a), store(p + 8, b); }
  void add(float x, const Cell& y) { a += x * y.a, b += x * y.b; }
#else
  Vec a, b, c, d;
  template <class T>
  void set(const T* p) { a = load(p), b = load(p + 4), c = load(p + 8), d = load(p + 12); }
  void put(float* p) const { store(p, a), store(p + 4, b), store(p + 8, c), store(p + 12, d); }
  void add(float x, const Cell& y) { a += x * y.a, b += x * y.b, c += x * y.c, d += x * y.d; }
#endif
};

// The right-hand side: rows of 16 columns, contiguous floats or codes, or rows at any addresses.
struct Packed {
  const float* first;
  // Memory that is needed next and is prefetched meanwhile: `stride` elements a step.
  const float* next;
  int stride;
  const float* operator[](int k) const { return first + int64_t(k) * PANEL; }
  void fetch(int k) const { __builtin_prefetch(next + int64_t(k) * stride, 0, 2); }
};
struct Coded {
  const int8_t* first;
  const int8_t* operator[](int k) const { return first + int64_t(k) * PANEL; }
  void fetch(int k) const { __builtin_prefetch((*this)[k] + AHEAD, 0, 2); }
};
struct Scattered {
  const float* const* rows;
  int column;
  const float* operator[](int k) const { return rows[k] + column; }
  void fetch(int) const {}
};

#define BATCHGEN_EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

// out[r, :] = begin[r, :] + Σ left[r, k] · right[k]; `begin_step` 0 takes one row for all.
template <int R, class Right>
inline void tile(const float* left, int64_t left_step, Right right, int depth, const float* begin,
                 int64_t begin_step, float* out, int64_t out_step) {
#define BATCHGEN_BEGIN(i) \
  Cell c##i;              \
  if constexpr (R > i) c##i.set(begin + i * begin_step);
  BATCHGEN_EACH(BATCHGEN_BEGIN)
  for (int k = 0; k < depth; k++) {
    Cell b;
    right.fetch(k);
    b.set(right[k]);
#define BATCHGEN_ADD(i) \
  if constexpr (R > i) c##i.add(left[i * left_step + k], b);
    BATCHGEN_EACH(BATCHGEN_ADD)
  }
#define BATCHGEN_PUT(i) \
  if constexpr (R > i) c##i.put(out + i * out_step);
  BATCHGEN_EACH(BATCHGEN_PUT)
}

template <int R, class Right>
void tile_of(int rows, const float* left, int64_t left_step, Right right, int depth,
             const float* begin, int64_t begin_step, float* out, int64_t out_step) {
  if (rows == R) {
    tile<R>(left, left_step, right, depth, begin, begin_step, out, out_step);
  } else if constexpr (R > 1) {
    tile_of<R - 1>(rows, left, left_step, right, depth, begin, begin_step, out, out_step);
  }
}

// Any number of rows.
template <class Right>
void tiles(int64_t rows, const float* left, int64_t left_step, Right right, int depth,
           const float* begin, int64_t begin_step, float* out, int64_t out_step) {
  for (int64_t r = 0; r < rows; r += ROWS) {
    tile_of<ROWS>(int(std::min<int64_t>(ROWS, rows - r)), left + r * left_step, left_step, right,
                  depth, begin + r * begin_step, begin_step, out + r * out_step, out_step);
  }
}

const float ZEROS[PANEL] = {};

// ── attention: the plan of a step ────────────────────────────────────────────────────────────

constexpr int CHUNK = 64;      // keys that are scored together, at multiples of 64
constexpr int UNIT_ROWS = 48;  // query rows (tokens · heads of a group) of one unit of work
constexpr int LEVELS = 4;      // levels of groups of sequences that share blocks
constexpr int SPAN = 4;        // the fewest chunks of a split unit

// The layers that have the same plan.
struct Kind {
  int window;  // 0: none
  int group;
  int kv_heads;
};

struct Token {
  int64_t row;  // in the packed queries
  int position;
  int64_t slot;     // of its partial results, -1 if its unit is not split
  int first, last;  // chunks of the unit that is split
  bool resumed;     // its first chunks were computed together with other sequences
};

// Tokens that read the same blocks, and the chunks of keys [first, last) to process.
struct Unit {
  int64_t begin, count;  // of Plan.tokens
  int64_t sequence;      // the one whose table is read
  int first, last;
  bool shared;  // leaves states for later units
  bool split;   // leaves a partial result for each chunk
};

struct Plan {
  std::vector<Token> tokens;
  // The units of one level need the states of the levels before; the last level finishes.
  std::vector<std::vector<Unit>> levels;
  std::vector<int64_t> merges;  // tokens whose partial results must be merged
  int64_t slots = 0;
  std::vector<float> states, partials;
};

struct Engine {
  int64_t block_elements;
  int block_size;
  std::vector<Kind> kinds;
  std::vector<Plan> plans;  // one per kind
  std::vector<int32_t> tables, starts, counts;
  int64_t sequences = 0, width = 0, total = 0;
  std::vector<int64_t> firsts;  // row of each sequence's first token in the packed queries
  std::vector<int64_t> owner;   // sequence of each packed row
  const int32_t* table(int64_t sequence) const { return tables.data() + sequence * width; }
};

// Finds decoding sequences whose first chunks lie in the same blocks, level after level.
struct Sharing {
  const Engine& engine;
  int tokens_of_unit;
  // {level: groups}: sequences, and the chunks [first, last) that they share.
  struct Group {
    std::vector<int64_t> members;
    int first, last;
  };
  std::vector<std::vector<Group>> levels;
  std::vector<int> until;  // for each sequence: the number of shared chunks

  int compare(int64_t a, int64_t b, int chunk) const {
    const int size = engine.block_size;
    const int from = chunk * CHUNK / size, to = (chunk * CHUNK + CHUNK - 1) / size + 1;
    const int32_t *x = engine.table(a), *y = engine.table(b);
    for (int i = from; i < to; i++) {
      if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    }
    return 0;
  }

  bool covers(int64_t sequence, int chunk) const {
    return engine.starts[sequence] + 1 >= (chunk + 1) * CHUNK;
  }

  // Cut `members`, which share everything before `first`, into groups and follow each of them.
  void follow(const std::vector<int64_t>& members, int first, size_t level) {
    std::vector<int64_t> rest;
    for (int64_t m : members) {
      if (covers(m, first)) rest.push_back(m);
    }
    std::sort(rest.begin(), rest.end(), [&](int64_t a, int64_t b) {
      const int order = compare(a, b, first);
      return order ? order < 0 : a < b;
    });
    for (size_t i = 0, j; i < rest.size(); i = j) {
      for (j = i + 1; j < rest.size() && !compare(rest[i], rest[j], first);) j++;
      if (j - i > 1) add({rest.begin() + i, rest.begin() + j}, first, level);
    }
  }

  void add(std::vector<int64_t> members, int first, size_t level) {
    int last = first + 1;
    auto alike = [&](int64_t m) { return covers(m, last) && !compare(members[0], m, last); };
    while (std::all_of(members.begin(), members.end(), alike)) last++;
    for (int64_t m : members) until[m] = last;
    if (levels.size() <= level) levels.emplace_back();
    levels[level].push_back({members, first, last});
    if (level + 1 < LEVELS) follow(members, last, level + 1);
  }
};

void share(const Engine& engine, const Kind& kind, Plan& plan, std::vector<int>& until,
           int threads) {
  const int most = std::max(1, UNIT_ROWS / kind.group);
  Sharing sharing{engine, most, {}, std::vector<int>(engine.sequences, 0)};
  std::vector<int64_t> decoding;
  for (int64_t s = 0; s < engine.sequences; s++) {
    if (engine.counts[s] == 1) decoding.push_back(s);
  }
  if (decoding.size() < 2) return;
  sharing.follow(decoding, 0, 0);
  std::vector<std::vector<Unit>> levels;
  for (const auto& groups : sharing.levels) {
    levels.emplace_back();
    for (const auto& group : groups) {
      const int64_t n = group.members.size();
      for (int64_t at = 0; at < n; at += most) {
        const int64_t begin = plan.tokens.size(), count = std::min<int64_t>(most, n - at);
        for (int64_t i = at; i < at + count; i++) {
          const int64_t s = group.members[i];
          plan.tokens.push_back({engine.firsts[s], engine.starts[s], -1, 0, 0, group.first > 0});
        }
        const int64_t first = group.members[at];
        levels.back().push_back({begin, count, first, group.first, group.last, true, false});
      }
    }
    // Too few units would leave threads idle, so each sequence is split instead.
    if (int64_t(levels[0].size()) * kind.kv_heads < threads) {
      plan.tokens.clear();
      return;
    }
  }
  plan.levels = std::move(levels);
  until = std::move(sharing.until);
}

double cost(const Unit& unit, const Kind& kind) {
  return double(unit.last - unit.first) * (8 + unit.count * kind.group);
}

// Split units that would keep one thread busy long after the others are done.
void split(Plan& plan, const Kind& kind, int threads) {
  std::vector<Unit> units = std::move(plan.levels.back()), cut;
  double total = 0;
  for (const Unit& unit : units) total += cost(unit, kind);
  const double fair = total * kind.kv_heads / (threads * 4.0);
  for (Unit unit : units) {
    const double whole = cost(unit, kind);
    const int chunks = unit.last - unit.first;
    if (threads == 1 || whole <= fair || chunks < 2 * SPAN) {
      cut.push_back(unit);
      continue;
    }
    for (int64_t t = unit.begin; t < unit.begin + unit.count; t++) {
      Token& token = plan.tokens[t];
      token.slot = plan.slots, token.first = unit.first, token.last = unit.last;
      plan.slots += chunks;
      plan.merges.push_back(t);
    }
    const int span = std::max(SPAN, int(chunks * fair / whole));
    for (int first = unit.first; first < unit.last; first += span) {
      const int last = std::min(first + span, unit.last);
      cut.push_back({unit.begin, unit.count, unit.sequence, first, last, false, true});
    }
  }
  plan.levels.back() = std::move(cut);
}

Plan make_plan(const Engine& engine, const Kind& kind, int threads) {
  Plan plan;
  std::vector<int> until(engine.sequences, 0);
  if (!kind.window) share(engine, kind, plan, until, threads);
  plan.levels.emplace_back();
  const int most = std::max(1, UNIT_ROWS / kind.group);
  for (int64_t s = 0; s < engine.sequences; s++) {
    for (int at = 0; at < engine.counts[s]; at += most) {
      const int count = std::min(most, engine.counts[s] - at), start = engine.starts[s] + at;
      const int seen = kind.window ? std::max(0, start - kind.window + 1) : 0;
      const int first = std::max(until[s], seen / CHUNK), last = (start + count - 1) / CHUNK + 1;
      const int64_t begin = plan.tokens.size();
      for (int i = 0; i < count; i++) {
        plan.tokens.push_back({engine.firsts[s] + at + i, start + i, -1, 0, 0, until[s] > 0});
      }
      plan.levels.back().push_back({begin, count, s, first, last, false, false});
    }
  }
  split(plan, kind, threads);
  return plan;
}

}  // namespace

// ── attention: the arithmetic ────────────────────────────────────────────────────────────────

extern "C" struct BatchgenLayer {
  int64_t keys, values;  // their offsets in a block
  int32_t key_width, value_width, kind;
  float scale, softcap;  // softcap 0: none
  const float* sinks;    // one logit per query head, or null
};

namespace {

using Layer = BatchgenLayer;

inline int padded(int width) { return (width + PANEL - 1) / PANEL * PANEL; }

// Scratch memory of one thread; allocated once and kept.
struct Scratch {
  std::vector<float> queries, keys, values, nothing, scores, sums, totals, m, l, total_m, total_l;
  const float *key_rows[CHUNK], *value_rows[CHUNK];

  void reserve(int64_t rows, int dk, int dv) {
    grow(queries, rows * dk);
    grow(keys, int64_t(PANEL) * dk);
    grow(values, CHUNK * PANEL);
    grow(nothing, dk);
    grow(scores, rows * CHUNK);
    grow(sums, rows * padded(dv));
    grow(totals, rows * padded(dv));
    for (auto* each : {&m, &l, &total_m, &total_l}) grow(*each, rows);
  }
  static void grow(std::vector<float>& v, int64_t size) {
    if (int64_t(v.size()) < size) v.resize(size);
  }
};

#if defined(__AVX__)
inline void transpose8(const float* const* rows, int at, float* out) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(rows[i] + at);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(out + (at + i) * PANEL, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(out + (at + i + 4) * PANEL, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
#endif

// Columns of `out` [width, 16] from up to 16 rows [width]; the other columns become zero.
void transpose(const float* const* rows, int count, int width, float* out) {
  if (count < PANEL) std::memset(out, 0, sizeof(float) * width * PANEL);
  int done = 0;
#if defined(__AVX__)
  for (; done + 8 <= count; done += 8) {
    int at = 0;
    for (; at + 8 <= width; at += 8) transpose8(rows + done, at, out + done);
    for (; at < width; at++) {
      for (int j = done; j < done + 8; j++) out[at * PANEL + j] = rows[j][at];
    }
  }
#endif
  for (; done < count; done++) {
    for (int d = 0; d < width; d++) out[d * PANEL + done] = rows[done][d];
  }
}

// Turn the scores of one row into weights; weights outside of keys [from, to) become zero.
void soften(const Layer& layer, float* scores, int from, int to, float& m, float& l) {
  Vec found = fill(-INFINITY);
  const Vec none = found;
  Ints lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
  for (int at = 0; at < CHUNK; at += LANES) {
    const Ints key = lane + at;
    Vec s = load(scores + at) * layer.scale;
    if (layer.softcap != 0) s = layer.softcap * tangent(s / layer.softcap);
    s = (key >= from) & (key < to) ? s : none;
    store(scores + at, s);
    found = larger(s, found);
  }
  m = largest(found);
  Vec total = fill(0);
  for (int at = 0; at < CHUNK; at += LANES) {
    const Ints key = lane + at;
    Vec p = exponential(load(scores + at) - m);
    p = (key >= from) & (key < to) ? p : fill(0);
    store(scores + at, p);
    total += p;
  }
  l = sum(total);
}

struct Call {
  Engine& engine;
  Plan& plan;
  const Kind& kind;
  const Layer& layer;
  const float *pool, *query;
  int64_t query_token, query_head;  // steps
  float* out;
  int dv16;        // value width, padded
  int64_t stride;  // of a state or partial result of one head: m, l, output

  float* state(const Token& token, int head) const {
    return plan.states.data() + (token.row * kind.kv_heads * kind.group + head) * stride;
  }
  float* partial(const Token& token, int chunk, int head) const {
    const int64_t at = (token.slot + chunk - token.first) * kind.kv_heads * kind.group + head;
    return plan.partials.data() + at * stride;
  }

  // total ⊕ (m, l, o): both are an unnormalised softmax with its sum; l = 0 means no keys.
  void merge(float& tm, float& tl, float* total, float m, float l, const float* o) const {
    if (l == 0) return;
    if (tl == 0) {
      tm = m, tl = l;
      std::memcpy(total, o, sizeof(float) * dv16);
      return;
    }
    const float top = m > tm ? m : tm;
    const float a = std::exp(tm - top), b = std::exp(m - top);
    tl = tl * a + l * b;
    for (int d = 0; d < dv16; d += LANES) store(total + d, load(total + d) * a + load(o + d) * b);
    tm = top;
  }

  void finish(const Token& token, int head, float m, float l, const float* total) const {
    float* to = out + (token.row * kind.kv_heads * kind.group + head) * layer.value_width;
    float scale = 1 / l;
    if (layer.sinks) {
      const float sink = layer.sinks[head], top = sink > m ? sink : m;
      const float a = std::exp(m - top);
      scale = a / (l * a + std::exp(sink - top));
    }
    for (int d = 0; d < layer.value_width; d++) to[d] = total[d] * scale;
  }

  // m, l and sums of every row of `unit` over one chunk of keys.
  void chunk(const Unit& unit, int head, int number, Scratch& s) const {
    const int dk = layer.key_width, dv = layer.value_width, size = engine.block_size;
    const int64_t rows = unit.count * kind.group;
    const Token* tokens = plan.tokens.data() + unit.begin;
    const auto [least, most] = span(unit);
    const int base = number * CHUNK, to = std::min(CHUNK, most + 1 - base);
    const int from = kind.window ? std::max(0, least - kind.window + 1 - base) : 0;
    const int32_t* table = engine.table(unit.sequence);
    for (int j = 0; j < from; j++) s.key_rows[j] = s.value_rows[j] = s.nothing.data();
    for (int j = from; j < to; j++) {
      const int position = base + j, slot = position % size;
      const float* block = pool + table[position / size] * engine.block_elements;
      s.key_rows[j] = block + layer.keys + (int64_t(head) * size + slot) * dk;
      s.value_rows[j] = block + layer.values + (int64_t(head) * size + slot) * dv;
    }
    for (int j = from / PANEL * PANEL; j < to; j += PANEL) {
      // Blocks are too far apart for the CPU's own prefetching: the next keys are prefetched here,
      // the values of these keys during the product.
      for (int i = j + PANEL; i < std::min(j + 2 * PANEL, to); i++) {
        for (int d = 0; d < dk; d += PANEL) __builtin_prefetch(s.key_rows[i] + d, 0, 2);
      }
      transpose(s.key_rows + j, std::min(PANEL, to - j), dk, s.keys.data());
      tiles(rows, s.queries.data(), dk, Packed{s.keys.data(), s.value_rows[j], PANEL}, dk, ZEROS, 0,
            s.scores.data() + j, CHUNK);
    }
    for (int64_t r = 0; r < rows; r++) {
      const int position = tokens[r / kind.group].position - base;
      const int first = kind.window ? position - kind.window + 1 : 0;
      soften(layer, s.scores.data() + r * CHUNK, first, std::min(position + 1, to), s.m[r], s.l[r]);
    }
    const float* weights = s.scores.data() + from;
    for (int d = 0; d + PANEL <= dv; d += PANEL) {
      tiles(rows, weights, CHUNK, Scattered{s.value_rows + from, d}, to - from, ZEROS, 0,
            s.sums.data() + d, dv16);
    }
    if (const int rest = dv % PANEL) {
      for (int j = from; j < to; j++) {
        float* row = s.values.data() + (j - from) * PANEL;
        std::memset(row, 0, sizeof(float) * PANEL);
        std::memcpy(row, s.value_rows[j] + dv - rest, sizeof(float) * rest);
      }
      tiles(rows, weights, CHUNK, Packed{s.values.data(), s.values.data(), 0}, to - from, ZEROS, 0,
            s.sums.data() + dv - rest, dv16);
    }
  }

  std::pair<int, int> span(const Unit& unit) const {
    const Token* tokens = plan.tokens.data() + unit.begin;
    int least = tokens->position, most = least;
    for (int64_t t = 1; t < unit.count; t++) {
      least = std::min(least, tokens[t].position), most = std::max(most, tokens[t].position);
    }
    return {least, most};
  }

  // One unit for one key head.
  void compute(const Unit& unit, int head, Scratch& s) const {
    const int group = kind.group, dk = layer.key_width;
    const int64_t rows = unit.count * group;
    const Token* tokens = plan.tokens.data() + unit.begin;
    s.reserve(rows, dk, layer.value_width);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t at = tokens[r / group].row * query_token +
                         (int64_t(head) * group + r % group) * query_head;
      std::memcpy(s.queries.data() + r * dk, query + at, sizeof(float) * dk);
      s.total_l[r] = 0;
      const Token& token = tokens[r / group];
      if (token.resumed && !unit.split) {
        const float* from = state(token, head * group + int(r % group));
        s.total_m[r] = from[0], s.total_l[r] = from[1];
        std::memcpy(s.totals.data() + r * dv16, from + 2, sizeof(float) * dv16);
      }
    }
    for (int number = unit.first; number < unit.last; number++) {
      chunk(unit, head, number, s);
      for (int64_t r = 0; r < rows; r++) {
        const float* sums = s.sums.data() + r * dv16;
        if (unit.split) {
          put(partial(tokens[r / group], number, head * group + int(r % group)), s.m[r], s.l[r],
              sums);
        } else {
          merge(s.total_m[r], s.total_l[r], s.totals.data() + r * dv16, s.m[r], s.l[r], sums);
        }
      }
    }
    for (int64_t r = 0; r < rows && !unit.split; r++) {
      const Token& token = tokens[r / group];
      const int query_head_of = head * group + int(r % group);
      const float* totals = s.totals.data() + r * dv16;
      if (unit.shared) {
        put(state(token, query_head_of), s.total_m[r], s.total_l[r], totals);
      } else {
        finish(token, query_head_of, s.total_m[r], s.total_l[r], totals);
      }
    }
  }

  void put(float* to, float m, float l, const float* o) const {
    to[0] = m, to[1] = l;
    std::memcpy(to + 2, o, sizeof(float) * dv16);
  }

  // The partial results of one split token and one query head, first to last.
  void collect(const Token& token, int head, Scratch& s) const {
    float m = 0, l = 0, *total = s.totals.data();
    if (token.resumed) {
      const float* from = state(token, head);
      m = from[0], l = from[1];
      std::memcpy(total, from + 2, sizeof(float) * dv16);
    }
    for (int number = token.first; number < token.last; number++) {
      const float* from = partial(token, number, head);
      merge(m, l, total, from[0], from[1], from + 2);
    }
    finish(token, head, m, l, total);
  }

  void run(int threads) const {
    const int heads = kind.kv_heads, all = heads * kind.group;
#pragma omp parallel num_threads(threads)
    {
      static thread_local Scratch scratch;
      for (const auto& level : plan.levels) {
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < int64_t(level.size()) * heads; i++) {
          compute(level[i / heads], int(i % heads), scratch);
        }
      }
      scratch.reserve(1, layer.key_width, layer.value_width);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < int64_t(plan.merges.size()) * all; i++) {
        collect(plan.tokens[plan.merges[i / all]], int(i % all), scratch);
      }
    }
  }
};

// ── linear layers ────────────────────────────────────────────────────────────────────────────

constexpr int64_t KEPT = 72 << 10;  // input elements that stay in the second-level cache

// Divide `rows` of `depth` elements × `panels` among threads: work(first row, rows, panel). Row
// blocks have similar sizes and whole tiles, and stay in the cache while all panels pass.
template <class Work>
void each_block(int64_t rows, int64_t depth, int64_t panels, int threads, Work work) {
  if (rows == 0) return;
  const int64_t most = std::clamp<int64_t>(KEPT / depth, 4 * ROWS, 16 * ROWS);
  const int64_t blocks = (rows + most - 1) / most;
  const int64_t height = ((rows + blocks - 1) / blocks + ROWS - 1) / ROWS * ROWS;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < panels * blocks; i++) {
    const int64_t first = i / panels * height;
    if (first < rows) work(first, std::min(height, rows - first), i % panels);
  }
}

// Panels [⌈outputs / 16⌉, inputs, 16] of weights: float32, or int8 with a scale for each output.
extern "C" struct BatchgenWeights {
  const void* panels;
  const float* scales;  // null: float32
};

using Weights = BatchgenWeights;

// Memory in which this thread converts codes to floats; at most two panels at a time.
float* room(int64_t elements, int which) {
  static thread_local std::vector<float> floats[2];
  Scratch::grow(floats[which], elements);
  return floats[which].data();
}

void decode(const int8_t* codes, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; i += LANES) store(out + i, load(codes + i));
}

// A panel of weights. While it is multiplied, each tile of `rows` prefetches a part of the next
// panel. Strides are in floats for all types. Codes that are used once are converted inside the
// tile, others before it.
struct Panel {
  const float* panel = nullptr;
  const int8_t* codes = nullptr;
  const float* scales = nullptr;  // null: float32
  const float* next = nullptr;
  int64_t depth;
  int stride;
  Panel(const Weights& weights, int64_t index, int64_t depth, int64_t rows) : depth(depth) {
    const int64_t elements = depth * PANEL, tiles = (rows + ROWS - 1) / ROWS;
    const int64_t width = weights.scales ? PANEL / 4 : PANEL;
    stride = int((width + tiles - 1) / tiles);
    if (!weights.scales) {
      panel = static_cast<const float*>(weights.panels) + index * elements;
      next = panel + elements;
      return;
    }
    codes = static_cast<const int8_t*>(weights.panels) + index * elements;
    scales = weights.scales + index * PANEL;
    if (tiles == 1) return;
    float* floats = room(elements, index % 2);
    decode(codes, elements, floats);
    panel = floats, next = reinterpret_cast<const float*>(codes + elements);
  }

  // out[r, :] = begin[r, :] + left[r, :] · panel for the rows of the tile at `row`
  void multiply(int rows, int64_t row, const float* left, int64_t left_step, const float* begin,
                int64_t begin_step, float* out, int64_t out_step) const {
    const int deep = int(depth);
    const Packed packed{panel, next + row / ROWS * depth * stride, stride};
    if (!scales) {
      tile_of<ROWS>(rows, left, left_step, packed, deep, begin, begin_step, out, out_step);
      return;
    }
    float sums[ROWS * PANEL];
    if (panel) {
      tile_of<ROWS>(rows, left, left_step, packed, deep, ZEROS, 0, sums, PANEL);
    } else {
      tile_of<ROWS>(rows, left, left_step, Coded{codes}, deep, ZEROS, 0, sums, PANEL);
    }
    for (int r = 0; r < rows; r++) {
      for (int i = 0; i < PANEL; i += LANES) {
        const Vec product = load(sums + r * PANEL + i) * load(scales + i);
        store(out + r * out_step + i, load(begin + r * begin_step + i) + product);
      }
    }
  }
};

// Up to 16 columns of some rows: begin + input · panel.
void linear_block(const float* input, int64_t rows, int64_t input_step, const Panel& panel,
                  const float* begin, int64_t begin_step, float* out, int64_t out_step,
                  int columns) {
  float narrow[ROWS * PANEL] = {};
  for (int64_t r = 0; r < rows; r += ROWS) {
    const int high = int(std::min<int64_t>(ROWS, rows - r));
    const float* left = input + r * input_step;
    const float* from = begin + r * begin_step;
    float* to = out + r * out_step;
    if (columns == PANEL) {
      panel.multiply(high, r, left, input_step, from, begin_step, to, out_step);
      continue;
    }
    for (int i = 0; i < high; i++) {
      std::memcpy(narrow + i * PANEL, from + i * begin_step, sizeof(float) * columns);
    }
    panel.multiply(high, r, left, input_step, narrow, PANEL, narrow, PANEL);
    for (int i = 0; i < high; i++) {
      std::memcpy(to + i * out_step, narrow + i * PANEL, sizeof(float) * columns);
    }
  }
}

// silu(input · gates) · (input · ups), up to 16 columns of some rows.
void gated_block(const float* input, int64_t rows, int64_t input_step, const Panel& gates,
                 const Panel& ups, const float* bias, float* out, int64_t out_step, int columns) {
  float gate[ROWS * PANEL], up[ROWS * PANEL];
  for (int64_t r = 0; r < rows; r += ROWS) {
    const int high = int(std::min<int64_t>(ROWS, rows - r));
    const float* left = input + r * input_step;
    gates.multiply(high, r, left, input_step, bias, 0, gate, PANEL);
    ups.multiply(high, r, left, input_step, bias + PANEL, 0, up, PANEL);
    for (int at = 0; at < high * PANEL; at += LANES) {
      const Vec g = load(gate + at);
      store(gate + at, g / (exponential(-g) + 1.0f) * load(up + at));
    }
    for (int i = 0; i < high; i++) {
      std::memcpy(out + (r + i) * out_step, gate + i * PANEL, sizeof(float) * columns);
    }
  }
}

// ── between the linear layers ────────────────────────────────────────────────────────────────

constexpr int64_t FEW = 1 << 14;  // elements, too few for a second thread

void norm(const float* in, int64_t width, const float* weight, float epsilon, float* out) {
  Vec squares = fill(0);
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES) squares += load(in + i) * load(in + i);
  float total = sum(squares);
  for (; i < width; i++) total += in[i] * in[i];
  const float scale = 1 / std::sqrt(total / float(width) + epsilon);
  for (i = 0; i + LANES <= width; i += LANES) store(out + i, load(in + i) * scale * load(weight + i));
  for (; i < width; i++) out[i] = in[i] * scale * weight[i];
}

// Rotate each of the first `rotary` elements with the one `rotary` / 2 away.
void rotate(float* x, int rotary, const float* cos, const float* sin) {
  const int half = rotary / 2;
  for (int i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

// ── a decoder layer ──────────────────────────────────────────────────────────────────────────

// out [rows, outputs] = begin + input [rows, inputs] · weightsᵀ. `begin` is a bias, padded to whole
// panels, with `begin_step` 0, or a sum to add to, [rows, outputs]; it may be `out` itself.
void linear(const float* input, int64_t rows, int64_t input_step, const Weights& weights,
            const float* begin, int64_t begin_step, float* out, int64_t outputs, int64_t inputs,
            int threads) {
  each_block(rows, inputs, (outputs + PANEL - 1) / PANEL, threads,
             [=, &weights](int64_t first, int64_t n, int64_t p) {
    const int64_t at = p * PANEL;
    const Panel panel(weights, p, inputs, n);
    linear_block(input + first * input_step, n, input_step, panel,
                 begin ? begin + first * begin_step + at : ZEROS, begin_step,
                 out + first * outputs + at, outputs, int(std::min<int64_t>(PANEL, outputs - at)));
  });
}

// out [rows, outputs] = silu(input · gateᵀ) · (input · upᵀ); panels of gate and up
// alternate, also in the bias.
void gated(const float* input, int64_t rows, const Weights& weights, const float* bias, float* out,
           int64_t outputs, int64_t inputs, int threads) {
  each_block(rows, inputs, (outputs + PANEL - 1) / PANEL, threads,
             [=, &weights](int64_t first, int64_t n, int64_t p) {
    const int64_t at = p * PANEL;
    const Panel gates(weights, 2 * p, inputs, n), ups(weights, 2 * p + 1, inputs, n);
    gated_block(input + first * inputs, n, inputs, gates, ups, bias + 2 * at, out + first * outputs + at,
                outputs, int(std::min<int64_t>(PANEL, outputs - at)));
  });
}

// sums [rows, outputs] += input · weightsᵀ + bias
void add_linear(float* sums, int64_t rows, const float* input, const Weights& weights,
                const float* bias, int64_t outputs, int64_t inputs, int threads) {
  for (int64_t r = 0; bias && r < rows; r++) {
    for (int64_t i = 0; i < outputs; i++) sums[r * outputs + i] += bias[i];
  }
  linear(input, rows, inputs, weights, sums, outputs, sums, outputs, inputs, threads);
}

// Work on each of many rows: work(row).
template <class Work>
void each_row(int64_t rows, int64_t elements, int threads, Work work) {
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * elements > FEW)
  for (int64_t r = 0; r < rows; r++) work(r);
}

}  // namespace

// ── called by Python ─────────────────────────────────────────────────────────────────────────

extern "C" {

#define BATCHGEN_PUBLIC __attribute__((visibility("default")))

BATCHGEN_PUBLIC void* batchgen_new(int64_t block_elements, int32_t block_size, int32_t kinds,
                                   const int32_t* windows, const int32_t* groups,
                                   const int32_t* kv_heads) {
  Engine* engine = new Engine;
  engine->block_elements = block_elements, engine->block_size = block_size;
  for (int i = 0; i < kinds; i++) engine->kinds.push_back({windows[i], groups[i], kv_heads[i]});
  return engine;
}

BATCHGEN_PUBLIC void batchgen_free(void* engine) { delete static_cast<Engine*>(engine); }

BATCHGEN_PUBLIC void batchgen_plan(void* handle, int64_t sequences, int64_t width,
                                   const int32_t* tables, const int32_t* starts,
                                   const int32_t* counts, int32_t threads) {
  Engine& engine = *static_cast<Engine*>(handle);
  engine.sequences = sequences, engine.width = width, engine.total = 0;
  engine.tables.assign(tables, tables + sequences * width);
  engine.starts.assign(starts, starts + sequences);
  engine.counts.assign(counts, counts + sequences);
  engine.firsts.clear(), engine.owner.clear(), engine.plans.clear();
  for (int64_t s = 0; s < sequences; s++) {
    engine.firsts.push_back(engine.total);
    engine.owner.insert(engine.owner.end(), counts[s], s);
    engine.total += counts[s];
  }
  for (const Kind& kind : engine.kinds) engine.plans.push_back(make_plan(engine, kind, threads));
}

BATCHGEN_PUBLIC void batchgen_write(void* handle, const BatchgenLayer* layer, float* pool,
                                    const float* key, int64_t key_token, int64_t key_head,
                                    const float* value, int64_t value_token, int64_t value_head,
                                    int32_t threads) {
  const Engine& engine = *static_cast<const Engine*>(handle);
  const int heads = engine.kinds[layer->kind].kv_heads, size = engine.block_size;
  const int dk = layer->key_width, dv = layer->value_width;
#pragma omp parallel for schedule(static) num_threads(threads) if (engine.total > 64)
  for (int64_t t = 0; t < engine.total; t++) {
    const int64_t s = engine.owner[t];
    const int position = engine.starts[s] + int(t - engine.firsts[s]), slot = position % size;
    float* block = pool + engine.table(s)[position / size] * engine.block_elements;
    for (int64_t h = 0; h < heads; h++) {
      std::memcpy(block + layer->keys + (h * size + slot) * dk, key + t * key_token + h * key_head,
                  sizeof(float) * dk);
      std::memcpy(block + layer->values + (h * size + slot) * dv,
                  value + t * value_token + h * value_head, sizeof(float) * dv);
    }
  }
}

BATCHGEN_PUBLIC void batchgen_attend(void* handle, const BatchgenLayer* layer, const float* pool,
                                     const float* query, int64_t query_token, int64_t query_head,
                                     float* out, int32_t threads) {
  Engine& engine = *static_cast<Engine*>(handle);
  const Kind& kind = engine.kinds[layer->kind];
  Plan& plan = engine.plans[layer->kind];
  const int dv16 = padded(layer->value_width);
  const int64_t stride = 2 + dv16, heads = int64_t(kind.kv_heads) * kind.group;
  if (plan.levels.size() > 1) Scratch::grow(plan.states, engine.total * heads * stride);
  Scratch::grow(plan.partials, plan.slots * heads * stride);
  Call{engine, plan, kind, *layer, pool, query, query_token, query_head, out, dv16, stride}.run(
      threads);
}

BATCHGEN_PUBLIC void batchgen_copy(float* pool, int64_t block_elements, int64_t count,
                                   const int64_t* pairs, int32_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (count > 1)
  for (int64_t i = 0; i < count; i++) {
    std::memcpy(pool + pairs[2 * i + 1] * block_elements, pool + pairs[2 * i] * block_elements,
                sizeof(float) * block_elements);
  }
}

// weights [outputs, inputs] → panels [⌈outputs / 16⌉, inputs, 16], missing columns are 0.
BATCHGEN_PUBLIC void batchgen_pack(const float* weights, int64_t step, int64_t outputs,
                                   int64_t inputs, float* panels, int32_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t p = 0; p < (outputs + PANEL - 1) / PANEL; p++) {
    const float* rows[PANEL];
    const int count = int(std::min<int64_t>(PANEL, outputs - p * PANEL));
    for (int i = 0; i < count; i++) rows[i] = weights + (p * PANEL + i) * step;
    transpose(rows, count, int(inputs), panels + p * inputs * PANEL);
  }
}

BATCHGEN_PUBLIC void batchgen_linear(const float* input, int64_t rows, int64_t input_step,
                                     const BatchgenWeights* weights, const float* bias,
                                     float* out, int64_t outputs, int64_t inputs,
                                     int32_t threads) {
  linear(input, rows, input_step, *weights, bias, 0, out, outputs, inputs, threads);
}

// Biases are padded to whole panels; those of o and down and the norms of heads may be null.
struct BatchgenDecoder {
  BatchgenWeights qkv, o, gate_up, down;
  const float *input_norm, *qkv_bias, *query_norm, *key_norm, *o_bias;
  const float *mlp_norm, *gate_up_bias, *down_bias;
  int64_t hidden, inner;
  int32_t query_heads, kv_heads, key_width, value_width;
  float input_epsilon, query_epsilon, key_epsilon, mlp_epsilon;
};

// x [rows, hidden] → qkv [rows, Hq · Dk + Hkv · Dk + Hkv · Dv]: norm, project, norm heads, and
// rotate them by the angles [rows, rotary] of their positions. `scratch` has hidden elements a row.
BATCHGEN_PUBLIC void batchgen_before(const BatchgenDecoder* decoder, int64_t rows, const float* x,
                                     const float* cos, const float* sin, int64_t rotary,
                                     float* scratch, float* qkv, int32_t threads) {
  const BatchgenDecoder& d = *decoder;
  const int64_t width = d.key_width, turned = d.query_heads + d.kv_heads;
  const int64_t outputs = turned * width + int64_t(d.kv_heads) * d.value_width;
  each_row(rows, d.hidden, threads, [=, &d](int64_t r) {
    norm(x + r * d.hidden, d.hidden, d.input_norm, d.input_epsilon, scratch + r * d.hidden);
  });
  linear(scratch, rows, d.hidden, d.qkv, d.qkv_bias, 0, qkv, outputs, d.hidden, threads);
  each_row(rows, turned * width, threads, [=, &d](int64_t r) {
    for (int64_t h = 0; h < turned; h++) {
      const bool is_query = h < d.query_heads;
      const float* weight = is_query ? d.query_norm : d.key_norm;
      float* head = qkv + r * outputs + h * width;
      if (weight) norm(head, width, weight, is_query ? d.query_epsilon : d.key_epsilon, head);
      rotate(head, int(rotary), cos + r * rotary, sin + r * rotary);
    }
  });
}

// x [rows, hidden] += o · attended [rows, Hq · Dv], then x += down · (silu(gate) · up) of its norm.
// `scratch` has hidden + inner elements a row.
BATCHGEN_PUBLIC void batchgen_after(const BatchgenDecoder* decoder, int64_t rows, float* x,
                                    const float* attended, float* scratch, int32_t threads) {
  const BatchgenDecoder& d = *decoder;
  float* opened = scratch + rows * d.hidden;
  const int64_t width = int64_t(d.query_heads) * d.value_width;
  add_linear(x, rows, attended, d.o, d.o_bias, d.hidden, width, threads);
  each_row(rows, d.hidden, threads, [=, &d](int64_t r) {
    norm(x + r * d.hidden, d.hidden, d.mlp_norm, d.mlp_epsilon, scratch + r * d.hidden);
  });
  gated(scratch, rows, d.gate_up, d.gate_up_bias, opened, d.inner, d.hidden, threads);
  add_linear(x, rows, opened, d.down, d.down_bias, d.hidden, d.inner, threads);
}

}  // extern "C"
