/* What the loop of em.c works on: a call, its factors, their products with small arrays, pruning.
   Include dense.h first. */

#include <stdlib.h>

#include "call.h"
#include "fit.h"
#include "nonnegative.h"

static const double RISE = 1e-6; /* as in loop.py */

/* A factor of one problem: its kept columns and what the E-step makes of them. */
typedef struct {
  int rows, columns, kept, order, full, shares;
  planes A;               /* rows x columns */
  int *position;          /* of the kept columns */
  real *g, *fresh, *best; /* prior variances: this iteration's, the next, the next sweep's */
  real *s, *s_fresh, *s_best; /* what lies behind g, fresh and best where they are coupled */
  real *inverse, *level;  /* 1 / g and g with zeros behind them: scratch of a sweep */
  char *positive;         /* columns whose g behind the coupling was positive, by position */
  planes S, T, X, G, U, W; /* A diag(g)^1/2, its transpose, eigenvectors in rows, Gram matrix, U^H, W^T */
  planes U_last, W_first;  /* the transpose of U^H for the last factor, of W^T for the others */
  real *E, *E_first;       /* shares (shares x kept), and their transpose */
  real *p;
} Factor;

typedef struct {
  Factor factor[MOST_FACTORS];
  planes y, one, two;      /* observations; two tensors to work on */
  real *z_energy, *P, *D, *kept, *L, *rest, *gain, *gain_rest, *square, *scratch; /* L is |mean|^2 for a bound */
  planes mean; /* these three of the last E-step, where they came to lie */
  real *variance, residual;
} Work;

static void multiply(int rows, int inner, int columns, planes a, int lda, planes x, int ldx, planes out, int ldo) {
  product_set(rows, inner, columns, a.re, lda, x.re, ldx, out.re, ldo);
  if (!a.im) return;
  product_subtract(rows, inner, columns, a.im, lda, x.im, ldx, out.re, ldo);
  product_set(rows, inner, columns, a.re, lda, x.im, ldx, out.im, ldo);
  product_add(rows, inner, columns, a.im, lda, x.re, ldx, out.im, ldo);
}

/* conj(a) x */
static void multiply_conjugate(
    int rows, int inner, int columns, planes a, int lda, planes x, int ldx, planes out, int ldo) {
  product_set(rows, inner, columns, a.re, lda, x.re, ldx, out.re, ldo);
  if (!a.im) return;
  product_add(rows, inner, columns, a.im, lda, x.im, ldx, out.re, ldo);
  product_set(rows, inner, columns, a.re, lda, x.im, ldx, out.im, ldo);
  product_subtract(rows, inner, columns, a.im, lda, x.re, ldx, out.im, ldo);
}

static void transpose(int rows, int columns, const real *x, int ldx, real *out, int ldo) {
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) out[c * ldo + r] = x[r * ldx + c];
}

static void transpose_planes(int rows, int columns, planes x, int ldx, planes out, int ldo) {
  transpose(rows, columns, x.re, ldx, out.re, ldo);
  if (x.im) transpose(rows, columns, x.im, ldx, out.im, ldo);
}

static void clear(planes x, size_t count) {
  memset(x.re, 0, count * sizeof(real));
  if (x.im) memset(x.im, 0, count * sizeof(real));
}

/* (matrix_1 kron ... kron matrix_I) x, from the last axis to the first. matrix_i is sizes_i x x_sizes_i with
   leading dimension ld_i; the last one is transposed, its rows padded. x is overwritten; the result is x or spare. */
static planes apply(
    int factors, const int *sizes, const int *x_sizes, const planes *matrix, const int *ld, planes x, planes spare) {
  ptrdiff_t before = 1, after = padded(sizes[factors - 1]);
  for (int i = 0; i < factors - 1; i++) before *= x_sizes[i];
  const int last = x_sizes[factors - 1];
  multiply(before, last, after, x, padded(last), matrix[factors - 1], ld[factors - 1], spare, after);
  for (int i = factors - 2; i >= 0; i--) {
    const planes swap = x;
    x = spare, spare = swap;
    before /= x_sizes[i];
    for (ptrdiff_t b = 0; b < before; b++)
      multiply(sizes[i], x_sizes[i], after, matrix[i], ld[i], at(x, b * x_sizes[i] * after), after,
               at(spare, b * sizes[i] * after), after);
    after *= sizes[i];
  }
  return spare;
}

/* v_1 kron ... kron v_I with the last axis padded with zeros; returns the padded count. */
static size_t kron(int factors, const int *sizes, real *const *v, real *out) {
  const int ld = padded(sizes[factors - 1]);
  size_t rows = 1;
  for (int i = 0; i < factors - 1; i++) rows *= sizes[i];
  for (size_t r = 0; r < rows; r++) {
    real weight = 1;
    size_t index = r;
    for (int i = factors - 2; i >= 0; i--) {
      weight *= v[i][index % sizes[i]];
      index /= sizes[i];
    }
    for (int c = 0; c < ld; c++) out[r * ld + c] = c < sizes[factors - 1] ? weight * v[factors - 1][c] : 0;
  }
  return rows * ld;
}

static real largest_of(int n, const real *x) {
  real largest = 0;
  for (int i = 0; i < n; i++) largest = fmax(largest, x[i]);
  return largest;
}

/* Keep the entries of g that are positive, at least `floor` and `ratio` of the largest; one, zero, if there is none. */
static void prune(Factor *f, real ratio, real floor) {
  const real limit = fmax(ratio * largest_of(f->kept, f->g), floor);
  int kept = 0;
  for (int n = 0; n < f->kept; n++)
    if (f->g[n] > 0 && f->g[n] >= limit) {
      f->g[kept] = f->g[n], f->s[kept] = f->s[n];
      f->position[kept++] = f->position[n];
    }
  if (kept == 0) f->s[0] = f->g[kept++] = 0;
  f->kept = kept;
}
