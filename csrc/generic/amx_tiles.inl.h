// The tile unit: eight tiles of 16 rows of 64 bytes, int8 products summed in int32. The same twice: the instructions,
// and plain vector code. Sums of integers are exact, so both give the same bits. Whoever uses
// tiles configures the unit before and releases it after: in between no code runs that is not our own.

constexpr int64_t TILE = 1024;  // bytes of a tile
constexpr int64_t PLANES = 3;   // digits of a number
constexpr int64_t STACK = PLANES * TILE;

#if defined(FASTSIREN_TILES)
struct Hardware {
  struct Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  using Bytes = int8_t[TILE];

  // Written as assembly because intrinsics take no template arguments and those of GCC 12 do not say which memory they
  // read.
  INLINE void configure() {
    Config config{};
    config.palette = 1;
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  INLINE void release() { asm volatile("tilerelease"); }

  template <int T>
  INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  template <int T>
  INLINE void load(const int8_t* p) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(p), "r"(int64_t(64)), "i"(T), "m"(*reinterpret_cast<const Bytes*>(p)));
  }
  template <int T>
  INLINE void store(int32_t* p) {
    asm volatile("tilestored %%tmm%c3, (%1,%2,1)"
                 : "=m"(*reinterpret_cast<int32_t (*)[256]>(p))
                 : "r"(p), "r"(int64_t(64)), "i"(T));
  }
  // C += A B: C [16][16], A [16 rows][64 k], B [16 quads of k][16 columns][4]
  template <int C, int A, int B>
  INLINE void dot() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};
#endif

struct Emulated {
  alignas(64) int8_t tile[8][TILE];

  INLINE void configure() {}
  INLINE void release() {}
  template <int T>
  INLINE void zero() {
    std::memset(tile[T], 0, TILE);
  }
  template <int T>
  INLINE void load(const int8_t* p) {
    std::memcpy(tile[T], p, TILE);
  }
  template <int T>
  INLINE void store(int32_t* p) {
    std::memcpy(p, tile[T], TILE);
  }
  template <int C, int A, int B>
  void dot() {
    const __m512i high = _mm512_set1_epi8(-128);
    // The instruction multiplies unsigned by signed bytes: b + 128 is unsigned, and 128 times the row's sum is taken
    // off again.
    __m512i b[16];
    for (int k = 0; k < 16; k++) b[k] = _mm512_xor_si512(_mm512_load_si512(tile[B] + k * 64), high);
    for (int m = 0; m < 16; m++) {
      const int8_t* a = tile[A] + m * 64;
      __m512i sum = _mm512_load_si512(tile[C] + m * 64);
      UNROLL(16)
      for (int k = 0; k < 16; k++) {
        int32_t quad;
        std::memcpy(&quad, a + k * 4, 4);
        sum = _mm512_dpbusd_epi32(sum, b[k], _mm512_set1_epi32(quad));
      }
      const __m512i excess = _mm512_dpbusd_epi32(_mm512_setzero_si512(), high, _mm512_load_si512(a));
      _mm512_store_si512(tile[C] + m * 64, _mm512_sub_epi32(sum, _mm512_set1_epi32(_mm512_reduce_add_epi32(excess))));
    }
  }
};

// The six leading products of three digits by three, of one k tile: sums of weight 2^32, 2^24 and 2^16 in tiles 0, 1
// and 2.
template <class Tiles>
INLINE void six_products(Tiles& t, const int8_t* a, const int8_t* b) {
  t.template load<3>(b);
  t.template load<6>(a);
  t.template dot<0, 6, 3>();
  t.template load<4>(b + TILE);
  t.template dot<1, 6, 4>();
  t.template load<5>(b + 2 * TILE);
  t.template dot<2, 6, 5>();
  t.template load<7>(a + TILE);
  t.template dot<1, 7, 3>();
  t.template dot<2, 7, 4>();
  t.template load<6>(a + 2 * TILE);
  t.template dot<2, 6, 3>();
}

// Stacks of tiles: [channel][block of 16][k tile][digit 2, 1, 0][1024 bytes]; `channel` is the step between channels, 0
// when shared.
struct Operand {
  const int8_t* base;
  int64_t channel, blocks, k_tiles;
  INLINE const int8_t* at(int64_t c, int64_t block) const { return base + c * channel + block * k_tiles * STACK; }
};

constexpr int64_t SUMS = PLANES * 256;  // int32 sums of one block and channel: [level][16][16]

// Every block of A by every block of B: sums of all channels to scratch [2][channel][SUMS], then epilogue(sums, quad,
// a, b) for each quad of rows. The epilogue of a block runs between the tile products of the next one, which keep
// another part of the core busy.
template <class Tiles, class Epilogue>
INLINE void tile_products(Tiles& t, const Operand& A, const Operand& B, int64_t channels, int32_t* scratch,
                          Epilogue&& epilogue) {
  int32_t *now = scratch, *before = scratch + channels * SUMS;
  const int64_t steps = channels * A.k_tiles, blocks = A.blocks * B.blocks;
  int64_t a = 0, b = 0, last_a = 0, last_b = 0;
  for (int64_t block = 0; block <= blocks; block++) {
    int64_t quad = block ? 0 : 4, step = 0;
    for (int64_t c = 0; c < channels && block < blocks; c++) {
      const int8_t *pa = A.at(c, a), *pb = B.at(c, b);
      t.template zero<0>();
      t.template zero<1>();
      t.template zero<2>();
      for (int64_t k = 0; k < A.k_tiles; k++, pa += STACK, pb += STACK) {
        six_products(t, pa, pb);
        for (step++; quad < 4 && quad * steps < step * 4; quad++) epilogue(before, quad, last_a, last_b);
      }
      t.template store<0>(now + c * SUMS);
      t.template store<1>(now + c * SUMS + 256);
      t.template store<2>(now + c * SUMS + 512);
    }
    for (; quad < 4; quad++) epilogue(before, quad, last_a, last_b);
    int32_t* swap = now;
    now = before, before = swap;
    last_a = a, last_b = b;
    if (++b == B.blocks) b = 0, a++;
  }
}
