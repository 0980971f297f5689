/* em.cu, posterior.cu or unfolded.cu on a CPU: a team of threads for a block of as many warps of one thread each. */

#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <pthread.h>
#include <thread>
#include <vector>

struct Index {
  int x;
};
static Index blockIdx, blockDim;
static thread_local Index threadIdx;
static pthread_barrier_t barrier;

#define WARP 1
#ifndef STEP
#define STEP call.step
#endif
#define THREADS 8
#define BLOCKS 1
#define __global__
#define __shared__
#define __noinline__
#define __align__ alignas
#define __grid_constant__
#define __launch_bounds__(threads, blocks)
#define __syncthreads() pthread_barrier_wait(&barrier)
#define __syncwarp()
#define __shfl_xor_sync(mask, x, apart) (x)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
using std::isfinite, std::isinf;
static inline double rsqrt(double x) { return 1 / std::sqrt(x); }
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline float __fdividef(float x, float y) { return x / y; }

#include EM_CU

real memory[1 << 18];

/* Returns how many numbers they left behind the first `size` bytes of shared memory. */
template <typename Kernel>
static int run_blocks(int blocks, int threads, int size, Kernel kernel) {
  int behind = 0;
  blockDim.x = threads;
  pthread_barrier_init(&barrier, nullptr, threads);
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
    for (real &place : memory) place = NAN;
    std::vector<std::thread> team;
    for (int t = 0; t < threads; t++)
      team.emplace_back([=] {
        threadIdx.x = t;
        kernel();
      });
    for (std::thread &thread : team) thread.join();
    for (real &place : memory) behind += &place - memory >= size / 8 && !std::isnan(place);
  }
  pthread_barrier_destroy(&barrier);
  return behind;
}

#if defined(EM_POSTERIOR)
extern "C" int em_posterior_on_host(const Call *call, int threads, int size, number *mean, real *variance,
                                    real *residual) {
  return run_blocks(call->problems, threads, size, [=] { em_posterior(*call, mean, variance, residual); });
}
#elif defined(EM_UNFOLDED)
extern "C" int em_unfolded_on_host(const Call *call, int threads, int size, const real *noise, const real *numbers,
                                   int neighbours) {
  return run_blocks(call->problems, threads, size, [=] { em_unfolded(*call, noise, numbers, neighbours); });
}
#else
extern "C" int em_solve_on_host(const Call *call, int threads, int size, double *costs, int room) {
  return run_blocks(call->problems, threads, size, [=] { em_solve(*call, costs, room); });
}
#endif
