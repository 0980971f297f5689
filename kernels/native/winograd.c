/* 3x3 convolution, stride 1, zero padding 1, float32, channels last, by Winograd's minimal filtering F(4x4, 3x3).

   Every 4x4 tile y of an output channel comes from the 6x6 tiles d_c of the input channels around it,

       y = A^T [ sum_c (G w_c G^T) * (B^T d_c B) ] A,      * entry by entry,

   which takes 36 multiplications a channel instead of 144: as a polynomial product, through its values at the points
   0, +-P, +-Q and infinity. For many tiles at once the sum is a matrix product, (tiles x inputs) (inputs x outputs),
   at each of the 36 pairs of points.

   The weight's gradient from g, that of y, is G^T [ sum_tiles (A g A^T) * (B^T d_c B) ] G, matrix products (inputs x
   tiles) (tiles x outputs); the input's gradient is a convolution of g with the weight turned around.

   Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4. Their points are
   0, +-1, +-2 and infinity; these halve the rounding error and are as exact in binary. */

#define REAL float
#include "dense.h"

#include <omp.h>
#include <stdint.h>
#include <string.h>

enum { TILE = 4, PATCH = 6, POINTS = PATCH * PATCH, BLOCK_TILES = 24, LINE = 64 / sizeof(real) };

static const real P = 0.625f, Q = 1.5f, P2 = 0.390625f, Q2 = 2.25f;

/* 1 / prod_j (p_i - p_j) of Lagrange's interpolation, at 0, +-P and +-Q */
static const real AT_0 = 1 / (0.390625f * 2.25f), AT_P = 1 / (2 * 0.390625f * (0.390625f - 2.25f)),
                  AT_Q = 1 / (2 * 2.25f * (2.25f - 0.390625f));

typedef int32_t bits __attribute__((vector_size(VECTOR_BYTES)));

static inline vec relu(vec x) { return (vec)((bits)x & ~(x < 0)); } /* NaN stays NaN */

#define ALIGNED _Alignas(VECTOR_BYTES)
#define AT(pointer) (*(vec *)(pointer))
#define GET(pointer) (*(const vec *)(pointer))

/* B^T d for six vectors d, `apart` apart in memory, into six that are `step` apart. */
static inline void input_values(const real *d, ptrdiff_t apart, real *out, ptrdiff_t step) {
  const vec d0 = GET(d), d1 = GET(d + apart), d2 = GET(d + 2 * apart), d3 = GET(d + 3 * apart),
            d4 = GET(d + 4 * apart), d5 = GET(d + 5 * apart);
  const vec even_p = d4 - Q2 * d2, odd_p = d3 - Q2 * d1, even_q = d4 - P2 * d2, odd_q = d3 - P2 * d1;
  AT(out) = P2 * Q2 * d0 + (d4 - (P2 + Q2) * d2);
  AT(out + step) = even_p + P * odd_p;
  AT(out + 2 * step) = even_p - P * odd_p;
  AT(out + 3 * step) = even_q + Q * odd_q;
  AT(out + 4 * step) = even_q - Q * odd_q;
  AT(out + 5 * step) = P2 * Q2 * d1 + (d5 - (P2 + Q2) * d3);
}

/* G w for three vectors */
static inline void weight_values(const real *w, ptrdiff_t apart, real *out, ptrdiff_t step) {
  const vec w0 = GET(w), w1 = GET(w + apart), w2 = GET(w + 2 * apart);
  const vec even_p = AT_P * w0 + AT_P * P2 * w2, even_q = AT_Q * w0 + AT_Q * Q2 * w2;
  AT(out) = AT_0 * w0;
  AT(out + step) = even_p + AT_P * P * w1;
  AT(out + 2 * step) = even_p - AT_P * P * w1;
  AT(out + 3 * step) = even_q + AT_Q * Q * w1;
  AT(out + 4 * step) = even_q - AT_Q * Q * w1;
  AT(out + 5 * step) = w2;
}

