/* Expectation-maximisation of Kronecker-structured priors, one small problem at a time and many side by side.

   The equations are those of loop.py, kronecker_posterior.py, svd_krosbl.py, sweep.py and pc_krosbl.py, in double
   precision. Tensors of sizes n_1 x ... x n_I have their last axis padded to whole vectors with zeros. Complex
   numbers are planes of real and imaginary parts. */

#define REAL double
#include "dense.h"
#include "eigh.h"

#include <stdint.h>
#include <stdlib.h>

static const double LARGE = 1e-6, RISE = 1e-6; /* as in kronecker_posterior.py and loop.py */
enum { MOST_FACTORS = 8, FULL_EXCHANGES = 3, SQUARINGS = 56 };
enum step { NESTED_SVD, ONE_SWEEP, ALTERNATING, BOUND };
enum outcome { SETTLED, UNFINISHED, COST_ROSE, PRUNED, NOT_FINITE }; /* as estimate.Ended */

/* What all problems of a call share; the fields are those of compiled.Call. */
typedef struct {
  int64_t problems, factors, complex_numbers, noise_unknown;
  int64_t rows[MOST_FACTORS], columns[MOST_FACTORS], shared[MOST_FACTORS], coupled[MOST_FACTORS];
  const double *matrices[MOST_FACTORS];
  const double *y;
  double *noise_variance;
  double *g[MOST_FACTORS];
  const double *sources[MOST_FACTORS]; /* NULL where nothing lies behind g */
  double ratios[MOST_FACTORS];
  double floor, tolerance;
  int64_t max_iterations;
  int64_t step, sweeps, relative;
  double inner_tolerance, divergence, beta, offset;
  int64_t *iterations, *outcome;
  double *cost, *change, *noise_path, *g_path[MOST_FACTORS]; /* a row an iteration; NULL where not asked for */
} Call;

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

static real reciprocal(real x) { return x > 0 ? 1 / x : 0; }

/* Keep the entries of g that are positive, at least `floor` and `ratio` of the largest; one, zero, if there is none. */
static void prune(Factor *f, real ratio, real floor) {
  real largest = 0;
  for (int n = 0; n < f->kept; n++) largest = fmax(largest, f->g[n]);
  const real limit = fmax(ratio * largest, floor);
  int kept = 0;
  for (int n = 0; n < f->kept; n++)
    if (f->g[n] > 0 && f->g[n] >= limit) {
      f->g[kept] = f->g[n], f->s[kept] = f->s[n];
      f->position[kept++] = f->position[n];
    }
  if (kept == 0) f->s[0] = f->g[kept++] = 0;
  f->kept = kept;
}

/* Eigenvalues p and, as rows, U^H and W^T of a factor, and the shares E of its eigenvectors, which for a bound's gain
   are divided by g^2; 0 where not finite. */
static int decompose(Factor *f, int last, int gain, real *scratch) {
  const int M = f->rows, n = f->kept, ldM = padded(M), ldn = padded(n);
  const int full = f->full = n <= M, k = f->order = full ? n : M, ldk = padded(k);
  f->shares = full || gain ? k : k + 1;
  clear(f->S, (size_t)M * ldn), clear(f->T, (size_t)n * ldM);
  for (int c = 0; c < n; c++) {
    const real amplitude = sqrt(f->g[c]);
    for (int r = 0; r < M; r++) {
      f->S.re[r * ldn + c] = f->T.re[c * ldM + r] = amplitude * f->A.re[r * f->columns + f->position[c]];
      if (f->A.im) f->S.im[r * ldn + c] = f->T.im[c * ldM + r] = amplitude * f->A.im[r * f->columns + f->position[c]];
    }
  }
  if (full)
    multiply_conjugate(n, M, ldn, f->T, ldM, f->S, ldn, f->G, ldn);
  else
    multiply_conjugate(M, n, ldM, f->S, ldn, f->T, ldM, f->G, ldM); /* the conjugate of S S^H */
  const planes X = full ? f->X : f->U;
  if (!hermitian_eigen(k, f->G, f->p, X, scratch)) return 0;
  real largest = f->p[0];
  for (int j = 1; j < k; j++) largest = fmax(largest, f->p[j]);
  const real negligible = largest * DBL_EPSILON * (M > n ? M : n);
  for (int j = 0; j < k; j++) f->p[j] = f->p[j] <= negligible ? 0 : f->p[j];

  if (full) {
    multiply(k, n, ldM, X, ldk, f->T, ldM, f->U, ldM);
    for (size_t i = 0; f->A.im && i < (size_t)k * ldM; i++) f->U.im[i] = -f->U.im[i];
    memcpy(f->W.re, X.re, (size_t)k * ldn * sizeof(real));
    if (f->A.im) memcpy(f->W.im, X.im, (size_t)k * ldn * sizeof(real));
  } else {
    multiply(k, M, ldn, X, ldk, f->S, ldn, f->W, ldn);
    for (size_t i = 0; f->A.im && i < (size_t)k * ldn; i++) f->W.im[i] = -f->W.im[i];
  }
  for (int c = 0; c < n; c++) {
    const real amplitude = sqrt(f->g[c]);
    real left = f->g[c];
    for (int j = 0; j < k; j++) {
      f->W.re[j * ldn + c] *= amplitude;
      real energy = f->W.re[j * ldn + c] * f->W.re[j * ldn + c];
      if (f->A.im) {
        f->W.im[j * ldn + c] *= amplitude;
        energy += f->W.im[j * ldn + c] * f->W.im[j * ldn + c];
      }
      f->E[j * ldn + c] = full ? energy : energy * reciprocal(f->p[j]);
      left -= f->E[j * ldn + c];
      if (gain) f->E[j * ldn + c] *= reciprocal(f->g[c]) * reciprocal(f->g[c]);
    }
    if (!full && !gain) f->E[k * ldn + c] = fmax(left, 0);
  }
  for (int j = 0; j < f->shares; j++)
    for (int c = n; c < ldn; c++) f->E[j * ldn + c] = 0;
  if (last) {
    clear(f->U_last, (size_t)M * ldk);
    transpose_planes(k, M, f->U, ldM, f->U_last, ldk);
  } else {
    transpose_planes(k, n, f->W, ldn, f->W_first, k);
    transpose(f->shares, n, f->E, ldn, f->E_first, f->shares);
  }
  return 1;
}

