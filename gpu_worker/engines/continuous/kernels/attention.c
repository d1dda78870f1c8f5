/* Attention of single tokens over the rows' keys and values: each reads its own row's columns, and no more.
 *
 * Keys and values are vectors of dim: a row's column c of key head h is the one at start + h * head_stride + c, where
 * start is the row's. The query heads that share a key head are taken together, so
 * that its keys and values come from memory once. Columns go by in blocks that stay in the nearest cache; the softmax is
 * carried from block to block (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867).
 */
#include <math.h>

/* Memory sets the pace here, and wider vectors would not change it. So a head's dim need be a multiple of 8 only, on
 * every processor, and GCC compares without AVX-512's masks, which cost more than they save. */
#define MOST_LANES 8
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("no-avx512f")
#endif
#include "vectors.h"

enum { BLOCK = 32, MOST_DIM = 256, WIDE = 8, CACHE_LINE = 16 };

/* One query head's softmax so far: the largest score, the sum of exp(score - largest), and the values weighed by it. */
typedef struct {
    float largest, total, values[MOST_DIM];
} State;

INLINE float dot(const float *x, const float *y, long dim)
{
    Vector sums = all(0);
    for (long d = 0; d < dim; d += LANES) sums += load(x + d) * load(y + d);
    return sum(sums);
}

/* The largest of x and BLOCK scores. A score that is not a number counts as none here, and spoils the sum later. */
INLINE float greatest(float x, const float *scores)
{
    Vector most = all(x);
    for (long c = 0; c < BLOCK; c += LANES) most = chosen(load(scores + c) > most, load(scores + c), most);
    for (long lane = 0; lane < LANES; lane++) x = most[lane] > x ? most[lane] : x;
    return x;
}

/* values[vectors * LANES] of the state += weights · block, for a part of dim that fits into registers. */
INLINE void weigh(int vectors, float *into, const float *weights, const float *block, long columns, long dim, float scale)
{
    Vector sums[WIDE];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sums[v] = load(into + v * LANES) * all(scale);
    for (long c = 0; c < columns; c++) {
        Vector weight = all(weights[c]);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sums[v] += weight * load(block + c * dim + v * LANES);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) store(into + v * LANES, sums[v]);
}

/* Have memory send one column's floats, which are needed soon. */
INLINE void fetch(const float *column, long dim)
{
    for (long d = 0; d < dim; d += CACHE_LINE) __builtin_prefetch(column + d, 0, 2);
}

/* Take in one block of columns, and fetch the first `ahead` of the next one. `scores` has room for BLOCK. */
INLINE void take(State *state, float *scores, const float *query, const float *keys, const float *values, long columns,
                 long ahead, long dim, float scale)
{
    for (long c = 0; c < columns; c++) {
        if (c < ahead) fetch(keys + (BLOCK + c) * dim, dim), fetch(values + (BLOCK + c) * dim, dim);
        scores[c] = dot(query, keys + c * dim, dim) * scale;
    }
    for (long c = columns; c < BLOCK; c++) scores[c] = -INFINITY;
    float largest = greatest(state->largest, scores);
    Vector totals = all(0);
    for (long c = 0; c < BLOCK; c += LANES) {
        Vector weights = exponential(load(scores + c) - all(largest));
        store(scores + c, weights);
        totals += weights;
    }
    float kept = expf(state->largest - largest);
    long d = 0;
    for (; d + WIDE * LANES <= dim; d += WIDE * LANES)
        weigh(WIDE, state->values + d, scores, values + d, columns, dim, kept);
    for (; d < dim; d += LANES) weigh(1, state->values + d, scores, values + d, columns, dim, kept);
    state->largest = largest;
    state->total = state->total * kept + sum(totals);
}

INLINE void attend(const float *query, const float *keys, const float *values, long columns, long groups, long dim,
                   float *out)
{
    float scale = 1 / sqrtf(dim), scores[BLOCK];
    State states[groups];
    for (long g = 0; g < groups; g++) {
        states[g].largest = -INFINITY;
        states[g].total = 0;
        for (long d = 0; d < dim; d++) states[g].values[d] = 0;
    }
    for (long first = 0; first < columns; first += BLOCK) {
        long left = columns - first, count = left < BLOCK ? left : BLOCK;
        for (long g = 0; g < groups; g++)
            take(states + g, scores, query + g * dim, keys + first * dim, values + first * dim, count,
                 g ? 0 : left - BLOCK, dim, scale);
    }
    for (long g = 0; g < groups; g++)
        for (long d = 0; d < dim; d++) out[g * dim + d] = states[g].values[d] / states[g].total;
}

/* out[tokens][heads * dim]: each token over columns 0 to columns[token] of its row, which begins at starts[token].
 * Queries: `stride` floats from one token's to the next; starts, head_stride: in vectors of dim; groups: query heads to
 * a key head. dim: a multiple of 8, at most 256. */
void promptq_attend(long threads, long tokens, long stride, long key_heads, long groups, long dim, long head_stride,
                    const float *queries, const float *keys, const float *values, const long *starts,
                    const long *columns, float *out)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic, 2)
    for (long item = 0; item < tokens * key_heads; item++) {
        long token = item / key_heads, head = item % key_heads, query = head * groups * dim;
        long place = (starts[token] + head * head_stride) * dim, count = columns[token] + 1;
        const float *from = queries + token * stride + query;
        float *to = out + token * key_heads * groups * dim + query;
        if (dim == 64) attend(from, keys + place, values + place, count, groups, 64, to);
        else attend(from, keys + place, values + place, count, groups, dim, to);
    }
}
