/* What is done to each token's numbers between the products. */
#include <math.h>
#include <string.h>

#include "vectors.h"

/* So few tokens are done before another thread has begun. */
enum { ALONE = 24 };

/* y = x / rms(x) ⊙ weight, for each of `rows` rows of x[rows][size]. */
void promptq_norm(long threads, long rows, long size, float epsilon, const float *x, const float *weight, float *y)
{
#pragma omp parallel for num_threads(threads) if (rows > ALONE)
    for (long r = 0; r < rows; r++) {
        const float *from = x + r * size;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < size; i++) squares += from[i] * from[i];
        float scale = 1 / sqrtf(squares / size + epsilon);
        for (long i = 0; i < size; i++) y[r * size + i] = from[i] * scale * weight[i];
    }
}

/* Turn one head by its token's position: the two halves are the parts of complex numbers (Su et al. 2021,
 * https://arxiv.org/abs/2104.09864). */
INLINE void turn(const float *from, const float *cosine, const float *sine, long dim, float *to)
{
    long half = dim / 2;
    for (long d = 0; d < half; d++) {
        float x = from[d], y = from[d + half];
        to[d] = x * cosine[d] - y * sine[d];
        to[d + half] = y * cosine[d + half] + x * sine[d + half];
    }
}

/* Turn queries where they are; turn keys, and put them and the values into their columns of the tokens' rows.
 * States: [tokens][heads + 2 * key_heads][dim], queries, keys, values. cosine, sine: [tokens][dim]. See attention.c. */
void promptq_place(long threads, long tokens, long heads, long key_heads, long dim, long head_stride, float *states,
                   const float *cosine, const float *sine, const long *starts, const long *columns, float *keys,
                   float *values)
{
#pragma omp parallel for num_threads(threads) if (tokens > ALONE)
    for (long token = 0; token < tokens; token++) {
        float *query = states + token * (heads + 2 * key_heads) * dim, *key = query + heads * dim;
        const float *cosines = cosine + token * dim, *sines = sine + token * dim;
        for (long h = 0; h < heads; h++) turn(query + h * dim, cosines, sines, dim, query + h * dim);
        for (long h = 0; h < key_heads; h++) {
            long place = (starts[token] + h * head_stride + columns[token]) * dim;
            turn(key + h * dim, cosines, sines, dim, keys + place);
            memcpy(values + place, key + (key_heads + h) * dim, dim * sizeof(float));
        }
    }
}