/* How the observations lie to the eigenvectors of A G A^H: what the noise variance and the cost are made of. */
typedef struct {
  real residual, weighted, energy; /* ||y - A mean||^2, s2 y^H K^-1 y, and y^H K^-1 y within the range of A G */
  real freedom, log_det, total;
  size_t eigenvalues;
} Fit;

/* A sum of logarithms, few of which are taken. */
typedef struct {
  real sum, product;
} Logarithms;

static void add_log(Logarithms *logs, real x) {
  if (!(x > 1e-100 && x < 1e100)) {
    logs->sum += log(x);
    return;
  }
  logs->product *= x;
  if (logs->product > 1e-100 && logs->product < 1e100) return;
  logs->sum += log(logs->product), logs->product = 1;
}

/* What is left of the energy: as a difference or, where that cancels, as a sum; see kronecker_posterior.py. */
static real left_of(real total, real taken, real sum) {
  return total - taken > LARGE * total ? total - taken : sum;
}

static Fit fit_of(const Call *call, Work *w, const int *order, size_t size, size_t y_size, planes z, real noise) {
  real *inverse[MOST_FACTORS], inside = 0, residual = 0, taken = 0, weighted = 0;
  Fit fit = {0};
  Logarithms logs = {0, 1};
  for (int i = 0; i < call->factors; i++) {
    Factor *f = &w->factor[i];
    inverse[i] = f->inverse;
    for (int j = 0; j < f->order; j++) inverse[i][j] = f->full ? reciprocal(f->p[j]) : 1;
  }
  kron(call->factors, order, inverse, w->z_energy);
  for (size_t i = 0; i < size; i++) {
    if (w->P[i] == 0) continue;
    const real along = (z.re[i] * z.re[i] + (z.im ? z.im[i] * z.im[i] : 0)) * w->z_energy[i];
    const real left = 1 - w->P[i] * w->D[i];
    residual += along * left * left, taken += along * (1 - left * left);
    weighted += along * left, inside += along;
    fit.freedom += w->P[i] * w->D[i], fit.energy += along * w->D[i], fit.eigenvalues++;
    add_log(&logs, noise + w->P[i]);
  }
  for (size_t i = 0; i < y_size; i++)
    fit.total += w->y.re[i] * w->y.re[i] + (w->y.im ? w->y.im[i] * w->y.im[i] : 0);
  const real outside = fmax(fit.total - inside, 0);
  fit.residual = left_of(fit.total, taken, residual + outside);
  fit.weighted = left_of(fit.total, inside - weighted, weighted + outside);
  fit.log_det = logs.sum + log(logs.product);
  return fit;
}

/* log det(s2 I + A G A^H) + y^H (s2 I + A G A^H)^-1 y of M observations; over the range of A G alone where s2 = 0. */
static real cost_of(Fit fit, size_t M, real noise) {
  const real outside = noise > 0 ? (M - fit.eigenvalues) * log(noise) : 0;
  return fit.log_det + outside + (noise > 0 ? fit.weighted * reciprocal(noise) : fit.energy);
}

static real next_noise(const Call *call, Fit fit, size_t M, real noise) {
  if (call->step != BOUND) return (fit.residual + noise * fit.freedom) / M;
  const real free = fmax(M - fit.freedom, DBL_EPSILON * M);
  return fmax(sqrt(fit.residual * noise / free), DBL_EPSILON * fit.total / M);
}

/* The second moment L = variance + |mean|^2 into w->L, or |mean|^2 and the gain for a bound, the next noise variance
   into s2 if it is unknown, and the cost; 0 where not finite. */
