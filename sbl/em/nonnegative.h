/* Non-negative least squares behind neighbouring prior variances; see pc_krosbl.py. Include call.h and define real
   first. */

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

/* b <- C argmin_{g >= 0} ||C g - b|| + offset, C tridiagonal on the kept entries: block principal pivoting.
   was_positive: of all columns, whether their g was positive; overwritten. empty: nothing is kept. */
static void couple(
    const Call *call, int n, const int *position, char *was_positive, int empty, real *b, real *scratch) {
  const real beta = call->beta;
  real *near = scratch, *H = near + n + 1, *q = H + 5 * n, *x = q + n, *factor = x + n;
  int *kept = (int *)(factor + 3 * n);
  char *positive = (char *)(kept + n), *wrong = positive + n;
  near[0] = near[n] = 0; /* near[i]: coupling of entries i - 1 and i */
  for (int i = 1; i < n; i++) near[i] = position[i] == position[i - 1] + 1 ? beta : 0;
  if (empty) return;
  for (int i = 0; i < n; i++) {
    q[i] = b[i] + (i > 0 ? near[i] * b[i - 1] : 0) + (i + 1 < n ? near[i + 1] * b[i + 1] : 0);
    H[i * 5 + 2] = 1 + near[i] * near[i] + near[i + 1] * near[i + 1];
    H[i * 5 + 1] = 2 * near[i];
    H[i * 5 + 3] = 2 * near[i + 1];
    H[i * 5 + 0] = i > 1 ? near[i] * near[i - 1] : 0;
    H[i * 5 + 4] = i + 2 < n ? near[i + 1] * near[i + 2] : 0;
    positive[i] = was_positive[position[i]];
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
  for (int i = 0; i < n; i++) x[i] = fmax(x[i], (real)0), was_positive[position[i]] = x[i] > 0;
  for (int i = 0; i < n; i++)
    b[i] = x[i] + (i > 0 ? near[i] * x[i - 1] : 0) + (i + 1 < n ? near[i + 1] * x[i + 1] : 0) + call->offset;
}
