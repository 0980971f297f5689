/* The singular value decomposition of matrices (m, n), m >= n, that registers hold, in three kernels whose work has
   three shapes.

   bidiagonalise: the lanes of a matrix have both its rows and its columns, and reflect either from both sides.
   diagonalise: a thread a matrix follows the chain of rotations of implicit QR steps and writes them down.
   turn: the lanes of U, and those of V, have its rows, which the reflections of the first and the rotations of the
   second make; both stand in device memory.
   The last two come again where a matrix has not settled in the room for rotations. Singular values are accurate to
   rounding relative to the largest.
   Source: Golub and Van Loan, Matrix Computations, sections 5.4.8 and 8.6.3; Demmel and Kahan, "Accurate singular
   values of bidiagonal matrices", 1990 (the step without shift, which a vanishing diagonal entry wants). */

#define CONVERGED 1
#include "bidiagonal.cuh"

/* A matrix counts as (N, N), and a lane has ROWS of its rows, LANES apart: what lanes read of one another, which bounds
   the kernels, then serves ROWS times. */
enum { ROWS = sizeof(number) == 4 ? 2 : 1, N = ROWS * LANES, CHAINS = 32 };
#define FOR_ROWS(r) _Pragma("unroll") for (int r = 0; r < ROWS; r++)

/* Rotations by the tangents of half their angles. */
struct alignas(2 * sizeof(real)) halves {
  real right, left;
};
__device__ inline real half_tangent(rotation by) { return quotient(by.s, 1 + by.c); }

/* H = 1 + conj(factor) v v^H, where v is x but for its first number, `head`; H^H x = beta e_0. */
struct reflection {
  real beta;
  number head, factor;
};

/* Of an x with this first number and this squared length. */
__device__ inline reflection reflect(number head, real length) {
  if (length < limits::vanishing) return {0, of(0, 0), of(0, 0)};
  const real beta = re(head) > 0 ? -root(length) : root(length);
  const number first = of(re(head) - beta, im(head));
  const real inverse = quotient(1, beta * square(first));
  return {beta, first, times(inverse, conj(first))};
}

/* What the lanes of a matrix tell one another. */
struct alignas(16) board {
  number column[N], along_column[N], row[N], along_row[N];
};

/* Of the numbers of all rows the one of row k. */
__device__ inline number of_row(const number (&x)[ROWS], int k) {
  number mine = x[0];
  FOR_ROWS(r) if (k / LANES == r) mine = x[r];
  return from_lane(mine, k % LANES);
}

__device__ inline real squares(const number (&x)[ROWS]) {
  real sum = 0;
  FOR_ROWS(r) sum += square(x[r]);
  return warp_sum(sum);
}

/* One reflection from either side, of the block from entry (k, k) on, of at most COUNT rows. a, b: the columns and the
   rows of this lane from k on, which become those from k + 1 on. below, beside: what the reflections are of; of
   `beside` with the new head. */
template <int COUNT>
__device__ inline void reflect_both(int k, number (&a)[ROWS][N], number (&b)[ROWS][N], board *shown, reflection *left,
                                    reflection *right, number (&below)[ROWS], number (&beside)[ROWS]) {
  int to[ROWS];
  number own[ROWS], down[ROWS], inner[ROWS][2];
  FOR_ROWS(r) {
    const int row = lane() + r * LANES;
    to[r] = (row - k - 1) & (N - 1), own[r] = b[r][0];
    shown->column[to[r]] = below[r] = row > k ? own[r] : of(0, 0);
  }
  const number head = of_row(own, k);
  *left = reflect(head, square(head) + squares(below));
  sync_lanes();
  FOR_ROWS(r) inner[r][0] = times(conj(head), a[r][0]), inner[r][1] = of(0, 0);
#pragma unroll
  for (int i = 0; i < COUNT - 1; i++)
    FOR_ROWS(r) inner[r][i % 2] = plus_times(inner[r][i % 2], conj(shown->column[i]), a[r][i + 1]);
  FOR_ROWS(r) {
    const bool inside = lane() + r * LANES > k;
    const number sum = plus(inner[r][0], inner[r][1]);
    down[r] = inside ? times(left->factor, plus_times(sum, of(-left->beta, 0), a[r][0])) : of(0, 0);
    beside[r] = inside ? conj(plus_times(a[r][0], down[r], left->head)) : of(0, 0);
    shown->along_column[to[r]] = down[r], shown->row[to[r]] = beside[r];
  }
  *right = reflect(of_row(beside, (k + 1) & (N - 1)), squares(beside));
  sync_lanes();
  FOR_ROWS(r) inner[r][0] = inner[r][1] = of(0, 0);
#pragma unroll
  for (int j = 0; j < COUNT - 1; j++) FOR_ROWS(r) {
      b[r][j] = plus_times(b[r][j + 1], own[r], shown->along_column[j]);
      inner[r][j % 2] = plus_times(inner[r][j % 2], b[r][j], shown->row[j]);
    }
  number across[ROWS];
  FOR_ROWS(r) {
    const number sum = plus(inner[r][0], inner[r][1]);
    across[r] = times(conj(right->factor), plus_times(sum, of(-right->beta, 0), b[r][0]));
    shown->along_row[to[r]] = lane() + r * LANES > k ? across[r] : of(0, 0);
    b[r][0] = plus_times(b[r][0], across[r], conj(right->head));
    if (lane() + r * LANES == k + 1) beside[r] = right->head;
  }
#pragma unroll
  for (int j = 1; j < COUNT - 1; j++) FOR_ROWS(r) b[r][j] = plus_times(b[r][j], across[r], conj(shown->row[j]));
  sync_lanes();
#pragma unroll
  for (int i = 0; i < COUNT - 1; i++) FOR_ROWS(r) {
      const number half = plus_times(a[r][i + 1], down[r], shown->column[i]);
      a[r][i] = plus_times(half, conj(beside[r]), shown->along_row[i]);
    }
  FOR_ROWS(r) a[r][COUNT - 1] = b[r][COUNT - 1] = of(0, 0);
  sync_lanes();
}