static int e_step(const Call *call, Work *w, real *s2, real *cost) {
  const int I = call->factors, end = I - 1, bound = call->step == BOUND;
  int rows[MOST_FACTORS], kept[MOST_FACTORS], order[MOST_FACTORS], shares[MOST_FACTORS];
  int ld_U[MOST_FACTORS], ld_W[MOST_FACTORS], ld_E[MOST_FACTORS];
  planes U[MOST_FACTORS], W[MOST_FACTORS], E[MOST_FACTORS];
  real *p[MOST_FACTORS];
  size_t M = 1, order_rows = 1, y_size = 1;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    if (!decompose(f, i == end, bound, w->scratch)) return 0;
    rows[i] = f->rows, kept[i] = f->kept, order[i] = f->order, shares[i] = f->shares, p[i] = f->p;
    U[i] = i == end ? f->U_last : f->U, ld_U[i] = padded(i == end ? f->order : f->rows);
    W[i] = i == end ? f->W : f->W_first, ld_W[i] = i == end ? padded(f->kept) : f->order;
    E[i] = (planes){i == end ? f->E : f->E_first, NULL}, ld_E[i] = i == end ? padded(f->kept) : f->shares;
    M *= f->rows;
    y_size *= i == end ? padded(f->rows) : f->rows;
    if (i < end) order_rows *= f->order;
  }
  const int complex_numbers = w->y.im != NULL, ldk = padded(order[end]), ld_kept = padded(shares[end]);
  const size_t size = kron(I, order, p, w->P);
  memcpy(w->one.re, w->y.re, y_size * sizeof(real));
  if (complex_numbers) memcpy(w->one.im, w->y.im, y_size * sizeof(real));
  planes z = apply(I, order, rows, U, ld_U, w->one, w->two);
  planes spare = z.re == w->one.re ? w->two : w->one;

  const real noise = *s2;
  for (size_t i = 0; i < size; i++) w->D[i] = w->P[i] != 0 ? 1 / (noise + w->P[i]) : 0;
  const Fit fit = fit_of(call, w, order, size, y_size, z, noise);
  *cost = cost_of(fit, M, noise);
  if (call->noise_unknown) *s2 = next_noise(call, fit, M, noise);
  for (size_t i = 0; i < size; i++) {
    z.re[i] *= w->D[i];
    if (complex_numbers) z.im[i] *= w->D[i];
  }
  planes mean = apply(I, kept, order, W, ld_W, z, spare);

  size_t shares_rows = 1, L_size = padded(kept[end]);
  for (int i = 0; i < end; i++) shares_rows *= shares[i], L_size *= kept[i];
  for (size_t i = 0; i < shares_rows * ld_kept; i++) w->kept[i] = bound ? w->P[i] * w->D[i] : 1;
  for (size_t r = 0; r < order_rows && !bound; r++) {
    size_t index = r, place = 0, stride = 1;
    for (int i = end - 1; i >= 0; i--) {
      place += index % order[i] * stride;
      index /= order[i], stride *= shares[i];
    }
    for (int c = 0; c < order[end]; c++)
      w->kept[place * ld_kept + c] = w->P[r * ldk + c] != 0 ? noise * w->D[r * ldk + c] : 1;
  }
  const planes unused = {bound ? w->gain : w->L, NULL};
  const planes spread = apply(I, kept, shares, E, ld_E, (planes){w->kept, NULL}, unused);
  if (bound && spread.re != w->gain) memcpy(w->gain, spread.re, L_size * sizeof(real));
  real nothing = 0;
  for (size_t i = 0; i < L_size; i++) {
    const real power = mean.re[i] * mean.re[i] + (complex_numbers ? mean.im[i] * mean.im[i] : 0);
    nothing += 0 * spread.re[i];
    w->L[i] = bound ? power : spread.re[i] + power;
    nothing += 0 * w->L[i];
  }
  return nothing == 0; /* not a number where an entry is not finite */
}

/* The leading eigenvector of a semidefinite matrix G (n x n, of trace 1, overwritten): G <- G^2 / tr(G^2) tends to
   u u^T. See kernels/leading_triplet.py. */
static void leading_vector(int n, real *G, real *square, real *u) {
  const int ld = padded(n);
  for (int s = 0; s < SQUARINGS; s += 4) {
    for (int i = 0; i < 4; i++) {
      product_set(n, n, ld, G, ld, G, ld, square, ld);
      real *swap = G;
      G = square, square = swap;
    }
    real trace = 0, purity = 0;
    for (int i = 0; i < n; i++) trace += G[i * ld + i];
    for (int i = 0; i < n * ld; i++) G[i] /= trace, purity += G[i] * G[i];
    if (purity > 1 - 4 * DBL_EPSILON) break;
  }
  int pivot = 0;
  for (int i = 1; i < n; i++)
    if (G[i * ld + i] > G[pivot * ld + pivot]) pivot = i;
  real norm = 0;
  for (int i = 0; i < n; i++) norm += G[i * ld + pivot] * G[i * ld + pivot];
  norm = sqrt(norm);
  for (int i = 0; i < n; i++) u[i] = G[i * ld + pivot] / norm;
}

