/* The singular value decomposition of matrices (m, n), LANES >= m >= n, in three kernels whose work has three shapes.

   bidiagonalise: LANES lanes a matrix, each with a row and a column of it in registers.
   diagonalise: a thread a matrix, which follows the chain of rotations of implicit QR steps and writes them down.
   turn: a row of U or of V a lane, in registers, from the reflections of the first and the rotations of the second.
   The last two come again where a matrix has not settled in the room for rotations. Singular values are accurate to
   rounding relative to the largest.
   Source: Golub and Van Loan, Matrix Computations, sections 5.4.8 and 8.6.3; Demmel and Kahan, "Accurate singular
   values of bidiagonal matrices", 1990 (the step without shift, which a vanishing diagonal entry wants). */

#include "bidiagonal.cuh"

enum { N = LANES, CHAINS = 32 };

struct alignas(4 * sizeof(real)) pair {
  rotation right, left;
};

/* H = 1 + conj(factor) v v^H, where v is x but for its first number, `head`; H^H x = beta e_0. */
struct reflection {
  real beta;
  number head, factor;
};

/* Of an x with this first number and this squared length. */
__device__ inline reflection reflect(number head, real length) {
  if (length < limits::vanishing) return {0, of(0, 0), of(0, 0)};
  const real beta = re(head) > 0 ? -sqrt(length) : sqrt(length);
  const number first = of(re(head) - beta, im(head));
  const real inverse = 1 / (beta * square(first));
  return {beta, first, times(inverse, conj(first))};
}

/* What the lanes of a matrix tell one another. */
struct alignas(16) board {
  number column[N], along_column[N], row[N], along_row[N];
};

/* One reflection from either side, of the block from entry (k, k) on; k is less than N - COUNT + 8. a, b: the column
   and the row of this lane from k on, which become those from k + 1 on. */
template <int COUNT>
__device__ inline void reflect_both(int k, number (&a)[N], number (&b)[N], board *shown, reflection *left,
                                    reflection *right, number *mine, number *edge) {
  const int to = (lane() - k - 1) & (N - 1);
  const bool inside = lane() > k;
  const number own = b[0], head = from_lane(own, k);
  shown->column[to] = *mine = inside ? own : of(0, 0);
  *left = reflect(head, square(head) + warp_sum(square(*mine)));
  sync_lanes();
  number inner[2] = {times(conj(head), a[0]), of(0, 0)};
#pragma unroll
  for (int i = 0; i < COUNT - 1; i++) inner[i % 2] = plus_times(inner[i % 2], conj(shown->column[i]), a[i + 1]);
  number sum = of(re(inner[0]) + re(inner[1]), im(inner[0]) + im(inner[1]));
  const number down = inside ? times(left->factor, plus_times(sum, of(-left->beta, 0), a[0])) : of(0, 0);
  *edge = inside ? conj(plus_times(a[0], down, left->head)) : of(0, 0);
  shown->along_column[to] = down, shown->row[to] = *edge;
  *right = reflect(from_lane(*edge, (k + 1) & (N - 1)), warp_sum(square(*edge)));
  sync_lanes();
  inner[0] = inner[1] = of(0, 0);
#pragma unroll
  for (int j = 0; j < COUNT - 1; j++) {
    b[j] = plus_times(b[j + 1], own, shown->along_column[j]);
    inner[j % 2] = plus_times(inner[j % 2], b[j], shown->row[j]);
  }
  sum = of(re(inner[0]) + re(inner[1]), im(inner[0]) + im(inner[1]));
  const number across = times(conj(right->factor), plus_times(sum, of(-right->beta, 0), b[0]));
  shown->along_row[to] = inside ? across : of(0, 0);
  b[0] = plus_times(b[0], across, conj(right->head));
#pragma unroll
  for (int j = 1; j < COUNT - 1; j++) b[j] = plus_times(b[j], across, conj(shown->row[j]));
  sync_lanes();
  const number back = conj(lane() == k + 1 ? right->head : *edge);
#pragma unroll
  for (int i = 0; i < COUNT - 1; i++)
    a[i] = plus_times(plus_times(a[i + 1], down, shown->column[i]), back, shown->along_row[i]);
  a[COUNT - 1] = b[COUNT - 1] = of(0, 0);
  sync_lanes();
}

