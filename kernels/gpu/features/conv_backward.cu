// Both gradients of a 3x3 convolution C -> C from one reading of its input x and its result's gradient g.
//
//   grad_x[p, c] = sum over t, o of g[p - t, o] w_t[o, c]     grad_w_t[o, c] = sum over p of x[p, c] g[p - t, o]
//   grad_b[o] = sum over p of g[p, o]
//
// A block stays. Of each tile, while the next is on its way, most warps make x's gradient and three sum the weight's in
// their registers, the three shifts of one row of the window each. What they found goes to `parts`, which `sum_parts`
// adds up, always in the same order.
#include "tiles.cuh"

constexpr int COLUMNS = 32, PITCH = COLUMNS + 2, HEIGHT = ROWS + 2;
constexpr int INPUT_WARPS = 9, WEIGHT_WARPS = 3;
constexpr int GRAD = (HEIGHT * PITCH * PIXEL + 1023) / 1024 * 1024, INPUT = ROWS * COLUMNS * PIXEL;
constexpr int FIRST = PITCH + 1, END = (ROWS + 1) * PITCH - 1;  // the tile's own pixels of g, two of others between rows
constexpr int SPAN = ceil_of(ceil_of(END - FIRST, 16), INPUT_WARPS);  // tiles of 16 pixels a warp
constexpr int PART = 9 * CHANNELS * CHANNELS + CHANNELS;
constexpr u32 ONES = 0x3f803f80;  // two of bfloat16

__device__ __forceinline__ void fetch(char* memory, const char* grad, const char* input, int number, int tiles, int height, int width) {
    if (number < tiles) {
        Place at = place_of<ROWS, COLUMNS>(number, height, width);
        fetch_tile<HEIGHT, PITCH, PITCH>(memory, grad + at.picture, at.top - 1, at.left - 1, height, width);
        fetch_tile<ROWS, COLUMNS, COLUMNS>(memory + GRAD, input + at.picture, at.top, at.left, height, width);
    }
    end_of_copies();
}

// The weight (o, tap, c), float32, in bfloat16 as `accumulate` takes it, of inner dimension o, its window turned around.
__device__ __forceinline__ void pack_weight(char* to, const float* weight) {
    for (int i = threadIdx.x; i < 9 * CHANNELS * CHANNELS; i += blockDim.x) {
        int o = i / (9 * CHANNELS), tap = 8 - i / CHANNELS % 9, c = i % CHANNELS;
        int word = ((tap * STEPS + o / 16) * (BLOCKS / 2) + c / 16) * 32 + 4 * (c % 8) + o % 8 / 2;
        int half = 8 * word + 4 * (c / 8 % 2) + 2 * (o / 8 % 2) + o % 2;
        reinterpret_cast<unsigned short*>(to)[half] = (unsigned short)pack(weight[i], 0);
    }
}

__device__ __forceinline__ void gradient_of_input(const char* memory, const char* weights, const char* plus, int rectified,
                                                  char* result, const Place& at, int height, int width) {
    int lane = threadIdx.x % 32, t = lane % 4, base = FIRST + threadIdx.x / 32 * SPAN * 16;
    const char* input = memory + GRAD;
    float acc[SPAN][BLOCKS][4] = {};
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
        accumulate<SPAN, 16>(acc, memory, base + (tap / 3 - 1) * PITCH + tap % 3 - 1, weights + tap * TAP);
#pragma unroll
    for (int m = 0; m < SPAN; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int here = base + 16 * m + lane / 4 + 8 * half, row = here / PITCH - 1, column = here % PITCH - 1;
            int y = at.top + row, x = at.left + column;
            bool kept = row < ROWS && column >= 0 && column < COLUMNS && y < height && x < width;
            size_t there = kept ? at.picture + ((size_t)y * width + x) * PIXEL : 0;
            u32 pairs[BLOCKS];
#pragma unroll
            for (int j = 0; j < BLOCKS; j++) {
                float a = acc[m][j][2 * half], b = acc[m][j][2 * half + 1];
                if (rectified && kept) {
                    u32 pair = *reinterpret_cast<const u32*>(input + place(row * COLUMNS + column, j) + 4 * t);
                    a = low(pair) > 0 ? a : 0, b = high(pair) > 0 ? b : 0;
                }
                if (plus && kept) {
                    u32 pair = *reinterpret_cast<const u32*>(plus + there + 16 * j + 4 * t);
                    a += low(pair), b += high(pair);
                }
                pairs[j] = pack(a, b);
            }
            store_pixel(result + there, kept, pairs);
        }
}

// Sums over pixels of x and g of a tile: c by o for three shifts, and of g alone where `bias` is wanted.
struct Sums {
    float weight[3][STEPS][BLOCKS][4], bias[BLOCKS][4];
};