/* matrices (batch, m, n), or (batch, n, m) whose adjoints are meant where `wide`. form (2 N + 1, batch): the diagonal
   and the edge of the bidiagonal form, and the exponent of a power of two that it is to be multiplied with.
   Q (batch, 2, N, N), taus (batch, 2, N): the reflections of both sides, a row each. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    bidiagonalise(const number *matrices, number *Q, number *taus, real *form, int *failed, int batch, int m, int n,
                  int wide) {
  extern __shared__ __align__(16) char shared[];
  const int place = min(blockIdx.x * MATRICES + threadIdx.x / LANES, batch - 1); /* the last ones do the same */
  number *tile = (number *)shared + threadIdx.x / LANES * (N * (N + 1));
  const int rows = wide ? n : m, columns = wide ? m : n;
  const number *matrix = matrices + (size_t)place * m * n;
  number a[ROWS][N], b[ROWS][N];
#pragma unroll
  for (int i = 0; i < N; i++)
    FOR_ROWS(r) a[r][i] = matrix[min(i, rows - 1) * columns + min(lane() + r * LANES, columns - 1)];
  real largest = 0;
#pragma unroll
  for (int i = 0; i < N; i++) FOR_ROWS(r) {
      const int j = lane() + r * LANES;
      if (i >= rows || j >= columns) a[r][i] = of(0, 0);
      largest = fmax(largest, size_of(a[r][i], true));
      tile[i * (N + 1) + j] = a[r][i];
    }
  largest = warp_max(largest);
  const bool finite = largest <= limits::largest;
  if (!finite && lane() == 0) *failed = NOT_FINITE;
  const int exponent = finite && largest > 0 ? ilogb(largest) + 1 : 0;
  const int next_row = wide ? 1 : N + 1, next_column = wide ? N + 1 : 1;
  const power down(-exponent);
  sync_lanes();
#pragma unroll
  for (int i = 0; i < N; i++) FOR_ROWS(r) {
      const int j = lane() + r * LANES;
      a[r][i] = finite ? down.of_number(tile[i * next_row + j * next_column]) : of(0, 0);
      b[r][i] = finite ? down.of_number(tile[j * next_row + i * next_column]) : of(0, 0);
      if (wide) a[r][i] = conj(a[r][i]), b[r][i] = conj(b[r][i]);
    }
  sync_lanes();
  board *shown = (board *)tile;
  if (Q) Q += (size_t)place * 2 * N * N + lane(), taus += (size_t)place * 2 * N;
  form += place;
  for (int k = 0; k < n; k++) {
    reflection left, right;
    number below[ROWS], beside[ROWS];
    if (N > 24 && m - k > 24)
      reflect_both<N < 32 ? N : 32>(k, a, b, shown, &left, &right, below, beside);
    else if (N > 16 && m - k > 16)
      reflect_both<N < 24 ? N : 24>(k, a, b, shown, &left, &right, below, beside);
    else if (N > 8 && m - k > 8)
      reflect_both<N < 16 ? N : 16>(k, a, b, shown, &left, &right, below, beside);
    else
      reflect_both<8>(k, a, b, shown, &left, &right, below, beside);
    if (lane() == 0) form[(size_t)k * batch] = left.beta, form[(size_t)(N + k) * batch] = right.beta;
    if (!Q) continue;
    FOR_ROWS(r) {
      Q[k * N + r * LANES] = lane() + r * LANES == k ? left.head : below[r];
      Q[(N + k) * N + r * LANES] = beside[r];
    }
    if (lane() == 0) taus[k] = conj(left.factor), taus[N + k] = conj(right.factor);
  }
  if (lane() == 0) form[(size_t)2 * N * batch] = exponent;
}