/* matrices (batch, m, n), or (batch, n, m) whose adjoints are meant where `wide`. form (2 N + 1, batch): the diagonal
   and the edge of the bidiagonal form, and the exponent of a power of two that it is to be multiplied with.
   Q (batch, 2, N, N), taus (batch, 2, N): the reflections of both sides, a row each. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    bidiagonalise(const number *matrices, number *Q, number *taus, real *form, int *failed, int batch, int m, int n,
                  int wide) {
  extern __shared__ __align__(16) char shared[];
  const int place = blockIdx.x * MATRICES + threadIdx.x / LANES, me = lane();
  if (place >= batch) return;
  number *tile = (number *)shared + threadIdx.x / LANES * (N * (N + 1));
  const int rows = wide ? n : m, columns = wide ? m : n;
  const number *matrix = matrices + (size_t)place * m * n;
  real largest = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    const number x = i < rows && me < columns ? matrix[i * columns + me] : of(0, 0);
    largest = fmax(largest, size_of(x, true));
    tile[wide ? me * (N + 1) + i : i * (N + 1) + me] = wide ? conj(x) : x;
  }
  largest = warp_max(largest);
  const bool finite = largest <= limits::largest;
  if (!finite && me == 0) *failed = NOT_FINITE;
  const int exponent = finite && largest > 0 ? ilogb(largest) + 1 : 0;
  const power down(-exponent);
  sync_lanes();
  number a[N], b[N];
#pragma unroll
  for (int i = 0; i < N; i++) {
    a[i] = finite ? down.of_number(tile[i * (N + 1) + me]) : of(0, 0);
    b[i] = finite ? down.of_number(tile[me * (N + 1) + i]) : of(0, 0);
  }
  sync_lanes();
  board *shown = (board *)tile;
  number *left_out = Q + (size_t)place * 2 * N * N + me, *right_out = left_out + N * N, *tau = taus + (size_t)place * 2 * N;
  for (int k = 0; k < n; k++) {
    reflection left, right;
    number mine, edge;
    if (N > 24 && k < N - 24)
      reflect_both<32 <= N ? 32 : N>(k, a, b, shown, &left, &right, &mine, &edge);
    else if (N > 16 && k < N - 16)
      reflect_both<24 <= N ? 24 : N>(k, a, b, shown, &left, &right, &mine, &edge);
    else if (N > 8 && k < N - 8)
      reflect_both<16 <= N ? 16 : N>(k, a, b, shown, &left, &right, &mine, &edge);
    else
      reflect_both<8>(k, a, b, shown, &left, &right, &mine, &edge);
    if (me == 0) form[(size_t)k * batch + place] = left.beta, form[(size_t)(N + k) * batch + place] = right.beta;
    if (!Q) continue;
    left_out[k * N] = me == k ? left.head : mine;
    right_out[k * N] = me == k + 1 ? right.head : edge;
    if (me == 0) tau[k] = conj(left.factor), tau[N + k] = conj(right.factor);
  }
  if (me == 0) form[(size_t)2 * N * batch + place] = exponent;
}

/* Columns that the rotations of a step turn, from first up to last; none, behind the last step. */
struct turned {
  unsigned char first, last;
};

/* form as bidiagonalise left it, and as the rounds before did. turns (batch, most), steps (batch, most + 2): the rotations
   of this round, one step after the other, and what each step turned. settled (batch): 0 not
   yet, 1 in this round, 2 before. S (batch, n), descending; order (batch, n): where a column goes, or ~ that where it
   changes its sign. */