/* |u| and, in place of its first row, |sigma v| of the best rank-one approximation of x (n x columns, ld apart,
   non-negative). */
static void rank_one(int n, int columns, int ld, real *x, real *u, Work *w) {
  real largest = 0;
  for (size_t i = 0; i < (size_t)n * ld; i++) largest = fmax(largest, x[i]);
  for (int i = 0; i < n; i++) u[i] = i == 0;
  if (!(largest > 0)) {
    memset(x, 0, columns * sizeof(real));
    return;
  }
  const int tall = n > columns, order = tall ? columns : n, ldG = padded(order);
  real *G = w->square, *square = G + (size_t)order * ldG, *image = w->rest + (size_t)n * ld;
  for (size_t i = 0; i < (size_t)n * ld; i++) x[i] /= largest;
  if (tall) {
    for (int r = 0; r < columns; r++)
      for (int c = 0; c < ldG; c++) G[r * ldG + c] = 0;
    for (int i = 0; i < n; i++)
      for (int r = 0; r < columns; r++)
        for (int c = 0; c < columns; c++) G[r * ldG + c] += x[i * ld + r] * x[i * ld + c];
  } else {
    for (int r = 0; r < n; r++) {
      for (int c = 0; c <= r; c++) {
        vec sum = {0};
        for (int i = 0; i < ld; i += LANES) sum += *(vec *)(x + r * ld + i) * *(vec *)(x + c * ld + i);
        G[r * ldG + c] = G[c * ldG + r] = sum_of(sum);
      }
      for (int c = n; c < ldG; c++) G[r * ldG + c] = 0;
    }
  }
  real trace = 0;
  for (int i = 0; i < order; i++) trace += G[i * ldG + i];
  for (int i = 0; i < order * ldG; i++) G[i] /= trace;
  if (tall) {
    real sigma = 0;
    leading_vector(order, G, square, image);
    for (int i = 0; i < n; i++) {
      u[i] = 0;
      for (int c = 0; c < columns; c++) u[i] += x[i * ld + c] * image[c];
      sigma += u[i] * u[i];
    }
    sigma = sqrt(sigma);
    for (int i = 0; i < n; i++) u[i] = fabs(u[i] / sigma);
    for (int c = 0; c < columns; c++) x[c] = fabs(image[c]) * sigma * largest;
    return;
  }
  leading_vector(order, G, square, u);
  for (int c = 0; c < ld; c += LANES) {
    vec sum = {0};
    for (int i = 0; i < n; i++) sum += u[i] * *(vec *)(x + i * ld + c);
    *(vec *)(x + c) = sum * largest;
  }
  for (int c = 0; c < ld; c++) x[c] = fabs(x[c]);
  for (int i = 0; i < n; i++) u[i] = fabs(u[i]);
}

static void nested_svd(int I, Work *w) {
  size_t columns = padded(w->factor[I - 1].kept);
  for (int i = 1; i < I - 1; i++) columns *= w->factor[i].kept;
  memcpy(w->rest, w->L, (I > 1 ? w->factor[0].kept : 1) * columns * sizeof(real));
  for (int i = 0; i < I - 1; i++) {
    const int dense = i == I - 2 ? w->factor[I - 1].kept : (int)columns;
    rank_one(w->factor[i].kept, dense, columns, w->rest, w->factor[i].fresh, w);
    if (i + 1 < I - 1) columns /= w->factor[i + 1].kept;
  }
  memcpy(w->factor[I - 1].fresh, w->rest, w->factor[I - 1].kept * sizeof(real));
}

/* Infeasible entries of x = argmin ||C x - b|| on the positive entries; see kernels/nonnegative.py. H = C^T C and q. */
static int infeasible(int n, const real *H, const real *q, const real *x, const char *positive, char *wrong) {
  real largest_x = 0, largest_q = 0;
  int count = 0;
  for (int i = 0; i < n; i++) largest_x = fmax(largest_x, fabs(x[i])), largest_q = fmax(largest_q, fabs(q[i]));
  for (int i = 0; i < n; i++) {
    real gradient = -q[i];
    for (int j = i - 2 > 0 ? i - 2 : 0; j < n && j <= i + 2; j++) gradient += H[i * 5 + j - i + 2] * x[j];
    wrong[i] = positive[i] ? x[i] < -100 * DBL_EPSILON * largest_x : gradient < -100 * DBL_EPSILON * largest_q;
    count += wrong[i];
  }
  return count;
}