/* Columns that the rotations of a step turn, from first up to last; none, behind the last step. */
struct alignas(2) turned {
  unsigned char first, last;
};

/* form as bidiagonalise left it, and as the rounds before did. turns (batch, most), steps (batch, most + 1): the
   rotations of this round, one step after the other, and what each step turned; null for values alone. settled (batch):
   0 not yet, 1 in this round, 2 before. S (batch, n), descending; order (batch, n): where a column goes, or ~ that
   where it changes its sign. The threads write their rotations down together, so that those of a matrix lie together. */
extern "C" __global__ void __launch_bounds__(CHAINS)
    diagonalise(real *form, halves *turns, turned *steps, int *settled, real *S, int *order, int *failed, int batch, int n,
                int most, int round) {
  extern __shared__ __align__(16) char shared[];
  room chip = {shared};
  const int me = threadIdx.x, place = blockIdx.x * CHAINS + me;
  halves *kept = chip.take<halves>(N * (CHAINS + 1));
  int2 *runs = chip.take<int2>(CHAINS); /* of each thread, where its rotations go, and how many */
  real *d = chip.take<real>(N * CHAINS) + me, *e = chip.take<real>((N + 1) * CHAINS) + CHAINS + me, norm = 0;
  const bool meant = place < batch && !(round > 0 && settled[place]);
  for (int i = 0; meant && i < n; i++) {
    d[i * CHAINS] = form[(size_t)i * batch + place];
    e[i * CHAINS] = i < n - 1 ? form[(size_t)(N + i) * batch + place] : 0;
    norm = fmax(norm, fabs(d[i * CHAINS]) + fabs(e[i * CHAINS]));
  }
  const real negligible = limits::eps * norm;
  part rows = {meant ? n - 1 : 0, meant ? n - 1 : 0, 0};
  for (int used = 0, count = 0;; count++) {
    const bool more = meant && find_part<CHAINS>(d, e, negligible, &rows);
    const int low = rows.low, length = more ? rows.high - low : 0;
    const bool turning = more && (turns ? used + length <= most : count < 60 * n);
    if (turns && meant)
      steps[(size_t)place * (most + 1) + count] = {(unsigned char)low, (unsigned char)(turning ? rows.high : 0)};
    if (!__syncthreads_or(turning)) break;
    if (turning)
      step<CHAINS>(d, e, negligible, &rows, [&](int i, rotation right, rotation left) {
        if (turns) kept[(i - low) * (CHAINS + 1) + me] = {half_tangent(right), half_tangent(left)};
      });
    if (!turns) continue;
    runs[me] = make_int2(place * most + used, turning ? length : 0);
    used += runs[me].y;
    __syncthreads();
    for (int j = 0; j < CHAINS; j++)
      if (me < runs[j].y) turns[runs[j].x + me] = kept[me * (CHAINS + 1) + j];
    __syncthreads();
  }
  if (turns && place < batch) settled[place] = meant ? rows.high == 0 : 2;
  if (rows.high > 0 && *failed != NOT_FINITE) *failed = NOT_SETTLED;
  for (int i = 0; rows.high > 0 && i < n; i++) {
    form[(size_t)i * batch + place] = d[i * CHAINS];
    form[(size_t)(N + i) * batch + place] = e[i * CHAINS];
  }
  if (!meant || rows.high > 0) return;
  const power up((int)form[(size_t)2 * N * batch + place]);
  for (int i = 0; i < n; i++) {
    const real key = fabs(d[i * CHAINS]);
    int rank = 0;
    for (int j = 0; j < n; j++) {
      const real other = fabs(d[j * CHAINS]);
      rank += other > key || (other == key && j < i);
    }
    S[(size_t)place * n + rank] = up.of_real(key);
    if (order) order[(size_t)place * n + i] = d[i * CHAINS] < 0 ? ~rank : rank;
  }
}

/* Of a step's tangents for one side, which turn these columns, those that this lane takes along; 0 of other columns. */
__device__ inline void load(const real *step, turned columns, real (&tangents)[ROWS]) {
  FOR_ROWS(r) {
    const unsigned i = lane() + r * LANES - columns.first;
    tangents[r] = i < columns.last - columns.first ? step[2 * i] : 0;
  }
}

