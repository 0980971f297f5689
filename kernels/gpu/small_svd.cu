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

/* A matrix counts as (N, N). Of U or V a lane turns ROWS rows, TURNERS apart, by each rotation that it reads. */
enum { N = LANES, ROWS = sizeof(number) == 4 ? 2 : 1, TURNERS = N / ROWS, CHAINS = 32 };
#define FOR_ROWS(r) _Pragma("unroll") for (int r = 0; r < ROWS; r++)

/* Rotations by the tangents of half their angles. */
struct alignas(2 * sizeof(real)) halves {
  real right, left;
};
struct alignas(4 * sizeof(real)) two_halves {
  halves first, second;
};
__device__ inline real half_tangent(rotation by) { return quotient(by.s, 1 + by.c); }

/* Columns that the rotations of a step turn, from first up to last; none, behind the last step. */
struct alignas(2) turned {
  unsigned char first, last;
};

/* matrices (batch, m, n), or (batch, n, m) whose adjoints are meant where `wide`, to U, S, descending, and Vh, thin.
   form (2 N + 1, batch): the diagonal and the edge of the bidiagonal form, and the exponent of a power of two that it is
   to be multiplied with.
   Q (batch, 2, N, N), taus (batch, 2, N): the reflections of both sides, a row each; after the first round Q holds the
   rows of U and V that have not settled. Null for values alone, as all that follow.
   turns (batch, most), steps (batch, most + 1): the rotations of a round, one step after the other, of an even number of
   places each, and what each step turned.
   settled (batch): 0 not yet, 1 in this round, 2 before. order (batch, n): where a column goes, or ~ that where it
   changes its sign. failed: 1 NaN or infinity, 2 not settled. */
struct problem {
  const number *matrices;
  number *U;
  real *S;
  number *Vh;
  int *failed;
  number *Q, *taus;
  halves *turns;
  real *form;
  int *order, *settled;
  turned *steps;
  int batch, m, n, wide, most, round;
};

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

/* One reflection from either side, of the block from entry (k, k) on, of at most COUNT rows. a, b: the column and the
   row of this lane from k on, which become those from k + 1 on. below, beside: this lane's numbers of what the
   reflections are of, with the new heads. */
template <int COUNT>
__device__ inline void reflect_both(int k, number (&a)[N], number (&b)[N], board *shown, reflection *left,
                                    reflection *right, number *below, number *beside) {
  const int to = (lane() - k - 1) & (N - 1);
  const bool inside = lane() > k;
  const number own = b[0], head = from_lane(own, k), tail = inside ? own : of(0, 0);
  shown->column[to] = tail;
  *left = reflect(head, square(head) + warp_sum(square(tail)));
  *below = lane() == k ? left->head : tail;
  sync_lanes();
  number inner[2] = {times(conj(head), a[0]), of(0, 0)};
#pragma unroll
  for (int i = 0; i < COUNT - 1; i++) inner[i % 2] = plus_times(inner[i % 2], conj(shown->column[i]), a[i + 1]);
  number sum = plus_times(plus(inner[0], inner[1]), of(-left->beta, 0), a[0]);
  const number down = inside ? times(left->factor, sum) : of(0, 0);
  const number edge = inside ? conj(plus_times(a[0], down, left->head)) : of(0, 0);
  shown->along_column[to] = down, shown->row[to] = edge;
  *right = reflect(from_lane(edge, (k + 1) & (N - 1)), warp_sum(square(edge)));
  *beside = lane() == k + 1 ? right->head : edge;
  sync_lanes();
  inner[0] = inner[1] = of(0, 0);
#pragma unroll
  for (int j = 0; j < COUNT - 1; j++) {
    b[j] = plus_times(b[j + 1], own, shown->along_column[j]);
    inner[j % 2] = plus_times(inner[j % 2], b[j], shown->row[j]);
  }
  sum = plus_times(plus(inner[0], inner[1]), of(-right->beta, 0), b[0]);
  const number across = inside ? times(conj(right->factor), sum) : of(0, 0);
  shown->along_row[to] = across;
  b[0] = plus_times(b[0], across, conj(right->head));
#pragma unroll
  for (int j = 1; j < COUNT - 1; j++) b[j] = plus_times(b[j], across, conj(shown->row[j]));
  sync_lanes();
#pragma unroll
  for (int i = 0; i < COUNT - 1; i++)
    a[i] = plus_times(plus_times(a[i + 1], down, shown->column[i]), conj(*beside), shown->along_row[i]);
  a[COUNT - 1] = b[COUNT - 1] = of(0, 0);
  sync_lanes();
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) bidiagonalise(problem p) {
  extern __shared__ __align__(16) char shared[];
  const int place = min(blockIdx.x * MATRICES + threadIdx.x / LANES, p.batch - 1); /* the last ones do the same */
  number *tile = (number *)shared + threadIdx.x / LANES * (N * (N + 1));
  const int rows = p.wide ? p.n : p.m, columns = p.wide ? p.m : p.n;
  const number *matrix = p.matrices + (size_t)place * p.m * p.n;
  number a[N], b[N];
#pragma unroll
  for (int i = 0; i < N; i++) a[i] = matrix[min(i, rows - 1) * columns + min(lane(), columns - 1)];
  real largest = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    if (i >= rows || lane() >= columns) a[i] = of(0, 0);
    largest = fmax(largest, size_of(a[i], true));
    tile[i * (N + 1) + lane()] = a[i];
  }
  largest = warp_max(largest);
  const bool finite = largest <= limits::largest;
  if (!finite && lane() == 0) *p.failed = NOT_FINITE;
  const int exponent = finite && largest > 0 ? ilogb(largest) + 1 : 0;
  const int next_row = p.wide ? 1 : N + 1, next_column = p.wide ? N + 1 : 1;
  const power down(-exponent);
  sync_lanes();