extern "C" __global__ void __launch_bounds__(CHAINS)
    diagonalise(real *form, pair *turns, turned *steps, int *settled, real *S, int *order, int *failed, int batch, int n,
                int most, int round) {
  __shared__ real diagonals[N * CHAINS], edges[(N + 1) * CHAINS];
  const int place = blockIdx.x * CHAINS + threadIdx.x;
  if (place >= batch) return;
  if (round > 0 && settled[place]) {
    settled[place] = 2;
    return;
  }
  real *d = diagonals + threadIdx.x, *e = edges + CHAINS + threadIdx.x, norm = 0;
  for (int i = 0; i < n; i++) {
    d[i * CHAINS] = form[(size_t)i * batch + place];
    e[i * CHAINS] = i < n - 1 ? form[(size_t)(N + i) * batch + place] : 0;
    norm = fmax(norm, fabs(d[i * CHAINS]) + fabs(e[i * CHAINS]));
  }
  const real negligible = limits::eps * norm;
  if (turns) turns += (size_t)place * most, steps += (size_t)place * (most + 2);
  part rows = {n - 1, n - 1, 0};
  int used = 0, count = 0;
  while (find_part<CHAINS>(d, e, negligible, &rows)) {
    const int length = rows.high - rows.low;
    if (turns ? used + length > most : count == 60 * n) break;
    if (turns) steps[count] = {(unsigned char)rows.low, (unsigned char)rows.high};
    pair *now = turns + used - rows.low;
    step<CHAINS>(d, e, negligible, &rows, [&](int i, rotation right, rotation left) {
      if (turns) now[i] = {right, left};
    });
    used += length, count++;
  }
  if (turns) steps[count] = {0, 0}, settled[place] = rows.high == 0;
  if (rows.high > 0) {
    if (*failed != NOT_FINITE) *failed = NOT_SETTLED;
    for (int i = 0; i < n; i++) {
      form[(size_t)i * batch + place] = d[i * CHAINS];
      form[(size_t)(N + i) * batch + place] = e[i * CHAINS];
    }
    return;
  }
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

/* (x, y) to (c x + s y, c y - s x). */
__device__ inline void turn_by(rotation by, number *x, number *y) {
  const number first = of(by.c * re(*x) + by.s * re(*y), by.c * im(*x) + by.s * im(*y));
  *y = of(by.c * re(*y) - by.s * re(*x), by.c * im(*y) - by.s * im(*x));
  *x = first;
}

/* This lane's rotation of the step that turns `rows`, or none. */
__device__ inline rotation rotation_of(const pair *turns, turned rows, int side) {
  if (lane() < rows.first || lane() >= rows.last) return {1, 0};
  const pair *mine = turns + lane() - rows.first;
  return side ? mine->right : mine->left;
}

/* Q, taus as of bidiagonalise; after the first round Q holds the rows of U and V that have not settled. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    turn(number *Q, const number *taus, const pair *turns, const turned *steps, const int *settled, const int *order,
         number *U, number *Vh, int batch, int m, int n, int wide, int most, int round) {
  extern __shared__ __align__(16) char shared[];
  const int unit = blockIdx.x * MATRICES + threadIdx.x / LANES, place = unit / 2, side = unit % 2, me = lane();
  if (place >= batch || settled[place] == 2) return;
  number *tile = (number *)shared + threadIdx.x / LANES * (N * (N + 1));
  number *mine = Q + (size_t)unit * N * N + me, row[N];
  if (round > 0) {
#pragma unroll
    for (int j = 0; j < N; j++) row[j] = mine[j * N];
  } else {
#pragma unroll
    for (int k = 0; k < N; k++) {
      if (k < n) tile[k * N + me] = mine[k * N];
      row[k] = of(k == me, 0);
    }
    sync_lanes();
#pragma unroll
    for (int block = 0; block < N; block += 8)
      for (int k = block; k < block + 8 && k < n; k++) {
        const number *v = tile + k * N;
        number inner[2] = {of(0, 0), of(0, 0)};
#pragma unroll
        for (int j = block; j < N; j++) inner[j % 2] = plus_times(inner[j % 2], row[j], v[j]);
        const number sum = of(re(inner[0]) + re(inner[1]), im(inner[0]) + im(inner[1]));
        const number along = times(taus[(size_t)unit * N + k], sum);
#pragma unroll
        for (int j = block; j < N; j++) row[j] = plus_times(row[j], along, conj(v[j]));
      }
    sync_lanes();
  }
  rotation *now = (rotation *)tile;
  turns += (size_t)place * most, steps += (size_t)place * (most + 2);
  turned rows = *steps, next = *++steps;
  for (rotation ahead = rotation_of(turns, rows, side); rows.last > 0;) {
    const turned after = *++steps;
    now[me] = ahead;
    turns += rows.last - rows.first;
    sync_lanes();
    ahead = rotation_of(turns, next, side);
#pragma unroll
    for (int block = 0; block < N; block += 8)
      if (rows.first < block + 8 && block < rows.last) {
#pragma unroll
        for (int i = block; i < block + 8 && i < N - 1; i++) turn_by(now[i], &row[i], &row[i + 1]);
      }
    sync_lanes();
    rows = next, next = after;
  }
  if (!settled[place]) {
#pragma unroll
    for (int j = 0; j < N; j++) mine[j * N] = row[j];
    return;
  }
  const int where = me < n ? order[(size_t)place * n + me] : me, count = side ? n : m;
  const bool by_rows = side == wide;
  number *out = by_rows ? U + (size_t)place * n * (wide ? n : m) : Vh + (size_t)place * n * (wide ? m : n);
#pragma unroll
  for (int j = 0; j < N; j++) {
    const int to = __shfl_sync(lanes(), where, j, LANES);
    tile[me * (N + 1) + (to < 0 ? ~to : to)] = side && to < 0 ? minus(row[j]) : row[j];
  }
  sync_lanes();
  for (int i = 0; i < (by_rows ? count : n); i++) {
    if (by_rows && me < n) out[i * n + me] = tile[i * (N + 1) + me];
    if (!by_rows && me < count) out[i * count + me] = conj(tile[me * (N + 1) + i]);
  }
}