/* A turn by three shears: x += tangent y, y -= s x, x += tangent y, with the tangent of half the angle. */
struct alignas(2 * sizeof(real)) shears {
  real tangent, s;
};
__device__ inline shears shears_of(real tangent) {
  const real length = 1 + tangent * tangent, inverse = quotient(1, length), s = 2 * tangent * inverse;
  return {tangent, s + inverse * (2 * tangent - s * length)};
}
__device__ inline number plus_real(number x, real a, number y) { return of(re(x) + a * re(y), im(x) + a * im(y)); }

/* Q, taus as of bidiagonalise; after the first round Q holds the rows of U and V that have not settled. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    turn(number *Q, const number *taus, const halves *turns, const turned *steps, const int *settled, const int *order,
         number *U, number *Vh, int batch, int m, int n, int wide, int most, int round) {
  extern __shared__ __align__(16) char shared[];
  const int unit = min(blockIdx.x * MATRICES + threadIdx.x / LANES, 2 * batch), place = min(unit / 2, batch - 1);
  const int side = unit % 2, state = unit < 2 * batch ? settled[place] : 2;
  number *tile = (number *)shared + threadIdx.x / LANES * (N * (N + 1)), row[ROWS][N];
  Q += (size_t)(2 * place + side) * N * N + lane(), taus += (size_t)(2 * place + side) * N;
#pragma unroll
  for (int k = 0; k < N; k++) FOR_ROWS(r) {
      const number kept = Q[k * N + r * LANES];
      row[r][k] = round > 0 ? kept : of(k == lane() + r * LANES, 0);
      tile[k * N + lane() + r * LANES] = kept;
    }
  sync_lanes();
#pragma unroll
  for (int block = 0; block < N; block += 8)
    for (int k = block; round == 0 && k < block + 8 && k < n; k++) {
      const number *v = tile + k * N;
      number inner[ROWS][2];
      FOR_ROWS(r) inner[r][0] = inner[r][1] = of(0, 0);
#pragma unroll
      for (int j = block; j < N; j++) FOR_ROWS(r) inner[r][j % 2] = plus_times(inner[r][j % 2], row[r][j], v[j]);
      FOR_ROWS(r) inner[r][0] = times(taus[k], plus(inner[r][0], inner[r][1]));
#pragma unroll
      for (int j = block; j < N; j++) FOR_ROWS(r) row[r][j] = plus_times(row[r][j], inner[r][0], conj(v[j]));
    }
  sync_lanes();
  shears *now = (shears *)tile;
  steps += (size_t)place * (most + 1);
  turned here = state == 2 ? turned{0, 0} : *steps, next = here.last > 0 ? *++steps : here;
  const real *step = side ? &turns[(size_t)place * most].right : &turns[(size_t)place * most].left;
  real tangents[ROWS];
  load(step, here, tangents);
  while (__any_sync(lanes(), here.last > 0)) {
    const turned after = next.last > 0 ? *++steps : next;
    FOR_ROWS(r) now[lane() + r * LANES] = shears_of(tangents[r]);
    step += 2 * (here.last - here.first);
    sync_lanes();
    load(step, next, tangents);
#pragma unroll
    for (int block = 0; block < N; block += 8)
      if (here.first < block + 8 && block < here.last) {
#pragma unroll
        for (int i = block; i < block + 8 && i < N - 1; i++) FOR_ROWS(r) {
            number &x = row[r][i], &y = row[r][i + 1];
            x = plus_real(x, now[i].tangent, y);
            y = plus_real(y, -now[i].s, x);
            x = plus_real(x, now[i].tangent, y);
          }
      }
    sync_lanes();
    here = next, next = after;
  }
#pragma unroll
  for (int j = 0; state == 0 && j < N; j++) FOR_ROWS(r) Q[j * N + r * LANES] = row[r][j];
  int where[ROWS];
  FOR_ROWS(r) {
    const int j = lane() + r * LANES;
    where[r] = state == 1 && j < n ? order[(size_t)place * n + j] : N;
  }
#pragma unroll
  for (int j = 0; j < N; j++) {
    const int to = __shfl_sync(lanes(), where[j / LANES], j % LANES, LANES);
    number *column = tile + (to < 0 ? ~to : to);
    FOR_ROWS(r) column[(lane() + r * LANES) * (N + 1)] = side && to < 0 ? minus(row[r][j]) : row[r][j];
  }
  sync_lanes();
  if (state != 1) return;
  const int count = side ? n : m;
  const bool by_rows = side == wide;
  number *out = by_rows ? U + (size_t)place * n * (wide ? n : m) : Vh + (size_t)place * n * (wide ? m : n);
  for (int i = 0; i < (by_rows ? count : n); i++) FOR_ROWS(r) {
      const int j = lane() + r * LANES;
      if (by_rows && j < n) out[i * n + j] = tile[i * (N + 1) + j];
      if (!by_rows && j < count) out[i * count + j] = conj(tile[j * (N + 1) + i]);
    }
}