/* A^T m for six vectors */
static inline void output_values(const real *m, ptrdiff_t apart, real *out, ptrdiff_t step) {
  const vec m1 = GET(m + apart), m2 = GET(m + 2 * apart), m3 = GET(m + 3 * apart), m4 = GET(m + 4 * apart);
  const vec even_p = m1 + m2, odd_p = m1 - m2, even_q = m3 + m4, odd_q = m3 - m4;
  AT(out) = GET(m) + even_p + even_q;
  AT(out + step) = P * odd_p + Q * odd_q;
  AT(out + 2 * step) = P2 * even_p + Q2 * even_q;
  AT(out + 3 * step) = P2 * P * odd_p + (Q2 * Q * odd_q + GET(m + 5 * apart));
}

/* A g for four vectors */
static inline void gradient_values(const real *g, ptrdiff_t apart, real *out, ptrdiff_t step) {
  const vec g0 = GET(g), g1 = GET(g + apart), g2 = GET(g + 2 * apart), g3 = GET(g + 3 * apart);
  const vec even_p = g0 + P2 * g2, odd_p = g1 + P2 * g3, even_q = g0 + Q2 * g2, odd_q = g1 + Q2 * g3;
  AT(out) = g0;
  AT(out + step) = even_p + P * odd_p;
  AT(out + 2 * step) = even_p - P * odd_p;
  AT(out + 3 * step) = even_q + Q * odd_q;
  AT(out + 4 * step) = even_q - Q * odd_q;
  AT(out + 5 * step) = g3;
}

/* G^T u for six vectors */
static inline void weight_gradients(const real *u, ptrdiff_t apart, real *out, ptrdiff_t step) {
  const vec u1 = GET(u + apart), u2 = GET(u + 2 * apart), u3 = GET(u + 3 * apart), u4 = GET(u + 4 * apart);
  const vec even_p = AT_P * (u1 + u2), odd_p = AT_P * P * (u1 - u2);
  const vec even_q = AT_Q * (u3 + u4), odd_q = AT_Q * Q * (u3 - u4);
  AT(out) = AT_0 * GET(u) + even_p + even_q;
  AT(out + step) = odd_p + odd_q;
  AT(out + 2 * step) = P2 * even_p + Q2 * even_q + GET(u + 5 * apart);
}

/* A panel of outputs keeps the right factor of a product together in memory. */
static inline int panel_of(int outputs) { return outputs % (2 * LANES) ? LANES : 2 * LANES; }

/* U (36, outputs / panel, inputs, panel) = G w G^T for w (3, 3, inputs, outputs). */
static void transform_weight(const real *weight, int inputs, int outputs, int threads, real *U) {
  const int panel = panel_of(outputs);
  const ptrdiff_t plane = (ptrdiff_t)inputs * outputs;
#pragma omp parallel for num_threads(threads)
  for (int c = 0; c < inputs; c++)
    for (int o = 0; o < outputs; o += LANES) {
      const real *w = weight + (ptrdiff_t)c * outputs + o;
      real *u = U + ((ptrdiff_t)(o / panel) * inputs + c) * panel + o % panel;
      ALIGNED real half[PATCH * 3 * LANES];
      for (int j = 0; j < 3; j++) weight_values(w + j * plane, 3 * plane, half + j * LANES, 3 * LANES);
      for (int i = 0; i < PATCH; i++) weight_values(half + i * 3 * LANES, LANES, u + PATCH * i * plane, plane);
    }
}

/* V[k * plane + c] = (B^T d_c B)_k for the patch d, whose rows and pixels lie `row` and `pixel` apart. */
static void transform_input(const real *d, ptrdiff_t row, ptrdiff_t pixel, int inputs, real *V, ptrdiff_t plane) {
  ALIGNED real half[POINTS * LANES];
  for (int c = 0; c < inputs; c += LANES, d += LANES, V += LANES) {
    for (int j = 0; j < PATCH; j++) input_values(d + j * pixel, row, half + j * LANES, PATCH * LANES);
    for (int i = 0; i < PATCH; i++) input_values(half + PATCH * i * LANES, LANES, V + PATCH * i * plane, plane);
  }
}