/* The solution of H x = q on the positive entries, by Cholesky's factor of a matrix of bandwidth 2. */
static void restricted_solve(int n, const real *H, const real *q, const char *positive, real *x, real *factor, int *kept) {
  int m = 0;
  for (int i = 0; i < n; i++) {
    x[i] = 0;
    if (positive[i]) kept[m++] = i;
  }
  for (int r = 0; r < m; r++) {
    real *row = factor + 3 * r; /* L[r][r - 2], L[r][r - 1], L[r][r] */
    for (int d = 2; d >= 0; d--) {
      const int c = r - d;
      if (c < 0) {
        row[2 - d] = 0;
        continue;
      }
      const int apart = kept[r] - kept[c];
      real value = apart <= 2 ? H[kept[r] * 5 + 2 - apart] : 0;
      if (d == 0) value *= 1 + DBL_EPSILON;
      for (int e = 1; e + d <= 2; e++) /* entries left of column c that both rows have */
        if (c - e >= 0) value -= row[2 - d - e] * factor[3 * c + 2 - e];
      row[2 - d] = d == 0 ? sqrt(value) : value / factor[3 * c + 2];
    }
  }
  for (int r = 0; r < m; r++) {
    real value = q[kept[r]];
    for (int d = 1; d <= 2 && d <= r; d++) value -= factor[3 * r + 2 - d] * x[kept[r - d]];
    x[kept[r]] = value / factor[3 * r + 2];
  }
  for (int r = m - 1; r >= 0; r--) {
    real value = x[kept[r]];
    for (int d = 1; d <= 2 && r + d < m; d++) value -= factor[3 * (r + d) + 2 - d] * x[kept[r + d]];
    x[kept[r]] = value / factor[3 * r + 2];
  }
}

/* b <- C argmin_{g >= 0} ||C g - b|| + offset, C tridiagonal on the kept entries: block principal pivoting. */
static void couple(const Call *call, Factor *f, real *b, real *scratch) {
  const int n = f->kept;
  const real beta = call->beta;
  real *near = scratch, *H = near + n + 1, *q = H + 5 * n, *x = q + n, *factor = x + n;
  int *kept = (int *)(factor + 3 * n);
  char *positive = (char *)(kept + n), *wrong = positive + n;
  near[0] = near[n] = 0; /* near[i]: coupling of entries i - 1 and i */
  for (int i = 1; i < n; i++) near[i] = f->position[i] == f->position[i - 1] + 1 ? beta : 0;
  if (!(f->g[0] > 0)) return; /* nothing is kept */
  for (int i = 0; i < n; i++) {
    q[i] = b[i] + (i > 0 ? near[i] * b[i - 1] : 0) + (i + 1 < n ? near[i + 1] * b[i + 1] : 0);
    H[i * 5 + 2] = 1 + near[i] * near[i] + near[i + 1] * near[i + 1];
    H[i * 5 + 1] = 2 * near[i];
    H[i * 5 + 3] = 2 * near[i + 1];
    H[i * 5 + 0] = i > 1 ? near[i] * near[i - 1] : 0;
    H[i * 5 + 4] = i + 2 < n ? near[i + 1] * near[i + 2] : 0;
    positive[i] = f->positive[f->position[i]];
  }
  int fewest = n + 1, chances = FULL_EXCHANGES;
  for (int round = 0; round < 10 * n + 10; round++) {
    restricted_solve(n, H, q, positive, x, factor, kept);
    const int count = infeasible(n, H, q, x, positive, wrong);
    if (count == 0) break;
    chances = count < fewest ? FULL_EXCHANGES : chances - 1;
    fewest = count < fewest ? count : fewest;
    for (int i = n - 1; i >= 0; i--)
      if (wrong[i]) {
        positive[i] = !positive[i];
        if (chances < 0) break; /* the last one alone */
      }
  }
  for (int i = 0; i < n; i++) x[i] = fmax(x[i], 0), f->positive[f->position[i]] = x[i] > 0;
  for (int i = 0; i < n; i++)
    b[i] = x[i] + (i > 0 ? near[i] * x[i - 1] : 0) + (i + 1 < n ? near[i + 1] * x[i + 1] : 0) + call->offset;
}

/* Sums of T (n_i x ... x n_I) over all axes but the first, each weighed with a factor's 1 / g or g; T or w->square. */
static const real *contract_behind(int I, Work *w, int i, const real *T, int inverse) {
  if (i == I - 1) return T;
  const int ld = padded(w->factor[I - 1].kept);
  const real *last = inverse ? w->factor[I - 1].inverse : w->factor[I - 1].level;
  size_t rows = 1;
  for (int j = i; j < I - 1; j++) rows *= w->factor[j].kept;
  for (size_t r = 0; r < rows; r++) {
    vec sum = {0};
    for (int c = 0; c < ld; c += LANES) sum += *(const vec *)(T + r * ld + c) * *(const vec *)(last + c);
    w->square[r] = sum_of(sum);
  }
  for (int j = I - 2; j > i; j--) {
    const Factor *other = &w->factor[j];
    const real *weights = inverse ? other->inverse : other->level;
    rows /= other->kept;
    for (size_t r = 0; r < rows; r++) {
      real sum = 0;
      for (int n = 0; n < other->kept; n++) sum += w->square[r * other->kept + n] * weights[n];
      w->square[r] = sum;
    }
  }
  return w->square;
}

