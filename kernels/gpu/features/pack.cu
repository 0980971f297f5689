// The weights of one or two layers C -> C, (o, tap, c) in float32, as `packed` of packing.py packs them.
#include "tiles.cuh"

extern "C" __global__ void __launch_bounds__(256)
pack_weights(const float* first, const float* second, u32* packed) {
    const float* weight = blockIdx.y ? second : first;
    u32* to = packed + (blockIdx.y * 9 + blockIdx.x) * (TAP / 4);
    for (int i = threadIdx.x; i < TAP / 4; i += blockDim.x) {
        int part = i % 4, lane = i / 4 % 32, block = i / 128 % (BLOCKS / 2), step = i / 128 / (BLOCKS / 2);
        int o = 16 * block + 8 * (part / 2) + lane / 4, c = 16 * step + 8 * (part % 2) + 2 * (lane % 4);
        const float* pair = weight + (9 * o + blockIdx.x) * CHANNELS + c;
        to[i] = pack(pair[0], pair[1]);
    }
}