__device__ __forceinline__ void add_products(Sums& sums, const char* grad, int dy) {
    const u32 ones[4] = {ONES, ONES, ONES, ONES};
    int lane = threadIdx.x % 32;
    const char* input = grad + GRAD;
#pragma unroll 2
    for (int i = 0; i < 2 * ROWS; i++) {
        int row = i / 2, half = i % 2;
        u32 x[STEPS][4];  // 16 channels by 16 pixels each
        int pixel = row * COLUMNS + 16 * half + lane / 16 * 8 + lane % 8;
#pragma unroll
        for (int step = 0; step < STEPS; step++) load_transposed(x[step], input + place(pixel, 2 * step + lane / 8 % 2));
#pragma unroll
        for (int dx = -1; dx <= 1; dx++) {
            int from = (row + 1 - dy) * PITCH + 16 * half + 1 - dx + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
            for (int j = 0; j < BLOCKS / 2; j++) {
                u32 g[4];  // 16 pixels by 16 channels
                load_transposed(g, grad + place(from, 2 * j + lane / 16));
#pragma unroll
                for (int step = 0; step < STEPS; step++) {
                    multiply(sums.weight[dx + 1][step][2 * j], x[step], g[0], g[1]);
                    multiply(sums.weight[dx + 1][step][2 * j + 1], x[step], g[2], g[3]);
                }
                if (dx == 0 && dy == 0) {
                    multiply(sums.bias[2 * j], ones, g[0], g[1]);
                    multiply(sums.bias[2 * j + 1], ones, g[2], g[3]);
                }
            }
        }
    }
}

// A part: the weight's gradient, (tap, c, o), and the bias's.
__device__ __forceinline__ void store(float* part, const Sums& sums, int dy) {
    int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int dx = 0; dx < 3; dx++)
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int j = 0; j < BLOCKS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int tap = 3 * (dy + 1) + dx, c = 16 * step + lane / 4 + e / 2 * 8, o = 8 * j + 2 * t + e % 2;
                    part[(tap * CHANNELS + c) * CHANNELS + o] = sums.weight[dx][step][j][e];
                }
    if (dy != 0 || lane > 3) return;
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) part[9 * CHANNELS * CHANNELS + 8 * j + 2 * t + e] = sums.bias[j][e];
}

extern "C" __global__ void __launch_bounds__(32 * (INPUT_WARPS + WEIGHT_WARPS), 1)
conv_backward(const char* grad, const char* input, const float* weight, const char* plus, int rectified,
              char* result, float* parts, int height, int width, int tiles) {
    SHARED_MEMORY(memory);
    char* weights = memory + 2 * (GRAD + INPUT);
    int warp = threadIdx.x / 32, dy = warp - INPUT_WARPS - 1;
    fetch(memory, grad, input, blockIdx.x, tiles, height, width);
    pack_weight(weights, weight);
    auto for_each_tile = [&](auto use) {
        int turn = 0;
        for (int number = blockIdx.x; number < tiles; number += gridDim.x, turn ^= 1) {
            await_copies<0>();
            __syncthreads();  // this tile is there, and nobody needs the other one any more
            fetch(memory + (turn ^ 1) * (GRAD + INPUT), grad, input, number + gridDim.x, tiles, height, width);
            use(memory + turn * (GRAD + INPUT), number);
        }
    };
    if (warp < INPUT_WARPS) {
        for_each_tile([&](const char* here, int number) {
            gradient_of_input(here, weights, plus, rectified, result, place_of<ROWS, COLUMNS>(number, height, width), height, width);
        });
    } else {
        Sums sums = {};
        for_each_tile([&](const char* here, int) { add_products(sums, here, dy); });
        store(parts + (size_t)blockIdx.x * PART, sums, dy);
    }
}

// The gradients of weight, (o, tap, c), and bias, of all parts.
extern "C" __global__ void __launch_bounds__(256)
sum_parts(const float* parts, int count, float* of_weight, float* of_bias) {
    __shared__ float sums[8][32];
    int lane = threadIdx.x % 32, group = threadIdx.x / 32, i = blockIdx.x * 32 + lane;
    float sum = 0;
    if (i < PART)
        for (int part = group; part < count; part += 8) sum += parts[(size_t)part * PART + i];
    sums[group][lane] = sum;
    __syncthreads();
    if (group > 0 || i >= PART) return;
    for (int other = 1; other < 8; other++) sum += sums[other][lane];
    int o = i % CHANNELS, c = i / CHANNELS % CHANNELS, tap = i / (CHANNELS * CHANNELS);
    if (tap < 9)
        of_weight[(9 * o + tap) * CHANNELS + c] = sum;
    else
        of_bias[o] = sum;
}