/* The sum of T (n_i x ... x n_I) over its first axis, weighed with f->best or its inverse, into out, which may be T. */
static void contract_first(int I, Work *w, int i, const real *T, int inverse, real *out) {
  const Factor *f = &w->factor[i];
  size_t after = padded(w->factor[I - 1].kept);
  for (int j = i + 1; j < I - 1; j++) after *= w->factor[j].kept;
  for (size_t c = 0; c < after; c += LANES) {
    vec sum = {0};
    for (int n = 0; n < f->kept; n++) {
      const real weight = inverse ? reciprocal(f->best[n]) : f->best[n];
      sum += weight * *(const vec *)(T + n * after + c);
    }
    *(vec *)(out + c) = sum;
  }
}

/* C x with C tridiagonal on the kept entries: 1, and beta beside it where they are neighbours. */
static void add_neighbours(const Factor *f, real beta, const real *x, real *out) {
  for (int n = 0; n < f->kept; n++) {
    const int left = n > 0 && f->position[n] == f->position[n - 1] + 1;
    const int right = n + 1 < f->kept && f->position[n + 1] == f->position[n] + 1;
    out[n] = x[n] + (left ? beta * x[n - 1] : 0) + (right ? beta * x[n + 1] : 0);
  }
}

/* One pass over the factors that lowers the bound, from f->fresh and f->s_fresh to f->best and f->s_best; see
   sweep.py. */
static void bound_pass(const Call *call, Work *w) {
  const int I = call->factors;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    for (int n = 0; n < padded(f->kept); n++) {
      f->level[n] = n < f->kept ? f->fresh[n] : 0;
      f->inverse[n] = reciprocal(f->level[n]);
    }
  }
  const real *down = w->L, *up = w->gain;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const int n_kept = f->kept, coupled = call->coupled[i];
    real *a = w->scratch, *b = a + n_kept, *pulled = b + n_kept, *pushed = pulled + n_kept, most = 0;
    memcpy(a, contract_behind(I, w, i, down, 1), n_kept * sizeof(real));
    memcpy(b, contract_behind(I, w, i, up, 0), n_kept * sizeof(real));
    if (coupled) {
      for (int n = 0; n < n_kept; n++) a[n] *= f->inverse[n] * f->inverse[n];
      add_neighbours(f, call->beta, a, pulled), add_neighbours(f, call->beta, b, pushed);
    }
    for (int n = 0; n < n_kept; n++) {
      const real ratio = coupled ? pulled[n] * reciprocal(pushed[n]) : a[n] * reciprocal(b[n]);
      f->s_best[n] = sqrt(ratio) * (coupled ? f->s_fresh[n] : 1);
      most = fmax(most, f->s_best[n]);
    }
    for (int n = 0; n < n_kept; n++)
      f->s_best[n] = f->level[n] > 0 ? fmax(f->s_best[n], DBL_EPSILON * DBL_EPSILON * most) : 0;
    if (coupled) add_neighbours(f, call->beta, f->s_best, f->best);
    else memcpy(f->best, f->s_best, n_kept * sizeof(real));
    if (i == I - 1) break;
    contract_first(I, w, i, down, 1, w->rest), contract_first(I, w, i, up, 0, w->gain_rest);
    down = w->rest, up = w->gain_rest;
  }
}

/* One pass over the factors from f->g to f->best, each with the newest others; see sweep.py. */
static void pass(const Call *call, Work *w) {
  const int I = call->factors;
  real counts = 1;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    counts *= f->g[0] > 0 ? f->kept : 0;
    for (int n = 0; n < f->kept; n++) f->inverse[n] = reciprocal(f->fresh[n]);
    for (int n = f->kept; n < padded(f->kept); n++) f->inverse[n] = 0;
  }
  const real *rest = w->L;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const real *summed = contract_behind(I, w, i, rest, 1);
    const real weight = f->g[0] > 0 ? f->kept / fmax(counts, 1) : 0;
    for (int n = 0; n < f->kept; n++) f->best[n] = summed[n] * weight;
    if (call->step == ALTERNATING && call->coupled[i]) couple(call, f, f->best, w->scratch);
    if (i == I - 1) break;
    contract_first(I, w, i, rest, 1, w->rest);
    rest = w->rest;
  }
}

/* Unit norm for the sources, which are g where nothing is coupled, of all factors but the last, which carries it. */
static void normalise(int I, Work *w, int of_sources) {
  real scale = 1;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const real *x = of_sources ? f->s_best : f->best;
    real square = 0;
    for (int n = 0; n < f->kept && i < I - 1; n++) square += x[n] * x[n];
    const real norm = sqrt(square), by = i < I - 1 ? reciprocal(norm) : scale;
    for (int n = 0; n < f->kept; n++) f->best[n] *= by, f->s_best[n] *= by;
    scale *= norm;
  }
}

