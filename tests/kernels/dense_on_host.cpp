/* eigh.cu, svd.cu and leading_triplet.cu on a CPU; DECOMPOSITION is the one that is included. */

#include "block_on_host.h"

#include DECOMPOSITION

static const void *matrices;
static void *outputs[3], *workspace;
static int *failed, batch, room, sizes[6];

static void one() {
  number **place = (number **)outputs;
#ifdef EIGH
  eigh_kernel((const number *)matrices, place[0], (real *)outputs[1], (number *)workspace, failed, batch, room, sizes[0],
              sizes[1]);
#elif defined LEADING_TRIPLET
  leading_vector_kernel((const number *)matrices, place[0], place[2], sizes[0], sizes[1], sizes[2]);
#else
  svd_kernel((const number *)matrices, place[0], (real *)outputs[1], place[2], (number *)workspace, failed, batch, room,
             sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]);
#endif
}

extern "C" void run(const void *from, void *first, void *values, void *last, void *space, int *status, int count, int bytes,
                    int warps, const int *given) {
  matrices = from, outputs[0] = first, outputs[1] = values, outputs[2] = last, workspace = space, failed = status;
  batch = count, room = bytes;
  memcpy(sizes, given, sizeof sizes);
  run_blocks((count + MATRICES - 1) / MATRICES, ONE_WARP ? MOST_THREADS : 32 * warps, one);
}
