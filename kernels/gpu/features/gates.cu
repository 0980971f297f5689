// A convolutional LSTM's gates with what follows them; a block stays and keeps the weights.
//
//   f, i, o, j = 3x3 convolution of (z, h');  c = sigmoid(f) c' + sigmoid(i) tanh(j);  h = sigmoid(o) tanh(c)
//   FIRST:  i, o, j = 3x3 convolution of z;   c = sigmoid(i) tanh(j);                  h = sigmoid(o) c
//
// Features, h and c hold `scale` times their values, which the weights make up for.
//
// A warp makes a row of 32 pixels and 16 of the channels, all their gates side by side in its registers, while
// the features of the block's next tile are on their way.
#include "tiles.cuh"

constexpr int GATES = FIRST ? 3 : 4, SOURCES = FIRST ? 1 : 2;
constexpr int SIDES = CHANNELS / 16;
constexpr int ROWS = WARPS / SIDES, COLUMNS = 32, PITCH = COLUMNS + 2, HEIGHT = ROWS + 2;
constexpr int TILE = (HEIGHT * PITCH * PIXEL + 1023) / 1024 * 1024;
constexpr int SIDE_STEP = GATES * 512;  // bytes of weights: the columns of 16 channels, 16 inner
constexpr int WEIGHTS = SOURCES * 9 * STEPS * SIDES * SIDE_STEP;

__device__ __forceinline__ float sigmoid(float x) { return 0.5f * tanh_fast(0.5f * x) + 0.5f; }

__device__ __forceinline__ void fetch(char* tile, const char* z, const char* hidden, int number, int tiles, int height, int width) {
    if (number < tiles) {
        Place at = place_of<ROWS, COLUMNS>(number, height, width);
        fetch_tile<HEIGHT, PITCH, PITCH>(tile, z + at.picture, at.top - 1, at.left - 1, height, width);
        if (!FIRST) fetch_tile<HEIGHT, PITCH, PITCH>(tile + TILE, hidden + at.picture, at.top - 1, at.left - 1, height, width);
    }
    end_of_copies();
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
gates(const char* z, const char* hidden, const char* cell, const char* packed, const float* bias, float scale, char* new_hidden,
      char* new_cell, int height, int width, int tiles) {
    SHARED_MEMORY(memory);
    char* weights = memory + 2 * SOURCES * TILE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, side = warp % SIDES, row_of_tile = warp / SIDES;
    fetch_bytes(weights, packed, WEIGHTS);
    fetch(memory, z, hidden, blockIdx.x, tiles, height, width);

    const float unscale = 1 / scale;
    float start[GATES][2][2];
#pragma unroll
    for (int q = 0; q < GATES; q++)
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) start[q][j][e] = bias[q * CHANNELS + side * 16 + 8 * j + 2 * t + e];

    int turn = 0;
    for (int number = blockIdx.x; number < tiles; number += gridDim.x, turn ^= 1) {
        char* tile = memory + turn * SOURCES * TILE;
        await_copies<0>();
        __syncthreads();  // this tile is there, and nobody needs the other one any more
        fetch(memory + (turn ^ 1) * SOURCES * TILE, z, hidden, number + gridDim.x, tiles, height, width);

        // A lane reads and writes chunk t % 2 of pixel lane / 4 + 8 (t / 2) of each 16.
        Place at = place_of<ROWS, COLUMNS>(number, height, width);
        int y = at.top + row_of_tile, x = at.left + lane / 4 + 8 * (t / 2);
        size_t here = at.picture + ((size_t)y * width + x) * STORED + side * 32 + t % 2 * 16;
        bool within = y < height && held(2 * side + t % 2);
        bool kept[2] = {within && x < width, within && x + 16 < width};
        uint4 before[2];
#pragma unroll
        for (int m = 0; m < 2; m++)
            before[m] = !FIRST && kept[m] ? *reinterpret_cast<const uint4*>(cell + here + 16 * m * STORED) : uint4{};

        float acc[2][GATES][2][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int q = 0; q < GATES; q++)
#pragma unroll
                for (int j = 0; j < 2; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) acc[m][q][j][e] = start[q][j][e % 2];
#pragma unroll 1
        for (int source = 0; source < SOURCES; source++)
#pragma unroll UNROLLED
            for (int tap = 0; tap < 9; tap++) {
                int pixel = (row_of_tile + tap / 3) * PITCH + tap % 3 + lane % 16;
                const char* words = weights + ((source * 9 + tap) * STEPS * SIDES + side) * SIDE_STEP + lane * 16;
#pragma unroll
                for (int step = 0; step < STEPS; step++) {
                    const char* row = tile + source * TILE + place(pixel, 2 * step + lane / 16);
                    u32 a[2][4];
                    load_matrices(a[0], row);
                    load_matrices(a[1], row + 16 * PIXEL);
#pragma unroll
                    for (int q = 0; q < GATES; q++) {
                        uint4 b = *reinterpret_cast<const uint4*>(words + step * SIDES * SIDE_STEP + q * 512);
#pragma unroll
                        for (int m = 0; m < 2; m++) {
                            multiply(acc[m][q][0], a[m], b.x, b.y);
                            multiply(acc[m][q][1], a[m], b.z, b.w);
                        }
                    }
                }
            }
#pragma unroll
        for (int m = 0; m < 2; m++) {
            uint4 swapped = chunk_of(before[m].x, before[m].y, before[m].z, before[m].w);
            u32 old[4] = {swapped.x, swapped.y, swapped.z, swapped.w}, c_pairs[4], h_pairs[4];
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float c[2], h[2];
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        int at_pixel = 2 * half + e;
                        c[e] = scale * sigmoid(acc[m][GATES - 3][j][at_pixel]) * tanh_fast(acc[m][GATES - 1][j][at_pixel]);
                        if (!FIRST) c[e] += sigmoid(acc[m][0][j][at_pixel]) * (e ? high(old[2 * half + j]) : low(old[2 * half + j]));
                        h[e] = sigmoid(acc[m][GATES - 2][j][at_pixel]) * (FIRST ? c[e] : scale * tanh_fast(unscale * c[e]));
                    }
                    c_pairs[2 * half + j] = pack(c[0], c[1]);
                    h_pairs[2 * half + j] = pack(h[0], h[1]);
                }
            uint4 c_chunk = chunk_of(c_pairs[0], c_pairs[1], c_pairs[2], c_pairs[3]);
            uint4 h_chunk = chunk_of(h_pairs[0], h_pairs[1], h_pairs[2], h_pairs[3]);
            if (kept[m]) {
                *reinterpret_cast<uint4*>(new_cell + here + 16 * m * STORED) = c_chunk;
                *reinterpret_cast<uint4*>(new_hidden + here + 16 * m * STORED) = h_chunk;
            }
        }
    }
}