/* ||kron(new) - kron(old)||, divided by ||kron(old)|| if relative, from f->g or f->fresh to f->fresh or f->best. */
static real distance(int I, const Work *w, int of_sweep, int relative) {
  real moved = 1, mixed = 1, scale = 1;
  for (int i = 0; i < I; i++) {
    const Factor *f = &w->factor[i];
    const real *u = of_sweep ? f->best : f->fresh, *v = of_sweep ? f->fresh : f->g;
    real uu = 0, uv = 0, vv = 0;
    for (int n = 0; n < f->kept; n++) uu += u[n] * u[n], uv += u[n] * v[n], vv += v[n] * v[n];
    moved *= uu, mixed *= uv, scale *= vv;
  }
  const real square = (moved + scale - 2 * mixed) / (relative ? scale : 1);
  return square > 0 && isfinite(square) ? sqrt(square) : 0;
}

static void take_sweep(int I, Work *w) {
  for (int i = 0; i < I; i++) {
    const Factor *f = &w->factor[i];
    memcpy(f->fresh, f->best, f->kept * sizeof(real)), memcpy(f->s_fresh, f->s_best, f->kept * sizeof(real));
  }
}

static void m_step(const Call *call, Work *w) {
  const int I = call->factors;
  if (call->step == NESTED_SVD) {
    nested_svd(I, w);
    return;
  }
  for (int i = 0; i < I; i++) {
    const Factor *f = &w->factor[i];
    memcpy(f->fresh, f->g, f->kept * sizeof(real)), memcpy(f->s_fresh, f->s, f->kept * sizeof(real));
  }
  if (call->step == ONE_SWEEP) {
    pass(call, w);
    take_sweep(I, w);
    return;
  }
  for (int sweep = 0; sweep < call->sweeps; sweep++) {
    if (call->step == BOUND) bound_pass(call, w);
    else pass(call, w);
    normalise(I, w, call->step == BOUND);
    const real moved = distance(I, w, 1, call->relative);
    if (!(moved <= call->divergence)) return;
    take_sweep(I, w);
    if (moved < call->inner_tolerance) return;
  }
}

static void split(const double *x, size_t count, planes out) {
  for (size_t i = 0; i < count; i++) {
    out.re[i] = out.im ? x[2 * i] : x[i];
    if (out.im) out.im[i] = x[2 * i + 1];
  }
}

/* g at its full length, zero where pruned. */
static void spread(const Factor *f, double *g) {
  memset(g, 0, f->columns * sizeof(real));
  for (int n = 0; n < f->kept; n++) g[f->position[n]] = f->g[n];
}

static real largest_of(int n, const real *x) {
  real largest = 0;
  for (int i = 0; i < n; i++) largest = fmax(largest, x[i]);
  return largest;
}

static int is_finite(int I, const Work *w) {
  real nothing = 0;
  for (int i = 0; i < I; i++)
    for (int n = 0; n < w->factor[i].kept; n++) nothing += 0 * w->factor[i].fresh[n];
  return nothing == 0;
}

static void solve_one(const Call *call, Work *w, int64_t b) {
  const int I = call->factors, width = call->complex_numbers ? 2 : 1, last = call->rows[I - 1];
  size_t rows = 1, M = last;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const size_t entries = (size_t)f->rows * f->columns;
    split(call->matrices[i] + (call->shared[i] ? 0 : b * entries * width), entries, f->A);
    f->kept = f->columns;
    for (int n = 0; n < f->columns; n++) {
      f->g[n] = call->g[i][b * f->columns + n];
      f->s[n] = call->sources[i] ? call->sources[i][b * f->columns + n] : f->g[n];
      f->position[n] = n, f->positive[n] = 1;
    }
    if (i < I - 1) rows *= f->rows, M *= f->rows;
  }
  clear(w->y, rows * padded(last));
  for (size_t r = 0; r < rows; r++)
    split(call->y + (b * rows + r) * last * width, last, at(w->y, r * padded(last)));

  int64_t iteration = 0;
  real lowest = INFINITY;
  call->outcome[b] = UNFINISHED;
  while (iteration < call->max_iterations && call->outcome[b] == UNFINISHED) {
    for (int i = 0; i < I; i++) {
      Factor *f = &w->factor[i];
      prune(f, call->ratios[i], call->floor);
      if (call->step == BOUND && call->coupled[i]) add_neighbours(f, call->beta, f->s, f->g);
    }
    const int64_t row = b * call->max_iterations + iteration;
    real cost, noise = call->noise_variance[b];
    const int finite = e_step(call, w, &noise, &cost);
    if (finite) m_step(call, w);
    if (!finite || !is_finite(I, w)) {
      call->outcome[b] = NOT_FINITE;
      for (int i = 0; i < I; i++) memset(w->factor[i].g, 0, w->factor[i].kept * sizeof(real));
      break;
    }
    call->noise_variance[b] = noise, lowest = fmin(lowest, cost);
    for (int i = 0; i < I; i++)
      if (!(w->factor[i].g[0] > 0)) w->factor[i].fresh[0] = w->factor[i].s_fresh[0] = 0;
    const real change = distance(I, w, 0, 1);
    if (change <= call->tolerance) call->outcome[b] = cost - lowest > RISE * M ? COST_ROSE : SETTLED;
    for (int i = 0; i < I; i++) {
      const Factor *f = &w->factor[i];
      memcpy(f->g, f->fresh, f->kept * sizeof(real)), memcpy(f->s, f->s_fresh, f->kept * sizeof(real));
      if (call->outcome[b] != UNFINISHED && largest_of(f->kept, f->g) <= 0) call->outcome[b] = PRUNED;
    }
    if (call->cost) {
      call->cost[row] = cost, call->change[row] = change, call->noise_path[row] = call->noise_variance[b];
      for (int i = 0; i < I; i++) spread(&w->factor[i], call->g_path[i] + row * w->factor[i].columns);
    }
    iteration++;
  }
  call->iterations[b] = iteration;
  for (int i = 0; i < I; i++) spread(&w->factor[i], call->g[i] + b * w->factor[i].columns);
}