/* M[k * plane + o] = (A g_o A^T)_k for the tile g, laid out as a patch. */
static void transform_gradient(const real *g, ptrdiff_t row, ptrdiff_t pixel, int outputs, real *M, ptrdiff_t plane) {
  ALIGNED real half[PATCH * TILE * LANES];
  for (int o = 0; o < outputs; o += LANES, g += LANES, M += LANES) {
    for (int j = 0; j < TILE; j++) gradient_values(g + j * pixel, row, half + j * LANES, TILE * LANES);
    for (int i = 0; i < PATCH; i++) gradient_values(half + TILE * i * LANES, LANES, M + PATCH * i * plane, plane);
  }
}

/* The upper left rows x columns of A^T m A + bias, channel by channel, rectified where asked for. */
static void transform_output(
    const real *m, ptrdiff_t plane, const real *bias, const int rectify, int outputs, int rows, int columns, real *out,
    ptrdiff_t row, ptrdiff_t pixel) {
  ALIGNED real half[TILE * PATCH * LANES];
  ALIGNED real values[TILE * LANES];
  for (int o = 0; o < outputs; o += LANES, m += LANES, out += LANES) {
    for (int j = 0; j < PATCH; j++)
      output_values(m + j * plane, PATCH * plane, half + j * LANES, PATCH * LANES);
    for (int i = 0; i < rows; i++) {
      output_values(half + PATCH * i * LANES, LANES, values, LANES);
      for (int j = 0; j < columns; j++) {
        vec y = GET(values + j * LANES) + GET(bias + o);
        if (rectify) y = relu(y);
        AT(out + i * row + j * pixel) = y;
      }
    }
  }
}

typedef struct {
  int images, height, width, inputs, outputs, rectify;
} Shape;

/* A patch as (side, side, channels) that reaches beyond the picture, zeros there. */
static void padded_patch(
    const real *image, int height, int width, int channels, int top, int left, int side, real *patch) {
  const size_t bytes = channels * sizeof(real);
  for (int i = 0; i < side; i++)
    for (int j = 0; j < side; j++, patch += channels) {
      const int y = top + i, x = left + j;
      if (y < 0 || y >= height || x < 0 || x >= width)
        memset(patch, 0, bytes);
      else
        memcpy(patch, image + ((ptrdiff_t)y * width + x) * channels, bytes);
    }
}

static inline int tiles_along(int size) { return (size + TILE - 1) / TILE; }
static inline int smaller(int a, int b) { return a < b ? a : b; }

/* Planes of a block's values lie a cache line more apart than they need: powers of two would share cache sets. */
static inline ptrdiff_t block_plane(int channels) { return (ptrdiff_t)BLOCK_TILES * channels + LINE; }

static ptrdiff_t thread_scratch(const Shape *s) {
  return POINTS * (block_plane(s->inputs) + block_plane(s->outputs) + (s->inputs > s->outputs ? s->inputs : s->outputs));
}

/* Tiles are counted along rows, down a picture and through the pictures; this is where one begins. */
typedef struct {
  int64_t image;
  int top, left;
} Tile;

static Tile tile_at(const Shape *s, int64_t index) {
  const int across = tiles_along(s->width), down = tiles_along(s->height);
  return (Tile){index / across / down, index / across % down * TILE, index % across * TILE};
}

typedef void Transform(const real *d, ptrdiff_t row, ptrdiff_t pixel, int channels, real *values, ptrdiff_t plane);