#pragma unroll
  for (int i = 0; i < N; i++) {
    a[i] = finite ? down.of_number(tile[i * next_row + lane() * next_column]) : of(0, 0);
    b[i] = finite ? down.of_number(tile[lane() * next_row + i * next_column]) : of(0, 0);
    if (p.wide) a[i] = conj(a[i]), b[i] = conj(b[i]);
  }
  sync_lanes();
  board *shown = (board *)tile;
  number *Q = p.Q + (size_t)place * 2 * N * N + lane(), *taus = p.taus + (size_t)place * 2 * N;
  real *form = p.form + place;
  for (int k = 0; k < p.n; k++) {
    reflection left, right;
    number below, beside;
    if (N > 24 && p.m - k > 24)
      reflect_both<N < 32 ? N : 32>(k, a, b, shown, &left, &right, &below, &beside);
    else if (N > 16 && p.m - k > 16)
      reflect_both<N < 24 ? N : 24>(k, a, b, shown, &left, &right, &below, &beside);
    else if (N > 8 && p.m - k > 8)
      reflect_both<N < 16 ? N : 16>(k, a, b, shown, &left, &right, &below, &beside);
    else
      reflect_both<8>(k, a, b, shown, &left, &right, &below, &beside);
    if (lane() == 0) form[(size_t)k * p.batch] = left.beta, form[(size_t)(N + k) * p.batch] = right.beta;
    if (!p.Q) continue;
    Q[k * N] = below, Q[(N + k) * N] = beside;
    if (lane() == 0) taus[k] = conj(left.factor), taus[N + k] = conj(right.factor);
  }
  if (lane() == 0) form[(size_t)2 * N * p.batch] = exponent;
}

extern "C" __global__ void __launch_bounds__(CHAINS) diagonalise(problem p) {
  __shared__ real diagonals[N * CHAINS], edges[(N + 1) * CHAINS];
  const int place = blockIdx.x * CHAINS + threadIdx.x, n = p.n;
  if (place >= p.batch) return;
  if (p.round > 0 && p.settled[place]) {
    p.settled[place] = 2;
    return;
  }
  real *d = diagonals + threadIdx.x, *e = edges + CHAINS + threadIdx.x, *form = p.form + place, norm = 0;
  for (int i = 0; i < n; i++) {
    d[i * CHAINS] = form[(size_t)i * p.batch];
    e[i * CHAINS] = i < n - 1 ? form[(size_t)(N + i) * p.batch] : 0;
    norm = fmax(norm, fabs(d[i * CHAINS]) + fabs(e[i * CHAINS]));
  }
  const real negligible = limits::eps * norm;
  const bool vectors = p.turns;
  halves *turns = p.turns + (size_t)place * p.most;
  turned *steps = p.steps + (size_t)place * (p.most + 1);
  part rows = {n - 1, n - 1, 0};
  int used = 0, count = 0;
  for (; find_part<CHAINS>(d, e, negligible, &rows); count++) {
    const int low = rows.low, high = rows.high, length = high - low;
    if (vectors ? used + length > p.most : count == 60 * n) break;
    halves last;
    step<CHAINS>(d, e, negligible, &rows, [&](int i, rotation right, rotation left) {
      const halves now = {half_tangent(right), half_tangent(left)};
      if (vectors && (i - low) % 2) *(two_halves *)(turns + used + i - low - 1) = {last, now};
      last = now;
    });
    if (!vectors) continue;
    if (length % 2) turns[used + length - 1] = last;
    steps[count] = {(unsigned char)low, (unsigned char)high};
    used += length + length % 2;
  }
  if (vectors) steps[count] = {0, 0}, p.settled[place] = rows.high == 0;
  if (rows.high > 0) {
    if (*p.failed != NOT_FINITE) *p.failed = NOT_SETTLED;
    for (int i = 0; i < n; i++) {
      form[(size_t)i * p.batch] = d[i * CHAINS];
      form[(size_t)(N + i) * p.batch] = e[i * CHAINS];
    }
    return;
  }
  const power up((int)form[(size_t)2 * N * p.batch]);
  for (int i = 0; i < n; i++) {
    const real key = fabs(d[i * CHAINS]);
    int rank = 0;
    for (int j = 0; j < i; j++) rank += fabs(d[j * CHAINS]) >= key;
    for (int j = i + 1; j < n; j++) rank += fabs(d[j * CHAINS]) > key;
    p.S[(size_t)place * n + rank] = up.of_real(key);
    if (vectors) p.order[(size_t)place * n + i] = d[i * CHAINS] < 0 ? ~rank : rank;
  }
}

