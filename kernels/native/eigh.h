/* Eigenvalues and eigenvectors of one small Hermitian matrix.

   Householder reflections bring it to tridiagonal form, whose phases are taken out; implicit QL with Wilkinson's
   shift diagonalises that, and the reflections turn its eigenvectors back. Eigenvalues are accurate to rounding
   relative to the norm. Source: Golub and Van Loan, Matrix Computations, sections 8.3.1 and 8.3.3.

   Include dense.h first. Rows of n numbers are padded(n) apart, and the surplus is zero. */

#include <float.h>
#include <math.h>
#include <string.h>

/* Numbers by their real and imaginary parts; im is NULL where they are real. */
typedef struct {
  real *re, *im;
} planes;

static inline planes at(planes x, ptrdiff_t offset) {
  return (planes){x.re + offset, x.im ? x.im + offset : NULL};
}

enum { QL_ITERATIONS = 60, TURNED = 2 * LANES }; /* TURNED: rows that `turn_back` works on at once */

/* Numbers of scratch that `hermitian_eigen` needs. */
static inline size_t eigen_scratch(int n) { return (size_t)padded(n) * (3 * n + 8) + (size_t)2 * n * TURNED; }

static inline real sum_of(vec x) {
  real sum = 0;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

/* Reflect row and column k of `a` onto their first neighbour by 1 - tau v v^H, v in a row of its own that is zero up
   to k, and return tau; the subdiagonal entry is then `edge`. p is scratch. */
static real reflect(int n, int k, planes a, planes v, planes p, real *edge_re, real *edge_im) {
  const int ld = padded(n), first = (k + 1) / LANES * LANES;
  real tail = 0;
  for (int j = k + 1; j < n; j++) {
    v.re[j] = a.re[k * ld + j];
    tail += j > k + 1 ? v.re[j] * v.re[j] : 0;
    if (a.im) {
      v.im[j] = -a.im[k * ld + j];
      tail += j > k + 1 ? v.im[j] * v.im[j] : 0;
    }
  }
  const real head_re = v.re[k + 1], head_im = a.im ? v.im[k + 1] : 0;
  *edge_re = head_re, *edge_im = head_im;
  if (tail == 0) return 0;
  const real head = sqrt(head_re * head_re + head_im * head_im), norm = sqrt(head * head + tail);
  const real phase_re = head > 0 ? head_re / head : 1, phase_im = head > 0 ? head_im / head : 0;
  *edge_re = -phase_re * norm, *edge_im = -phase_im * norm;
  v.re[k + 1] += phase_re * norm;
  if (a.im) v.im[k + 1] += phase_im * norm;
  const real tau = 2 / ((head + norm) * (head + norm) + tail);

  /* w = tau (A v - tau / 2 (v^H A v) v), in place of p; then A -= v w^H + w v^H. */
  for (int c = first; c < ld; c += LANES) {
    vec re = {0}, im = {0};
    for (int j = k + 1; j < n; j++) {
      const vec row = *(vec *)(a.re + j * ld + c);
      re += v.re[j] * row;
      if (a.im) {
        const vec row_im = *(vec *)(a.im + j * ld + c);
        re += v.im[j] * row_im;
        im += v.im[j] * row - v.re[j] * row_im;
      }
    }
    *(vec *)(p.re + c) = tau * re;
    if (a.im) *(vec *)(p.im + c) = tau * im;
  }
  vec inner = {0};
  for (int c = first; c < ld; c += LANES) {
    inner += *(vec *)(v.re + c) * *(vec *)(p.re + c);
    if (a.im) inner += *(vec *)(v.im + c) * *(vec *)(p.im + c);
  }
  const real half = tau / 2 * sum_of(inner);
  for (int c = first; c < ld; c += LANES) {
    *(vec *)(p.re + c) -= half * *(vec *)(v.re + c);
    if (a.im) *(vec *)(p.im + c) -= half * *(vec *)(v.im + c);
  }
  for (int i = k + 1; i < n; i++)
    for (int c = first; c < ld; c += LANES) {
      const vec v_re = *(vec *)(v.re + c), w_re = *(vec *)(p.re + c);
      vec re = v.re[i] * w_re + p.re[i] * v_re;
      if (a.im) {
        const vec v_im = *(vec *)(v.im + c), w_im = *(vec *)(p.im + c);
        re += v.im[i] * w_im + p.im[i] * v_im;
        *(vec *)(a.im + i * ld + c) -= v.im[i] * w_re - v.re[i] * w_im + p.im[i] * v_re - p.re[i] * v_im;
      }
      *(vec *)(a.re + i * ld + c) -= re;
    }
  return tau;
}

/* Diagonalise the tridiagonal matrix of diagonal d and subdiagonal e; the rotations turn the rows of z as well.
   Returns whether it has converged. */
static int implicit_ql(int n, real *d, real *e, real *z) {
  const int ld = padded(n);
  const real eps = sizeof(real) == sizeof(float) ? FLT_EPSILON : DBL_EPSILON;
  real size = 0;
  for (int i = 0; i < n; i++) size = fmax(size, fabs(d[i]) + (i + 1 < n ? fabs(e[i]) : 0));
  const real negligible = eps * size;
  for (int low = 0; low < n; low++)
    for (int iteration = 0;; iteration++) {
      int high = low;
      while (high < n - 1 && fabs(e[high]) > negligible) high++;
      if (high == low) break;
      if (iteration == QL_ITERATIONS) return 0;
      const real half_gap = (d[low + 1] - d[low]) / (2 * e[low]);
      real bulge = d[high] - d[low] + e[low] / (half_gap + copysign(sqrt(half_gap * half_gap + 1), half_gap));
      real cosine = 1, sine = 1, shift = 0;
      int i = high - 1;
      for (; i >= low; i--) {
        const real across = sine * e[i], along = cosine * e[i], length = sqrt(across * across + bulge * bulge);
        e[i + 1] = length;
        if (length == 0) break;
        sine = across / length, cosine = bulge / length;
        const real base = d[i + 1] - shift, turned = (d[i] - base) * sine + 2 * cosine * along;
        shift = sine * turned;
        d[i + 1] = base + shift;
        bulge = cosine * turned - along;
        real *lower = z + i * ld, *upper = lower + ld;
        for (int c = 0; c < ld; c += LANES) {
          const vec u = *(vec *)(upper + c), l = *(vec *)(lower + c);
          *(vec *)(upper + c) = sine * l + cosine * u;
          *(vec *)(lower + c) = cosine * l - sine * u;
        }
      }
      if (i >= low) {
        d[i + 1] -= shift;
      } else {
        d[low] -= shift;
        e[low] = bulge;
      }
      if (high < n - 1) e[high] = 0;
    }
  return 1;
}

/* y (n x TURNED), side by side TURNED rows of vectors, by the reflection of v and tau that begins at row `first`. */
static void reflect_back(int n, int first, planes v, real tau, planes y) {
  vec re[2] = {0}, im[2] = {0};
  for (int i = first; i < n; i++)
    for (int h = 0; h < 2; h++) {
      const vec y_re = *(vec *)(y.re + i * TURNED + h * LANES);
      re[h] += v.re[i] * y_re;
      if (!y.im) continue;
      const vec y_im = *(vec *)(y.im + i * TURNED + h * LANES);
      re[h] += v.im[i] * y_im;
      im[h] += v.re[i] * y_im - v.im[i] * y_re;
    }
  for (int h = 0; h < 2; h++) re[h] *= tau, im[h] *= tau;
  for (int i = first; i < n; i++)
    for (int h = 0; h < 2; h++) {
      vec *y_re = (vec *)(y.re + i * TURNED + h * LANES);
      *y_re -= v.re[i] * re[h];
      if (!y.im) continue;
      *y_re += v.im[i] * im[h];
      *(vec *)(y.im + i * TURNED + h * LANES) -= v.re[i] * im[h] + v.im[i] * re[h];
    }
}

/* Turn the rows of x (vectors of the tridiagonal form) by the reflections v_k, tau_k, over a copy y of some of them
   that stays in a core's cache. */
static void turn_back(int n, planes v, const real *tau, planes x, planes y) {
  const int ld = padded(n);
  for (int start = 0; start < n; start += TURNED) {
    const int count = n - start < TURNED ? n - start : TURNED;
    for (int j = 0; j < count; j++)
      for (int i = 0; i < n; i++) {
        y.re[i * TURNED + j] = x.re[(start + j) * ld + i];
        if (x.im) y.im[i * TURNED + j] = x.im[(start + j) * ld + i];
      }
    for (int k = n - 3; k >= 0; k--)
      if (tau[k] != 0) reflect_back(n, k + 1, at(v, k * ld), tau[k], y);
    for (int j = 0; j < count; j++)
      for (int i = 0; i < n; i++) {
        x.re[(start + j) * ld + i] = y.re[i * TURNED + j];
        if (x.im) x.im[(start + j) * ld + i] = y.im[i * TURNED + j];
      }
  }
}

/* a (n x n, overwritten) = sum_j values[j] x_j x_j^H, x_j the rows of `vectors` (n x n), in no order. Returns whether
   it has converged; it has not where `a` is not finite. */
static int hermitian_eigen(int n, planes a, real *values, planes vectors, real *scratch) {
  const int ld = padded(n);
  const size_t plane = (size_t)n * ld;
  memset(scratch, 0, eigen_scratch(n) * sizeof(real));
  const planes v = {scratch, a.im ? scratch + plane : NULL};
  real *z = scratch + 2 * plane, *row = z + plane, *turned = row + 8 * ld;
  const planes p = {row, a.im ? row + ld : NULL};
  real *tau = row + 2 * ld, *edge = row + 3 * ld, *turn_re = row + 4 * ld, *turn_im = row + 5 * ld;

  real largest = 0;
  for (size_t i = 0; i < plane; i++) {
    largest = fmax(largest, fabs(a.re[i]));
    if (a.im) largest = fmax(largest, fabs(a.im[i]));
    if (!isfinite(a.re[i]) || (a.im && !isfinite(a.im[i]))) return 0;
  }
  const real scale = largest > 0 ? largest : 1;
  for (size_t i = 0; i < plane; i++) {
    a.re[i] /= scale;
    if (a.im) a.im[i] /= scale;
  }
  turn_re[0] = 1;
  for (int k = 0; k < n - 1; k++) {
    real edge_re, edge_im;
    tau[k] = reflect(n, k, a, at(v, k * ld), p, &edge_re, &edge_im);
    if (k == n - 2) tau[k] = 0;
    edge[k] = edge_re, turn_re[k + 1] = 1;
    if (!a.im) continue;
    edge[k] = sqrt(edge_re * edge_re + edge_im * edge_im);
    const real re = edge[k] > 0 ? edge_re / edge[k] : 1, im = edge[k] > 0 ? edge_im / edge[k] : 0;
    turn_re[k + 1] = turn_re[k] * re - turn_im[k] * im;
    turn_im[k + 1] = turn_re[k] * im + turn_im[k] * re;
  }
  for (int i = 0; i < n; i++) values[i] = a.re[i * ld + i], z[i * ld + i] = 1;
  if (!implicit_ql(n, values, edge, z)) return 0;
  for (int j = 0; j < n; j++) {
    values[j] *= scale;
    for (int c = 0; c < ld; c++) {
      vectors.re[j * ld + c] = z[j * ld + c] * turn_re[c];
      if (a.im) vectors.im[j * ld + c] = z[j * ld + c] * turn_im[c];
    }
  }
  turn_back(n, v, tau, vectors, (planes){turned, a.im ? turned + (size_t)n * TURNED : NULL});
  return 1;
}
