/* The kernels beside plain loops in double precision, for processors that Python does not run on here. Prints the
 * greatest difference of each, and fails above LIMIT. */
#include <math.h>
#include <stdio.h>

#define LIMIT 1e-4

extern const long promptq_panel;
void promptq_product(long, long, long, long, const float *, const float *, const float *, const float *, float *);
void promptq_gated(long, long, long, long, const float *, const float *, float *);
void promptq_norm(long, long, long, float, const float *, const float *, float *);
void promptq_attend(long, long, long, long, long, long, long, const float *, const float *, const float *, const long *,
                    const long *, float *);

enum { ROWS = 21, SIZE = 40, OUTPUTS = 72, MOST = 200000, KEY_HEADS = 2, GROUPS = 3, DIM = 72, WIDTH = 80, TOKENS = 3 };
static float x[MOST], w[MOST], u[MOST], packed[MOST], bias[MOST], y[MOST];
static unsigned state = 7;

static void draw(float *to, long count)
{
    for (long i = 0; i < count; i++) to[i] = ((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
}

/* Weights in panels, every `of`-th of which is theirs. */
static void pack(const float *from, long turn, long of)
{
    for (long o = 0; o < OUTPUTS; o++)
        for (long i = 0; i < SIZE; i++)
            packed[((o / promptq_panel * of + turn) * SIZE + i) * promptq_panel + o % promptq_panel] = from[o * SIZE + i];
}

static double dot(const float *a, const float *b, long size)
{
    double sum = 0;
    for (long i = 0; i < size; i++) sum += (double)a[i] * b[i];
    return sum;
}

static double product(void)
{
    double worst = 0;
    pack(w, 0, 1);
    promptq_product(2, ROWS, SIZE, OUTPUTS, x, packed, bias, u, y);
    for (long r = 0; r < ROWS; r++)
        for (long o = 0; o < OUTPUTS; o++) {
            double wanted = dot(x + r * SIZE, w + o * SIZE, SIZE) + bias[o] + u[r * OUTPUTS + o];
            worst = fmax(worst, fabs(wanted - y[r * OUTPUTS + o]));
        }
    return worst;
}

static double gated(void)
{
    double worst = 0;
    pack(w, 0, 2);
    pack(u, 1, 2);
    promptq_gated(2, ROWS, SIZE, OUTPUTS, x, packed, y);
    for (long r = 0; r < ROWS; r++)
        for (long o = 0; o < OUTPUTS; o++) {
            double gate = dot(x + r * SIZE, w + o * SIZE, SIZE), up = dot(x + r * SIZE, u + o * SIZE, SIZE);
            worst = fmax(worst, fabs(up * gate / (1 + exp(-gate)) - y[r * OUTPUTS + o]));
        }
    return worst;
}

static double norm(void)
{
    double worst = 0;
    promptq_norm(2, ROWS, SIZE, 1e-5f, x, bias, y);
    for (long r = 0; r < ROWS; r++) {
        double scale = 1 / sqrt(dot(x + r * SIZE, x + r * SIZE, SIZE) / SIZE + 1e-5);
        for (long i = 0; i < SIZE; i++) worst = fmax(worst, fabs(x[r * SIZE + i] * scale * bias[i] - y[r * SIZE + i]));
    }
    return worst;
}

static double attention(void)
{
    long starts[TOKENS] = {KEY_HEADS * WIDTH, 0, KEY_HEADS * WIDTH}, columns[TOKENS] = {0, 40, 79}, heads = KEY_HEADS * GROUPS;
    double worst = 0, weights[WIDTH];
    promptq_attend(2, TOKENS, heads * DIM, KEY_HEADS, GROUPS, DIM, WIDTH, x, w, u, starts, columns, y);
    for (long t = 0; t < TOKENS; t++)
        for (long h = 0; h < heads; h++) {
            long place = (starts[t] + h / GROUPS * WIDTH) * DIM;
            double total = 0;
            for (long c = 0; c <= columns[t]; c++)
                total += weights[c] = exp(dot(x + (t * heads + h) * DIM, w + place + c * DIM, DIM) / sqrt(DIM));
            for (long d = 0; d < DIM; d++) {
                double wanted = 0;
                for (long c = 0; c <= columns[t]; c++) wanted += weights[c] / total * u[place + c * DIM + d];
                worst = fmax(worst, fabs(wanted - y[(t * heads + h) * DIM + d]));
            }
        }
    return worst;
}

int main(void)
{
    draw(x, MOST), draw(w, MOST), draw(u, MOST), draw(bias, MOST);
    double all[] = {product(), gated(), norm(), attention()};
    int failed = 0;
    for (int i = 0; i < 4; i++) {
        printf("%.1e ", all[i]);
        failed |= !(all[i] < LIMIT);
    }
    printf("panel %ld\n", promptq_panel);
    return failed;
}
