/* y = x·Wᵀ for few to some hundred rows of x: the bulk of every step.
 *
 * With few rows such a product waits for memory, with many for arithmetic; what matters in between is to do both at
 * once. So the weights lie in the order in which they are read, in panels of outputs: [outputs / PANEL][size][PANEL]. A
 * panel stays in the cache while up to ROWS rows at a time are multiplied with it, and meanwhile the next one is
 * fetched, a little with each row group. Threads take runs of panels, long ones first: the next panel is mostly for the
 * thread that fetches it, and none waits long for another one.
 */
#include <stddef.h>

#include "vectors.h"

/* A panel's vectors, and how many rows go by together. Their sums, one column of the panel and one x are what the
 * registers hold: AVX2 has 16 of them, AVX-512 and NEON 32. */
#if LANES == 16
enum { VECTORS = 3, ROWS = 9 };
#elif LANES == 8
enum { VECTORS = 2, ROWS = 6 };
#else
enum { VECTORS = 4, ROWS = 6 };
#endif

enum { PANEL = VECTORS * LANES, CACHE_LINE = 64, LINES = PANEL * 4 / CACHE_LINE, MOST_FETCHING = 8 };

/* For those who lay weights out. */
const long promptq_panel = PANEL;

/* out[rows][PANEL] = x[rows] · one panel. Meanwhile fetches memory from `next` on, `step` bytes for each of a column's
 * cache lines. */
INLINE void multiply(int rows, const float *x, long size, const float *panel, const char *next, long step, float *out)
{
    Vector sums[ROWS][VECTORS];
#pragma GCC unroll 9
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 9
        for (int v = 0; v < VECTORS; v++) sums[r][v] = all(0);
    for (long i = 0; i < size; i++) {
        Vector weights[VECTORS];
#pragma GCC unroll 9
        for (int v = 0; v < VECTORS; v++) weights[v] = load(panel + i * PANEL + v * LANES);
#pragma GCC unroll 9
        for (int line = 0; line < LINES; line++) __builtin_prefetch(next + (LINES * i + line) * step, 0, 2);
#pragma GCC unroll 9
        for (int r = 0; r < rows; r++) {
            Vector factor = all(x[r * size + i]);
#pragma GCC unroll 9
            for (int v = 0; v < VECTORS; v++) sums[r][v] += factor * weights[v];
        }
    }
#pragma GCC unroll 9
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 9
        for (int v = 0; v < VECTORS; v++) store(out + r * PANEL + v * LANES, sums[r][v]);
}

/* Code for each number of rows. */
#define CASE(n) \
    case n: \
        if (n <= ROWS) multiply(n, x, size, panel, next, step, out); \
        break;

static void multiply_rows(
    int rows, const float *x, long size, const float *panel, const char *next, long step, float *out)
{
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
    }
}

/* A row group's turn with a panel: each of the first groups fetches its share of the panel behind. */
static void multiply_turn(
    int rows, const float *x, long size, const float *panel, long turn, long turns, float *out)
{
    long fetching = turns < MOST_FETCHING ? turns : MOST_FETCHING, step = turn < fetching ? CACHE_LINE / fetching : 0;
    const char *next = (const char *)(panel + size * PANEL) + turn * size * LINES * step;
    multiply_rows(rows, x, size, panel, next, step, out);
}

/* `width` outputs of one row, those of a panel or what is left of the last one: y = out + bias + summand. */
INLINE void finish(const float *out, long width, const float *bias, const float *summand, float *y)
{
    long o = 0;
    for (; width == PANEL && o < width; o += LANES) {
        Vector value = load(out + o);
        if (bias) value += load(bias + o);
        if (summand) value += load(summand + o);
        store(y + o, value);
    }
    for (; o < width; o++) y[o] = out[o] + (bias ? bias[o] : 0) + (summand ? summand[o] : 0);
}

/* y[rows][outputs] = x[rows][size] · Wᵀ + bias[outputs] + summand[rows][outputs]; the last two may be NULL.
 * W: [ceil(outputs / PANEL)][size][PANEL]. What is fetched behind the last panel is never used, and need not exist. */
void promptq_product(long threads, long rows, long size, long outputs, const float *x, const float *weights,
                     const float *bias, const float *summand, float *y)
{
    long panels = (outputs + PANEL - 1) / PANEL, turns = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(threads) schedule(guided)
    for (long p = 0; p < panels; p++) {
        long first = p * PANEL, width = outputs - first < PANEL ? outputs - first : PANEL;
        for (long turn = 0; turn < turns; turn++) {
            long start = rows * turn / turns, stop = rows * (turn + 1) / turns;
            float out[ROWS * PANEL];
            multiply_turn(stop - start, x + start * size, size, weights + first * size, turn, turns, out);
            for (long r = start; r < stop; r++)
                finish(out + (r - start) * PANEL, width, bias ? bias + first : NULL,
                       summand ? summand + r * outputs + first : NULL, y + r * outputs + first);
        }
    }
}

/* y = silu(x·Gᵀ) ⊙ (x·Uᵀ). W holds a panel of G, the same one of U, and so on. */
void promptq_gated(long threads, long rows, long size, long outputs, const float *x, const float *weights, float *y)
{
    long panels = (outputs + PANEL - 1) / PANEL, turns = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(threads) schedule(guided)
    for (long p = 0; p < panels; p++) {
        const float *gates = weights + 2 * p * PANEL * size, *ups = gates + PANEL * size;
        long first = p * PANEL, width = outputs - first < PANEL ? outputs - first : PANEL;
        for (long turn = 0; turn < turns; turn++) {
            long start = rows * turn / turns, stop = rows * (turn + 1) / turns, count = stop - start;
            float gate[ROWS * PANEL], up[ROWS * PANEL];
            multiply_turn(count, x + start * size, size, gates, turn, turns, gate);
            multiply_turn(count, x + start * size, size, ups, turn, turns, up);
            for (long i = 0; i < count * PANEL; i += LANES) {
                Vector g = load(gate + i);
                store(gate + i, load(up + i) * g / (all(1) + exponential(-g)));
            }
            for (long r = 0; r < count; r++)
                finish(gate + r * PANEL, width, NULL, NULL, y + (start + r) * outputs + first);
        }
    }
}