/* The values of a block's tiles, (36, count, channels), each from a patch that begins `margin` before it. */
static void transform_block(
    const Shape *s, Transform *transform, const real *pictures, int channels, int side, int margin, int64_t first,
    int count, real *patch, real *values) {
  const ptrdiff_t row = (ptrdiff_t)s->width * channels, plane = block_plane(channels);
  for (int t = 0; t < count; t++, values += channels) {
    const Tile tile = tile_at(s, first + t);
    const int top = tile.top - margin, left = tile.left - margin;
    const real *picture = pictures + tile.image * s->height * row;
    if (top >= 0 && left >= 0 && top + side <= s->height && left + side <= s->width) {
      transform(picture + top * row + left * channels, row, channels, channels, values, plane);
    } else {
      padded_patch(picture, s->height, s->width, channels, top, left, side, patch);
      transform(patch, side * channels, channels, channels, values, plane);
    }
  }
}

/* Output tiles first, ..., first + count - 1. */
static void convolve_block(
    const Shape *s, const real *input, const real *U, const real *bias, int64_t first, int count, real *scratch,
    real *output) {
  const int panel = panel_of(s->outputs);
  const ptrdiff_t plane_in = block_plane(s->inputs), plane_out = block_plane(s->outputs);
  const ptrdiff_t row = (ptrdiff_t)s->width * s->outputs;
  real *V = scratch, *M = V + POINTS * plane_in, *patch = M + POINTS * plane_out;
  transform_block(s, transform_input, input, s->inputs, PATCH, 1, first, count, patch, V);
  for (int k = 0; k < POINTS; k++)
    for (int o = 0; o < s->outputs; o += panel)
      product(
          count, s->inputs, panel, V + k * plane_in, s->inputs, U + ((ptrdiff_t)k * s->outputs + o) * s->inputs, panel,
          M + k * plane_out + o, s->outputs, 0);
  for (int t = 0; t < count; t++) {
    const Tile tile = tile_at(s, first + t);
    real *out = output + (tile.image * s->height + tile.top) * row + tile.left * s->outputs;
    transform_output(
        M + (ptrdiff_t)t * s->outputs, plane_out, bias, s->rectify, s->outputs, smaller(TILE, s->height - tile.top),
        smaller(TILE, s->width - tile.left), out, row, s->outputs);
  }
}

enum { ROWS = 4 }; /* by two vectors: as many sums as hide the latency of multiply-adds */

/* out (ROWS x vecs LANES) += a^T x for a (count x ROWS), x (count x vecs LANES). */
static inline __attribute__((always_inline)) void add_transposed_product(
    const int vecs, int count, const real *a, ptrdiff_t lda, const real *x, ptrdiff_t ldx, real *out, ptrdiff_t ldo) {
  vec sum[ROWS][2] = {0};
  for (int t = 0; t < count; t++)
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
      for (int v = 0; v < vecs; v++) sum[r][v] += a[t * lda + r] * GET(x + t * ldx + v * LANES);
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) AT(out + r * ldo + v * LANES) += sum[r][v];
}

/* dU (36, inputs, outputs) += what output tiles first, ..., first + count - 1 give. */
static void correlate_block(
    const Shape *s, const real *input, const real *gradient, int64_t first, int count, real *scratch, real *dU) {
  const int inputs = s->inputs, outputs = s->outputs;
  const ptrdiff_t plane_in = block_plane(inputs), plane_out = block_plane(outputs);
  real *V = scratch, *M = V + POINTS * plane_in, *patch = M + POINTS * plane_out;
  transform_block(s, transform_input, input, inputs, PATCH, 1, first, count, patch, V);
  transform_block(s, transform_gradient, gradient, outputs, TILE, 0, first, count, patch, M);
  for (int k = 0; k < POINTS; k++)
    for (int o = 0; o < outputs; o += panel_of(outputs))
      for (int c = 0; c < inputs; c += ROWS) {
        const real *v = V + k * plane_in + c, *m = M + k * plane_out + o;
        real *du = dU + ((ptrdiff_t)k * inputs + c) * outputs + o;
        if (panel_of(outputs) == LANES)
          add_transposed_product(1, count, v, inputs, m, outputs, du, outputs);
        else
          add_transposed_product(2, count, v, inputs, m, outputs, du, outputs);
      }
}

