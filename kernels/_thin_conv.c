/* 3x3 convolution to one output channel, stride 1, zero padding 1, float32, channels last. */

#define REAL float
#include "_dense.h"

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
    const Shape *s, const real *input, const real *weight, const real *bias, int threads, real *output) {
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
