/* em.cu on a CPU: a team of OpenMP's threads for a block of as many warps of one thread each. */

#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <omp.h>

struct Index {
  int x;
};
static Index blockIdx, blockDim;
static thread_local Index threadIdx;

#define WARP 1
#define STEP call.step
#define THREADS 1
#define BLOCKS 1
#define __global__
#define __shared__
#define __noinline__
#define __align__ alignas
#define __grid_constant__
#define __launch_bounds__(threads, blocks)
#define __syncthreads() _Pragma("omp barrier")
#define __syncwarp()
#define __shfl_xor_sync(mask, x, apart) (x)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
using std::isfinite, std::isinf;
static inline double rsqrt(double x) { return 1 / std::sqrt(x); }

#include EM_CU

real memory[1 << 18];

extern "C" void em_solve_on_host(const Call *call, const Layout *at, int threads) {
  for (blockIdx.x = 0; blockIdx.x < call->problems; blockIdx.x++) {
    blockDim.x = threads;
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) memory[i] = NAN;
#pragma omp parallel num_threads(threads)
    {
      threadIdx.x = omp_get_thread_num();
      em_solve(*call, *at);
    }
  }
}