/* gradient (3, 3, inputs, outputs) = G^T (sum over threads of dU) G */
static void transform_weight_gradient(const real *dU, int threads, int inputs, int outputs, real *gradient) {
  const ptrdiff_t plane = (ptrdiff_t)inputs * outputs;
#pragma omp parallel for num_threads(threads)
  for (ptrdiff_t at = 0; at < plane; at += LANES) {
    ALIGNED real sum[POINTS * LANES];
    ALIGNED real half[3 * PATCH * LANES];
    for (int k = 0; k < POINTS; k++) {
      vec total = GET(dU + k * plane + at);
      for (int t = 1; t < threads; t++) total += GET(dU + (t * POINTS + k) * plane + at);
      AT(sum + k * LANES) = total;
    }
    for (int j = 0; j < PATCH; j++) weight_gradients(sum + j * LANES, PATCH * LANES, half + j * LANES, PATCH * LANES);
    for (int i = 0; i < 3; i++)
      weight_gradients(half + PATCH * i * LANES, LANES, gradient + 3 * i * plane + at, plane);
  }
}

static int64_t blocks_of(const Shape *s) {
  const int64_t tiles = (int64_t)s->images * tiles_along(s->height) * tiles_along(s->width);
  return (tiles + BLOCK_TILES - 1) / BLOCK_TILES;
}

static int tiles_in(const Shape *s, int64_t block) {
  const int64_t left = (int64_t)s->images * tiles_along(s->height) * tiles_along(s->width) - block * BLOCK_TILES;
  return left < BLOCK_TILES ? (int)left : BLOCK_TILES;
}

/* How many channels a vector holds: both counts of channels must be multiples of it. */
int lanes(void) { return LANES; }

/* Numbers of working memory that `conv3x3` needs with so many threads. */
int64_t scratch_size(const Shape *s, int threads) {
  return (int64_t)POINTS * s->inputs * s->outputs + threads * thread_scratch(s);
}

/* output (images, height, width, outputs) = input (images, height, width, inputs) correlated with weight (3, 3, inputs,
   outputs), + bias (outputs). */
void conv3x3(
    const Shape *s, int threads, const real *input, const real *weight, const real *bias, real *scratch, real *output) {
  real *U = scratch, *own = U + (ptrdiff_t)POINTS * s->inputs * s->outputs;
  transform_weight(weight, s->inputs, s->outputs, threads, U);
#pragma omp parallel num_threads(threads)
  {
    real *mine = own + omp_get_thread_num() * thread_scratch(s);
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks_of(s); b++)
      convolve_block(s, input, U, bias, b * BLOCK_TILES, tiles_in(s, b), mine, output);
  }
}

/* Numbers of working memory that `conv3x3_weight_gradient` needs with so many threads. */
int64_t gradient_scratch_size(const Shape *s, int threads) {
  return threads * ((int64_t)POINTS * s->inputs * s->outputs + thread_scratch(s));
}

/* gradient (3, 3, inputs, outputs) of the weight, for output_gradient laid out as the output of `conv3x3`. The same
   number of threads gives the same sums to the last bit. */
void conv3x3_weight_gradient(
    const Shape *s, int threads, const real *input, const real *output_gradient, real *scratch, real *gradient) {
  const ptrdiff_t sums = (ptrdiff_t)POINTS * s->inputs * s->outputs;
  real *dU = scratch, *own = dU + threads * sums;
  memset(dU, 0, threads * sums * sizeof(real));
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks_of(s); b++)
      correlate_block(
          s, input, output_gradient, b * BLOCK_TILES, tiles_in(s, b), own + thread * thread_scratch(s),
          dU + thread * sums);
  }
  transform_weight_gradient(dU, threads, s->inputs, s->outputs, gradient);
}
