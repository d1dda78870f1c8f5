/* Eight floats that the processor treats as one. GCC and Clang make AVX of them where there is any, else less. */
#pragma once

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef float v4 __attribute__((vector_size(16), aligned(4)));
typedef int v8i __attribute__((vector_size(32), aligned(4)));

enum { LANES = 8 };

/* Called with constants, so that loops over them are unrolled and their arrays stay in registers. */
#define INLINE static inline __attribute__((always_inline))

INLINE v8 all(float x) { return (v8){x, x, x, x, x, x, x, x}; }

INLINE v8 load(const float *x) { return *(const v8 *)x; }

INLINE void store(float *x, v8 value) { *(v8 *)x = value; }

INLINE float sum(v8 x)
{
    v4 half = __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
    half += __builtin_shufflevector(half, half, 2, 3, 0, 1);
    return half[0] + half[1];
}

INLINE v8 chosen(v8i which, v8 yes, v8 no) { return (v8)((which & (v8i)yes) | (~which & (v8i)no)); }

/* e to the x, within 2 units of the last place, from e^-87 to e^88; NaN stays NaN. x = n·ln 2 + r, |r| <= ln 2 / 2, ln 2
 * in two parts, the first of which times n is exact; e^r by the first terms of its series. */
INLINE v8 exponential(v8 x)
{
    x = chosen(x < all(-87), all(-87), x);
    x = chosen(x > all(88), all(88), x);
    v8 shifted = x * all(1.44269504f) + all(12582912); /* 1.5 * 2^23: rounds to a whole number, in the lowest bits */
    v8 n = shifted - all(12582912);
    v8 r = x - n * all(0.693359375f) - n * all(-2.12194440e-4f);
    v8 series = all(1 / 5040.f);
    series = series * r + all(1 / 720.f);
    series = series * r + all(1 / 120.f);
    series = series * r + all(1 / 24.f);
    series = series * r + all(1 / 6.f);
    series = series * r + all(1 / 2.f);
    series = series * r + all(1);
    series = series * r + all(1);
    v8i power = ((v8i)shifted + 127) << 23;
    return series * (v8)power;
}
