/* 3x3 convolution, stride 1, zero padding 1, float32, channels last, by Winograd's minimal filtering F(4x4, 3x3).

   Every 4x4 tile y of an output channel comes from the 6x6 tiles d_c of the input channels around it,

       y = A^T [ sum_c (G w_c G^T) * (B^T d_c B) ] A,      * entry by entry,

   which takes 36 multiplications a channel instead of 144: as a polynomial product, through its values at the points
   0, +-P, +-Q and infinity. For many tiles at once the sum is a matrix product, (tiles x inputs) (inputs x outputs),
   at each of the 36 pairs of points.

   Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4. Their points are
   0, +-1, +-2 and infinity; these halve the rounding error and are as exact in binary. */

#define REAL float
#include "_dense.h"

#include <omp.h>
#include <stdint.h>
#include <string.h>

enum { TILE = 4, PATCH = 6, POINTS = PATCH * PATCH, BLOCK_TILES = 24, LINE = 64 / sizeof(real) };

static const real P = 0.625f, Q = 1.5f, P2 = 0.390625f, Q2 = 2.25f;

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

/* G w for three vectors: values at the points over prod_j (p_i - p_j), as Lagrange's interpolation wants them. */
static inline void weight_values(const real *w, ptrdiff_t apart, real *out, ptrdiff_t step) {
  const real at_p = 1 / (2 * P2 * (P2 - Q2)), at_q = 1 / (2 * Q2 * (Q2 - P2));
  const vec w0 = GET(w), w1 = GET(w + apart), w2 = GET(w + 2 * apart);
  const vec even_p = at_p * w0 + at_p * P2 * w2, even_q = at_q * w0 + at_q * Q2 * w2;
  AT(out) = w0 * (1 / (P2 * Q2));
  AT(out + step) = even_p + at_p * P * w1;
  AT(out + 2 * step) = even_p - at_p * P * w1;
  AT(out + 3 * step) = even_q + at_q * Q * w1;
  AT(out + 4 * step) = even_q - at_q * Q * w1;
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

/* A panel of outputs keeps the right factor of a product together in memory. */
static inline int panel_of(int outputs) { return outputs % (2 * LANES) ? LANES : 2 * LANES; }

/* U (36, outputs / panel, inputs, panel) = G w G^T for w (3, 3, inputs, outputs). */
static void transform_weight(const real *weight, int inputs, int outputs, real *U) {
  const int panel = panel_of(outputs);
  const ptrdiff_t plane = (ptrdiff_t)inputs * outputs;
#pragma omp parallel for
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

/* A patch that reaches beyond the picture, zeros there, as (6, 6, inputs). */
static void padded_patch(const real *image, const Shape *s, int top, int left, real *patch) {
  const size_t bytes = s->inputs * sizeof(real);
  for (int i = 0; i < PATCH; i++)
    for (int j = 0; j < PATCH; j++, patch += s->inputs) {
      const int y = top + i, x = left + j;
      if (y < 0 || y >= s->height || x < 0 || x >= s->width)
        memset(patch, 0, bytes);
      else
        memcpy(patch, image + ((ptrdiff_t)y * s->width + x) * s->inputs, bytes);
    }
}

static inline int tiles_along(int size) { return (size + TILE - 1) / TILE; }
static inline int smaller(int a, int b) { return a < b ? a : b; }

/* Planes of a block's values lie a cache line more apart than they need: powers of two would share cache sets. */
static inline ptrdiff_t block_plane(int channels) { return (ptrdiff_t)BLOCK_TILES * channels + LINE; }

static ptrdiff_t thread_scratch(const Shape *s) {
  return POINTS * (block_plane(s->inputs) + block_plane(s->outputs) + s->inputs);
}

/* Tiles first, ..., first + count - 1 of the row of all tiles of all images. */
static void convolve_block(
    const Shape *s, const real *input, const real *U, const real *bias, int64_t first, int count, real *scratch,
    real *output) {
  const int across = tiles_along(s->width), down = tiles_along(s->height), panel = panel_of(s->outputs);
  const ptrdiff_t plane_in = block_plane(s->inputs), plane_out = block_plane(s->outputs);
  const ptrdiff_t row_in = (ptrdiff_t)s->width * s->inputs, row_out = (ptrdiff_t)s->width * s->outputs;
  real *V = scratch, *M = V + POINTS * plane_in, *patch = M + POINTS * plane_out;
  for (int t = 0; t < count; t++) {
    const int64_t tile = first + t, image = tile / (across * down);
    const int top = tile / across % down * TILE - 1, left = tile % across * TILE - 1;
    const real *picture = input + image * s->height * row_in;
    real *v = V + (ptrdiff_t)t * s->inputs;
    if (top >= 0 && left >= 0 && top + PATCH <= s->height && left + PATCH <= s->width) {
      transform_input(picture + top * row_in + left * s->inputs, row_in, s->inputs, s->inputs, v, plane_in);
    } else {
      padded_patch(picture, s, top, left, patch);
      transform_input(patch, PATCH * s->inputs, s->inputs, s->inputs, v, plane_in);
    }
  }
  for (int k = 0; k < POINTS; k++)
    for (int o = 0; o < s->outputs; o += panel)
      product(
          count, s->inputs, panel, V + k * plane_in, s->inputs, U + ((ptrdiff_t)k * s->outputs + o) * s->inputs, panel,
          M + k * plane_out + o, s->outputs, 0);
  for (int t = 0; t < count; t++) {
    const int64_t tile = first + t, image = tile / (across * down);
    const int top = tile / across % down * TILE, left = tile % across * TILE;
    real *out = output + (image * s->height + top) * row_out + left * s->outputs;
    transform_output(
        M + (ptrdiff_t)t * s->outputs, plane_out, bias, s->rectify, s->outputs, smaller(TILE, s->height - top),
        smaller(TILE, s->width - left), out, row_out, s->outputs);
  }
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
    const Shape *s, const real *input, const real *weight, const real *bias, int threads, real *scratch, real *output) {
  const int64_t tiles = (int64_t)s->images * tiles_along(s->height) * tiles_along(s->width);
  const int64_t blocks = (tiles + BLOCK_TILES - 1) / BLOCK_TILES;
  real *U = scratch, *own = U + (ptrdiff_t)POINTS * s->inputs * s->outputs;
  transform_weight(weight, s->inputs, s->outputs, U);
#pragma omp parallel num_threads(threads)
  {
    real *mine = own + omp_get_thread_num() * thread_scratch(s);
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t first = b * BLOCK_TILES;
      convolve_block(
          s, input, U, bias, first, first + BLOCK_TILES < tiles ? BLOCK_TILES : (int)(tiles - first), mine, output);
    }
  }
}
