/* 3x3 convolution to one output channel, stride 1, zero padding 1, float32, channels last, and its weight's gradient. */

#define REAL float
#include "dense.h"

#include <omp.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  int images, height, width, inputs, outputs, rectify;
} Shape;

/* `count` pixels next to each other, from the taps [top, bottom) x [left, right) of the window. `input` is the pixel
   under the middle of the window; count is a constant where this is inlined. */
static inline __attribute__((always_inline)) void pixels(
    const int count, const Shape *s, const real *input, const real *weight, real bias, int top, int bottom, int left,
    int right, real *out) {
  const ptrdiff_t row = (ptrdiff_t)s->width * s->inputs;
  vec sum[LANES] = {0};
  for (int i = top; i < bottom; i++)
    for (int j = left; j < right; j++)
      for (int c = 0; c < s->inputs; c += LANES) {
        const vec w = *(const vec *)(weight + (3 * i + j) * s->inputs + c);
        const real *x = input + (i - 1) * row + (j - 1) * s->inputs + c;
#pragma GCC unroll 16
        for (int p = 0; p < count; p++) sum[p] += w * *(const vec *)(x + p * s->inputs);
      }
#pragma GCC unroll 16
  for (int p = 0; p < count; p++) {
    real total = bias;
    for (int lane = 0; lane < LANES; lane++) total += sum[p][lane];
    out[p] = s->rectify && total < 0 ? 0 : total;
  }
}

/* output (images, height, width) = input (images, height, width, inputs) correlated with weight (3, 3, inputs), + bias,
   rectified where asked for. The number of inputs is a multiple of LANES. */
void conv3x3_to_one(
    const Shape *s, int threads, const real *input, const real *weight, const real *bias, real *output) {
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int n = 0; n < s->images; n++)
    for (int y = 0; y < s->height; y++) {
      const ptrdiff_t start = ((ptrdiff_t)n * s->height + y) * s->width;
      const int top = y == 0, bottom = y + 1 == s->height ? 2 : 3;
      for (int x = 0; x < s->width;) {
        const real *in = input + (start + x) * s->inputs;
        if (x > 0 && x + LANES < s->width) {
          pixels(LANES, s, in, weight, *bias, top, bottom, 0, 3, output + start + x);
          x += LANES;
        } else {
          pixels(1, s, in, weight, *bias, top, bottom, x == 0, x + 1 == s->width ? 2 : 3, output + start + x);
          x++;
        }
      }
    }
}

/* The nine products of a row of pixels with the plane around it, added to sums (3, 3, channels). near[i] is the plane's
   row 1 - i below theirs, with a zero at either end. */
static void add_row(const real *pixels, int width, int channels, const real *near[3], real *sums) {
  for (int c = 0; c < channels; c += LANES) {
    vec sum[9] = {0};
    for (int x = 0; x < width; x++) {
      const vec pixel = *(const vec *)(pixels + (ptrdiff_t)x * channels + c);
#pragma GCC unroll 9
      for (int k = 0; k < 9; k++) sum[k] += near[k / 3][x + 2 - k % 3] * pixel;
    }
#pragma GCC unroll 9
    for (int k = 0; k < 9; k++) *(vec *)(sums + k * channels + c) += sum[k];
  }
}

/* Numbers of working memory that the function below needs with so many threads. */
int64_t gradient_scratch_size(const Shape *s, int threads) {
  return (int64_t)s->images * (s->height + 2) * (s->width + 2) + threads * 9 * s->inputs;
}

/* gradient[i, j, c] = sum_{n, y, x} plane[n, y, x] pictures[n, y + i - 1, x + j - 1, c], pictures (images, height, width,
   inputs): the weight's gradient where the output's is the plane. The same number of threads gives the same sums to
   the last bit. */
void conv3x3_to_one_weight_gradient(
    const Shape *s, int threads, const real *pictures, const real *plane, real *scratch, real *gradient) {
  const ptrdiff_t across = s->width + 2, size = across * (s->height + 2), taps = 9 * s->inputs;
  real *padded_plane = scratch, *sums = scratch + s->images * size;
  memset(scratch, 0, (s->images * size + threads * taps) * sizeof(real));
  for (int n = 0; n < s->images; n++)
    for (int y = 0; y < s->height; y++)
      memcpy(
          padded_plane + n * size + (y + 1) * across + 1, plane + ((ptrdiff_t)n * s->height + y) * s->width,
          s->width * sizeof(real));
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int n = 0; n < s->images; n++)
    for (int y = 0; y < s->height; y++) {
      const real *middle = padded_plane + n * size + (y + 1) * across;
      const real *near[3] = {middle + across, middle, middle - across};
      const real *pixels = pictures + ((ptrdiff_t)n * s->height + y) * s->width * s->inputs;
      add_row(pixels, s->width, s->inputs, near, sums + omp_get_thread_num() * taps);
    }
  for (ptrdiff_t k = 0; k < taps; k++) {
    gradient[k] = 0;
    for (int t = 0; t < threads; t++) gradient[k] += sums[t * taps + k];
  }
}
