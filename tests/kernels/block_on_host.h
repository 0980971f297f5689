/* A block of CUDA threads on a CPU: a fiber for each thread, which waits at barriers for the others.

   LANES is defined before it. Dynamic shared memory is `shared`, of NaN before each block. */

#include <cmath>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __align__(bytes)
#define __launch_bounds__(threads)

struct int2 {
  int x, y;
};
static inline int2 make_int2(int x, int y) { return {x, y}; }

enum { MOST = 544, STACK = 1 << 16, ROOM = 1 << 20 };
alignas(16) static char shared[ROOM];
static struct {
  int x;
} blockIdx, blockDim;
static int current;
static struct {
  struct {
    operator int() const { return current; }
  } x;
} threadIdx;

static ucontext_t scheduler, fibers[MOST];
static bool ended[MOST];
static int arrived[MOST + 1], generation[MOST + 1]; /* of each group of lanes, and of the block */

static int alive;

/* A block waits for the threads that have not ended, which is why it has no count. */
static void wait_for(int barrier, int count) {
  const int now = generation[barrier];
  arrived[barrier]++;
  for (const int me = current; generation[barrier] == now;) {
    if (arrived[barrier] == (barrier == MOST ? alive : count)) {
      arrived[barrier] = 0, generation[barrier]++;
      return;
    }
    swapcontext(&fibers[me], &scheduler);
  }
}
static void __syncthreads() { wait_for(MOST, 0); }
static void __syncwarp(unsigned) { wait_for(current / LANES, LANES); }

static int some;
static int __syncthreads_or(int here) {
  some |= here;
  __syncthreads();
  const int found = some;
  __syncthreads();
  some = 0;
  __syncthreads();
  return found;
}

static double slots[MOST];
template <typename T>
static T __shfl_xor_sync(unsigned mask, T x, int across) {
  const int me = current;
  slots[me] = x;
  __syncwarp(mask);
  const T found = slots[me ^ across];
  __syncwarp(mask);
  return found;
}
template <typename T>
static T __shfl_sync(unsigned mask, T x, int from, int width) {
  slots[current] = x;
  __syncwarp(mask);
  const T found = slots[current / width * width + from];
  __syncwarp(mask);
  return found;
}
static unsigned __ballot_sync(unsigned mask, bool here) {
  const int first = current / LANES * LANES;
  slots[current] = here;
  __syncwarp(mask);
  unsigned all = 0;
  for (int i = first; i < first + LANES; i++) all |= (unsigned)(slots[i] != 0) << i % 32;
  __syncwarp(mask);
  return all;
}
/* Each LANES go their own way. */
static bool __any_sync(unsigned, bool here) { return here; }
static inline int __ffs(unsigned x) { return __builtin_ffs(x); }
static inline double rsqrt(double x) { return 1 / std::sqrt(x); }
using std::copysign, std::min, std::fabs, std::fmax, std::fmin, std::sqrt, std::ilogb, std::scalbn;

static void (*thread_function)();
static void run_fiber() {
  thread_function();
  ended[current] = true, alive--;
  swapcontext(&fibers[current], &scheduler);
}

/* Run `function` once by every thread of every block. */
static void run_blocks(int blocks, int threads, void (*function)()) {
  blockDim.x = threads;
  static std::vector<char> stacks(MOST * (size_t)STACK);
  thread_function = function;
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
    memset(shared, 0xff, sizeof shared);
    for (int i = 0; i < blockDim.x; i++) {
      getcontext(&fibers[i]);
      fibers[i].uc_stack.ss_sp = &stacks[i * (size_t)STACK];
      fibers[i].uc_stack.ss_size = STACK;
      makecontext(&fibers[i], run_fiber, 0);
      ended[i] = false;
    }
    alive = blockDim.x;
    for (bool any = true; any;) {
      any = false;
      for (int i = 0; i < blockDim.x; i++) {
        if (ended[i]) continue;
        any = true, current = i;
        swapcontext(&scheduler, &fibers[i]);
      }
    }
  }
}
