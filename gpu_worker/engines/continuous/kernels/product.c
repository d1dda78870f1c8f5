/* y = x·Wᵀ for few to some hundred rows of x: the bulk of every step.
 *
 * With few rows such a product waits for memory, with many for arithmetic; what matters in between is to do both at
 * once. So the weights lie in the order in which they are read, in panels of 16 outputs: [outputs / 16][size][16]. A
 * panel stays in the cache while up to 6 rows at a time are multiplied with it, and meanwhile the next one is fetched,
 * a little with each row group. Twelve sums, two weights and one x are what 16 registers hold.
 */
#include "vectors.h"

enum { PANEL = 2 * LANES, ROWS = 6, CACHE_LINE = 64, LEAST_FETCH = 8 };

/* out[rows][PANEL] = x[rows] · one panel. Meanwhile fetches memory from `next` on, `step` bytes for each column. */
INLINE void multiply(int rows, const float *x, long size, const float *panel, const char *next, long step, float *out)
{
    v8 sums[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = all(0);
    for (long i = 0; i < size; i++) {
        v8 low = load(panel + i * PANEL), high = load(panel + i * PANEL + LANES);
        __builtin_prefetch(next + i * step, 0, 2);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            v8 factor = all(x[r * size + i]);
            sums[r][0] += factor * low;
            sums[r][1] += factor * high;
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        store(out + r * PANEL, sums[r][0]);
        store(out + r * PANEL + LANES, sums[r][1]);
    }
}

static void multiply_rows(
    int rows, const float *x, long size, const float *panel, const char *next, long step, float *out)
{
    switch (rows) {
    case 1: multiply(1, x, size, panel, next, step, out); break;
    case 2: multiply(2, x, size, panel, next, step, out); break;
    case 3: multiply(3, x, size, panel, next, step, out); break;
    case 4: multiply(4, x, size, panel, next, step, out); break;
    case 5: multiply(5, x, size, panel, next, step, out); break;
    default: multiply(6, x, size, panel, next, step, out);
    }
}

/* A row group's turn with a panel: group `turn` of `turns` fetches its share of the panel behind. With many groups the
 * arithmetic takes so long that the processor's own look-ahead is enough, and the share is one line, fetched in vain. */
static void multiply_turn(
    int rows, const float *x, long size, const float *panel, long turn, long turns, float *out)
{
    long step = CACHE_LINE / turns;
    if (step < LEAST_FETCH) step = 0;
    multiply_rows(rows, x, size, panel, (const char *)(panel + size * PANEL) + turn * size * step, step, out);
}

static long chunk(long panels, long threads)
{
    long share = panels / (threads * 8);
    return share ? share : 1;
}

/* y[rows][outputs] = x[rows][size] · Wᵀ + bias[outputs] + summand[rows][outputs]; the last two may be NULL.
 * W: [ceil(outputs / PANEL)][size][PANEL]. What is fetched behind the last panel is never used, and need not exist. */
void promptq_product(long threads, long rows, long size, long outputs, const float *x, const float *weights,
                     const float *bias, const float *summand, float *y)
{
    long panels = (outputs + PANEL - 1) / PANEL, turns = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk(panels, threads))
    for (long p = 0; p < panels; p++) {
        long first = p * PANEL, width = outputs - first < PANEL ? outputs - first : PANEL;
        for (long turn = 0; turn < turns; turn++) {
            long start = rows * turn / turns, stop = rows * (turn + 1) / turns;
            float out[ROWS * PANEL];
            multiply_turn(stop - start, x + start * size, size, weights + first * size, turn, turns, out);
            for (long r = start; r < stop; r++)
                for (long o = 0; o < width; o++) {
                    float value = out[(r - start) * PANEL + o];
                    if (bias) value += bias[first + o];
                    if (summand) value += summand[r * outputs + first + o];
                    y[r * outputs + first + o] = value;
                }
        }
    }
}

/* y = silu(x·Gᵀ) ⊙ (x·Uᵀ). W holds a panel of G, the same one of U, and so on. */
void promptq_gated(long threads, long rows, long size, long outputs, const float *x, const float *weights, float *y)
{
    long panels = (outputs + PANEL - 1) / PANEL, turns = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk(panels, threads))
    for (long p = 0; p < panels; p++) {
        const float *gates = weights + 2 * p * PANEL * size, *ups = gates + PANEL * size;
        long first = p * PANEL, width = outputs - first < PANEL ? outputs - first : PANEL;
        for (long turn = 0; turn < turns; turn++) {
            long start = rows * turn / turns, stop = rows * (turn + 1) / turns, count = stop - start;
            float gate[ROWS * PANEL], up[ROWS * PANEL];
            multiply_turn(count, x + start * size, size, gates, turn, turns, gate);
            multiply_turn(count, x + start * size, size, ups, turn, turns, up);
            for (long i = 0; i < count * PANEL; i += LANES) {
                v8 g = load(gate + i);
                store(gate + i, load(up + i) * g / (all(1) + exponential(-g)));
            }
            for (long r = 0; r < count; r++)
                for (long o = 0; o < width; o++) y[(start + r) * outputs + first + o] = gate[r * PANEL + o];
        }
    }
}