/* This lane, and its rows, among the TURNERS of U or V. */
__device__ inline int turner() { return threadIdx.x % TURNERS; }

/* Of a step's tangents for one side, which turn these columns, those that this lane takes along; 0 of other columns. */
__device__ inline void load(const real *step, turned columns, real (&tangents)[ROWS]) {
  FOR_ROWS(r) {
    const unsigned i = turner() + r * TURNERS - columns.first;
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

extern "C" __global__ void __launch_bounds__(MOST_THREADS) turn(problem p) {
  extern __shared__ __align__(16) char shared[];
  const int unit = blockIdx.x * (MOST_THREADS / TURNERS) + threadIdx.x / TURNERS, side = unit % 2, n = p.n;
  const int place = min(unit / 2, p.batch - 1), state = unit < 2 * p.batch ? p.settled[place] : 2;
  number *tile = (number *)shared + threadIdx.x / TURNERS * (N * (N + 1)), row[ROWS][N];
  number *Q = p.Q + (size_t)(2 * place + side) * N * N + turner();
  const number *taus = p.taus + (size_t)(2 * place + side) * N;
#pragma unroll
  for (int k = 0; k < N; k++) FOR_ROWS(r) {
      const number kept = Q[k * N + r * TURNERS];
      row[r][k] = p.round > 0 ? kept : of(k == turner() + r * TURNERS, 0);
      tile[k * N + turner() + r * TURNERS] = kept;
    }
  sync_lanes();
#pragma unroll
  for (int block = 0; block < N; block += 8)
    for (int k = block; p.round == 0 && k < block + 8 && k < n; k++) {
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
  const turned *steps = p.steps + (size_t)place * (p.most + 1);
  turned here = state == 2 ? turned{0, 0} : *steps, next = here.last > 0 ? *++steps : here;
  const halves *turns = p.turns + (size_t)place * p.most;
  const real *step = side ? &turns->right : &turns->left;
  real tangents[ROWS];
  load(step, here, tangents);
  while (__any_sync(lanes(), here.last > 0)) {
    const turned after = next.last > 0 ? *++steps : next;
    FOR_ROWS(r) now[turner() + r * TURNERS] = shears_of(tangents[r]);
    step += (here.last - here.first + 1) / 2 * 4;
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
  for (int j = 0; state == 0 && j < N; j++) FOR_ROWS(r) Q[j * N + r * TURNERS] = row[r][j];
  int where[ROWS];
  FOR_ROWS(r) {
    const int j = turner() + r * TURNERS;
    where[r] = state == 1 && j < n ? p.order[(size_t)place * n + j] : N;
  }
#pragma unroll
  for (int j = 0; j < N; j++) {
    const int to = __shfl_sync(lanes(), where[j / TURNERS], j % TURNERS, TURNERS);
    number *column = tile + (to < 0 ? ~to : to);
    FOR_ROWS(r) column[(turner() + r * TURNERS) * (N + 1)] = side && to < 0 ? minus(row[r][j]) : row[r][j];
  }
  sync_lanes();
  if (state != 1) return;
  const int count = side ? n : p.m;
  const bool by_rows = side == p.wide;
  number *out = by_rows ? p.U + (size_t)place * n * (p.wide ? n : p.m) : p.Vh + (size_t)place * n * (p.wide ? p.m : n);
  for (int i = 0; i < (by_rows ? count : n); i++) FOR_ROWS(r) {
      const int j = turner() + r * TURNERS;
      if (by_rows && j < n) out[i * n + j] = tile[i * (N + 1) + j];
      if (!by_rows && j < count) out[i * count + j] = conj(tile[j * (N + 1) + i]);
    }
}
