/* Small dense matrix products in registers, for the C sources of this project.

   Define REAL as float or double before including it. Matrices are row-major with a leading dimension; the columns
   of a product are padded to a multiple of LANES. */

#include <stddef.h>

typedef REAL real;

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, BLOCK_ROWS = 12 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, BLOCK_ROWS = 6 };
#else
enum { VECTOR_BYTES = 16, BLOCK_ROWS = 4 };
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
enum { LANES = VECTOR_BYTES / sizeof(real) };

static inline int padded(int count) { return (count + LANES - 1) / LANES * LANES; }

/* rows x (vecs LANES) of a x in registers: rows and vecs are constants where it is inlined. */
static inline __attribute__((always_inline)) void product_block(
    const int rows, const int vecs, int inner, const real *a, ptrdiff_t lda, const real *x, ptrdiff_t ldx,
    real *out, ptrdiff_t ldo, const int add) {
  vec sum[BLOCK_ROWS][2];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++)
      sum[r][v] = add ? *(const vec *)(out + r * ldo + v * LANES) : (vec){0};
  for (int c = 0; c < inner; c++) {
    vec row[2];
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) row[v] = *(const vec *)(x + c * ldx + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
      for (int v = 0; v < vecs; v++)
        if (add < 0) sum[r][v] -= a[r * lda + c] * row[v];
        else sum[r][v] += a[r * lda + c] * row[v];
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) *(vec *)(out + r * ldo + v * LANES) = sum[r][v];
}

static inline __attribute__((always_inline)) void product_columns(
    const int vecs, int rows, int inner, const real *a, ptrdiff_t lda, const real *x, ptrdiff_t ldx, real *out,
    ptrdiff_t ldo, const int add) {
  int r = 0;
  for (; r + BLOCK_ROWS <= rows; r += BLOCK_ROWS)
    product_block(BLOCK_ROWS, vecs, inner, a + r * lda, lda, x, ldx, out + r * ldo, ldo, add);
  for (; r + 4 <= rows; r += 4)
    product_block(4, vecs, inner, a + r * lda, lda, x, ldx, out + r * ldo, ldo, add);
  for (; r + 2 <= rows; r += 2)
    product_block(2, vecs, inner, a + r * lda, lda, x, ldx, out + r * ldo, ldo, add);
  for (; r < rows; r++) product_block(1, vecs, inner, a + r * lda, lda, x, ldx, out + r * ldo, ldo, add);
}

/* out (rows x columns) = a (rows x inner) x (inner x columns); add 1 adds it to what out holds, -1 subtracts it. */
static inline __attribute__((always_inline)) void product(
    int rows, int inner, int columns, const real *a, ptrdiff_t lda, const real *x, ptrdiff_t ldx, real *out,
    ptrdiff_t ldo, const int add) {
  int c = 0;
  for (; c + 2 * LANES <= columns; c += 2 * LANES)
    product_columns(2, rows, inner, a, lda, x + c, ldx, out + c, ldo, add);
  for (; c < columns; c += LANES) product_columns(1, rows, inner, a, lda, x + c, ldx, out + c, ldo, add);
}

/* The same, each compiled once. */
static void product_set(int rows, int inner, int columns, const real *a, ptrdiff_t lda, const real *x, ptrdiff_t ldx,
                        real *out, ptrdiff_t ldo) {
  product(rows, inner, columns, a, lda, x, ldx, out, ldo, 0);
}

static void product_add(int rows, int inner, int columns, const real *a, ptrdiff_t lda, const real *x, ptrdiff_t ldx,
                        real *out, ptrdiff_t ldo) {
  product(rows, inner, columns, a, lda, x, ldx, out, ldo, 1);
}

static void product_subtract(int rows, int inner, int columns, const real *a, ptrdiff_t lda, const real *x,
                             ptrdiff_t ldx, real *out, ptrdiff_t ldo) {
  product(rows, inner, columns, a, lda, x, ldx, out, ldo, -1);
}