/* Numbers handed out from one piece of memory, in steps of a cache line; `base` NULL only counts them. */
typedef struct {
  real *base;
  size_t used;
} Arena;

static real *take(Arena *arena, size_t count) {
  real *here = arena->base ? arena->base + arena->used : NULL;
  arena->used += (count + 7) / 8 * 8;
  return here;
}

static planes take_planes(Arena *arena, size_t count, int complex_numbers) {
  real *re = take(arena, count);
  return (planes){re, complex_numbers ? take(arena, count) : NULL};
}

static void lay_out(const Call *call, Work *w, Arena *arena) {
  const int I = call->factors, c = call->complex_numbers;
  size_t tensor = 1, scratch = 0, observations = 1, squares = 0;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const int M = f->rows = call->rows[i], N = f->columns = call->columns[i];
    const int K = M < N ? M : N, most = padded((M + 1 > N ? M + 1 : N)), ldM = padded(M), ldN = padded(N);
    tensor *= i == I - 1 ? most : (M + 1 > N ? M + 1 : N);
    observations *= i == I - 1 ? ldM : M;
    const size_t needed = eigen_scratch(K) > (size_t)16 * N + 16 ? eigen_scratch(K) : (size_t)16 * N + 16;
    scratch = needed > scratch ? needed : scratch;
    squares = (size_t)2 * N * ldN > squares ? (size_t)2 * N * ldN : squares;
    f->A = take_planes(arena, (size_t)M * N, c);
    f->g = take(arena, ldN), f->fresh = take(arena, ldN), f->best = take(arena, ldN);
    f->s = take(arena, ldN), f->s_fresh = take(arena, ldN), f->s_best = take(arena, ldN);
    f->inverse = take(arena, most), f->level = take(arena, most), f->p = take(arena, most);
    f->position = (int *)take(arena, N), f->positive = (char *)take(arena, N);
    f->S = take_planes(arena, (size_t)M * ldN, c), f->T = take_planes(arena, (size_t)N * ldM, c);
    f->G = take_planes(arena, (size_t)K * padded(K), c), f->X = take_planes(arena, (size_t)K * padded(K), c);
    f->U = take_planes(arena, (size_t)K * ldM, c), f->W = take_planes(arena, (size_t)K * ldN, c);
    f->U_last = take_planes(arena, (size_t)M * padded(K), c), f->W_first = take_planes(arena, (size_t)N * K, c);
    f->E = take(arena, (size_t)(K + 1) * ldN), f->E_first = take(arena, (size_t)(K + 1) * N);
  }
  w->y = take_planes(arena, observations, c);
  w->one = take_planes(arena, tensor, c), w->two = take_planes(arena, tensor, c);
  w->z_energy = take(arena, tensor), w->P = take(arena, tensor), w->D = take(arena, tensor);
  w->kept = take(arena, tensor), w->L = take(arena, tensor), w->rest = take(arena, 2 * tensor);
  w->gain = take(arena, tensor), w->gain_rest = take(arena, tensor);
  w->square = take(arena, squares > tensor ? squares : tensor), w->scratch = take(arena, scratch);
}

/* Solve every problem of the call; g and noise_variance are overwritten. Returns 0, or 1 where memory ran out. */
int em_solve(const Call *call) {
  int failed = 0;
#pragma omp parallel if (call->problems > 1)
  {
    Work w;
    Arena arena = {NULL, 0};
    lay_out(call, &w, &arena);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, arena.used * sizeof(real))) {
#pragma omp atomic write
      failed = 1;
    } else {
      memset(memory, 0, arena.used * sizeof(real));
      arena = (Arena){memory, 0};
      lay_out(call, &w, &arena);
    }
#pragma omp barrier
    if (!failed) {
#pragma omp for schedule(dynamic)
      for (int64_t b = 0; b < call->problems; b++) solve_one(call, &w, b);
    }
    free(memory);
  }
  return failed;
}
