/* Floats that the processor treats as one: as many as a register of it holds, or MOST_LANES where a file wants no more.
 * GCC and Clang make AVX-512, AVX or NEON of them, by the flags that they are given. */
#pragma once

#ifndef MOST_LANES
#define MOST_LANES 16
#endif

#if defined(__AVX512F__) && MOST_LANES >= 16
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int Integers __attribute__((vector_size(4 * LANES), aligned(4)));

/* Called with constants, so that loops over them are unrolled and their arrays stay in registers. */
#define INLINE static inline __attribute__((always_inline))

/* x in every lane. Nothing is subtracted in the end: x - 0 is x, whatever x is. */
INLINE Vector all(float x) { return x - (Vector){0}; }

INLINE Vector load(const float *x) { return *(const Vector *)x; }

INLINE void store(float *x, Vector value) { *(Vector *)x = value; }

typedef float v4 __attribute__((vector_size(16), aligned(4)));

INLINE float sum_of_4(v4 x)
{
    x += __builtin_shufflevector(x, x, 2, 3, 0, 1);
    return x[0] + x[1];
}

#if LANES == 4
INLINE float sum(Vector x) { return sum_of_4(x); }
#elif LANES == 8
INLINE float sum(Vector x)
{
    return sum_of_4(__builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7));
}
#endif

INLINE Vector chosen(Integers which, Vector yes, Vector no)
{
    return (Vector)((which & (Integers)yes) | (~which & (Integers)no));
}

/* e to the x, within 2 units of the last place, from e^-87 to e^88; NaN stays NaN. x = n·ln 2 + r, |r| <= ln 2 / 2, ln 2
 * in two parts, the first of which times n is exact; e^r by the first terms of its series. */
INLINE Vector exponential(Vector x)
{
    x = chosen(x < all(-87), all(-87), x);
    x = chosen(x > all(88), all(88), x);
    Vector shifted = x * all(1.44269504f) + all(12582912); /* 1.5 * 2^23: rounds to a whole number, in the lowest bits */
    Vector n = shifted - all(12582912);
    Vector r = x - n * all(0.693359375f) - n * all(-2.12194440e-4f);
    Vector series = all(1 / 5040.f);
    series = series * r + all(1 / 720.f);
    series = series * r + all(1 / 120.f);
    series = series * r + all(1 / 24.f);
    series = series * r + all(1 / 6.f);
    series = series * r + all(1 / 2.f);
    series = series * r + all(1);
    series = series * r + all(1);
    Integers power = ((Integers)shifted + 127) << 23;
    return series * (Vector)power;
}
