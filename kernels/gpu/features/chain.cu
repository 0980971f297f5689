// A run of 3x3 convolutions of CHANNELS channels whose features stay on chip.
//
// A block makes ROWS x COLUMNS pixels of the result. What it starts from, features or a plane through a 3x3
// convolution with a rectifier (FROM_PLANE), covers HALO pixels more on every side; every convolution consumes one.
// The result is features, or a plane by one more convolution (TO_PLANE): of a pixel's features its nine taps
// make nine numbers, which are then summed across neighbours. Planes are float32, and a plane given is
// a sum of up to four, each with a factor; to a plane made another such sum is added.
// Source: the overlapped tiles of Alwani et al., "Fused-layer CNN accelerators", MICRO 2016.
//
// LAYERS: convolutions between; RECTIFIED: bit k for a rectifier after layer k; RESIDUAL: add what it starts from
// to the last layer's result; POOLED: also sum a block's results over its pixels, for a mean; KEPT: also write the
// first of two layers' result, which its gradient needs.
#include "tiles.cuh"

struct Planes {
    const float* plane[4];
    float factor[4];
};

constexpr int HALO = LAYERS + TO_PLANE;
constexpr int PITCH = COLUMNS + 2 * HALO;
constexpr int HEIGHT = ROWS + 2 * HALO;
constexpr int TILE = ((HEIGHT * PITCH + 3) * PIXEL + 1023) / 1024 * 1024;  // a pixel before, and two after
constexpr int WEIGHTS = 9 * TAP;
constexpr int SOURCE_PITCH = PITCH + 2, SOURCE_HEIGHT = HEIGHT + 2;
constexpr int SUMS = (HEIGHT * PITCH + 11) / 16 * 16 + 4;  // a plane of a tap, its bank 4 further

__device__ __forceinline__ float sum_of(const Planes& planes, size_t here) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (planes.plane[i]) sum += planes.factor[i] * planes.plane[i][here];
    return sum;
}

struct Region {
    int top, left, height, width;  // of pixel 0 in the picture; of the picture
    __device__ bool holds(int pixel) const {
        int y = top + pixel / PITCH, x = left + pixel % PITCH;
        return y >= 0 && y < height && x >= 0 && x < width;
    }
    __device__ bool keeps(int pixel) const {  // whether the pixel is of the block's own, too
        int row = pixel / PITCH, column = pixel % PITCH;
        return row >= HALO && row < HALO + ROWS && column >= HALO && column < HALO + COLUMNS && holds(pixel);
    }
    __device__ size_t index(int pixel) const {
        return (size_t)(top + pixel / PITCH) * width + left + pixel % PITCH;
    }
};

// The nine products of each pixel's features with the taps of the last convolution.
__device__ __forceinline__ void project(float* sums, const u32 (&features)[STEPS][4], const uint4 (&weights)[STEPS], int pixel,
                        int end, const Region& region) {
    int lane = threadIdx.x % 32, t = lane % 4;
    float c[2][4] = {};
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        multiply(c[0], features[step], weights[step].x, weights[step].y);
        multiply(c[1], features[step], weights[step].z, weights[step].w);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int here = pixel + lane / 4 + 8 * half;
        if (here >= end) continue;
        bool inside = region.holds(here);
        sums[2 * t * SUMS + here] = inside ? c[0][2 * half] : 0;
        sums[(2 * t + 1) * SUMS + here] = inside ? c[0][2 * half + 1] : 0;
        if (t == 0) sums[8 * SUMS + here] = inside ? c[1][2 * half] : 0;
    }
}

template <int LAYER>
__device__ __forceinline__ void layer(const char* from, char* to, const char* start, const char* weights, const float* bias,
                      const uint4 (&projection)[STEPS], float* sums, char* picture, char* middle, const Region& region) {
    constexpr int first = LAYER * PITCH, end = (HEIGHT - LAYER) * PITCH;
    constexpr int span = ceil_of(ceil_of(end - first, 16), WARPS);  // tiles of 16 pixels a warp
    constexpr int together = ceil_of(span, ceil_of(span, MOST_TILES));
    constexpr bool last = LAYER == LAYERS;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    for (int done = 0; done < span; done += together) {
        int base = first + (warp * span + done) * 16;
        if (base >= end) break;
        float acc[together][BLOCKS][4];
        begin(acc, bias);
#pragma unroll
        for (int tap = 0; tap < 9; tap++)
            accumulate<together, 16>(acc, from, base + (tap / 3 - 1) * PITCH + tap % 3 - 1, weights + tap * TAP);
#pragma unroll
        for (int m = 0; m < together; m++) {
            int pixel = base + 16 * m;
            u32 features[STEPS][4];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int here = pixel + lane / 4 + 8 * half;
                bool kept = here < end && (last ? region.keeps(here) : region.holds(here));
                u32 pairs[BLOCKS];
#pragma unroll
                for (int j = 0; j < BLOCKS; j++) {
                    float a = acc[m][j][2 * half], b = acc[m][j][2 * half + 1];
                    if (last && RESIDUAL) {
                        u32 pair = *reinterpret_cast<const u32*>(start + place(here, j) + 4 * t);
                        a += low(pair), b += high(pair);
                    }
                    if (RECTIFIED >> (LAYER - 1) & 1) a = rectified(a), b = rectified(b);
                    pairs[j] = pack(a, b);
                    if (last && TO_PLANE) features[j / 2][2 * (j % 2) + half] = pairs[j];
                    if (!last && here < end) *reinterpret_cast<u32*>(to + place(here, j) + 4 * t) = kept ? pairs[j] : 0;
                }
                if (last && !TO_PLANE) store_pixel(picture + (kept ? region.index(here) * STORED : 0), kept, pairs);
                if (!last && KEPT) {
                    bool own = here < end && region.keeps(here);
                    store_pixel(middle + (own ? region.index(here) * STORED : 0), own, pairs);
                }
            }
            if (last && TO_PLANE && pixel < end) project(sums, features, projection, pixel, end, region);
        }
    }
}

// Features of the plane in `source`: max(0, b + 3x3 convolution).
__device__ __forceinline__ void embed(char* tile, const float* source, const uint4* weights, const float* bias, char* picture,
                      float* pooled, const Region& region) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    uint4 b[BLOCKS / 2];
#pragma unroll
    for (int j = 0; j < BLOCKS / 2; j++) b[j] = weights[j * 32 + lane];
    float total[BLOCKS][2] = {};
    for (int pixel = warp * 16; pixel < HEIGHT * PITCH; pixel += WARPS * 16) {
        float acc[1][BLOCKS][4];
        begin(acc, bias);
        u32 a[4] = {};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int here = min(pixel + lane / 4 + 8 * half, HEIGHT * PITCH - 1);
            const float* corner = source + here / PITCH * SOURCE_PITCH + here % PITCH;
            float first = corner[2 * t / 3 * SOURCE_PITCH + 2 * t % 3];
            a[half] = pack(first, corner[(2 * t + 1) / 3 * SOURCE_PITCH + (2 * t + 1) % 3]);
            a[2 + half] = t == 0 ? pack(corner[2 * SOURCE_PITCH + 2], 0) : 0;
        }
#pragma unroll
        for (int j = 0; j < BLOCKS / 2; j++) {
            multiply(acc[0][2 * j], a, b[j].x, b[j].y);
            multiply(acc[0][2 * j + 1], a, b[j].z, b[j].w);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int here = pixel + lane / 4 + 8 * half;
            bool kept = here < HEIGHT * PITCH && region.holds(here);
            u32 pairs[BLOCKS];
#pragma unroll
            for (int j = 0; j < BLOCKS; j++) {
                u32 pair = pack(rectified(acc[0][j][2 * half]), rectified(acc[0][j][2 * half + 1]));
                pairs[j] = kept ? pair : 0;
                if (LAYERS > 0 && here < HEIGHT * PITCH) *reinterpret_cast<u32*>(tile + place(here, j) + 4 * t) = pairs[j];
                if (POOLED) total[j][0] += low(pairs[j]), total[j][1] += high(pairs[j]);
            }
            if (LAYERS == 0) store_pixel(picture + (kept ? region.index(here) * STORED : 0), kept, pairs);
        }
    }
    if (POOLED) {
#pragma unroll
        for (int j = 0; j < BLOCKS; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float sum = total[j][e];
                for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
                if (lane < 4) pooled[warp * CHANNELS + 8 * j + 2 * t + e] = sum;
            }
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, PER_SM)
chain(const char* features, Planes given, const char* packed, const float* biases, char* result, Planes added,
      float* plane, float* pooled, char* middle, int height, int width) {
    SHARED_MEMORY(memory);
    char* tile = memory + PIXEL * 2;   // products at the first row's border look one pixel back
    char* other = tile + (LAYERS > 0 || !FROM_PLANE ? TILE : 0);
    char* weights = other + (LAYERS > 1 ? TILE : 0);
    float* source = reinterpret_cast<float*>(weights + (LAYERS > 0 ? WEIGHTS : 0));
    float* sums = source + (FROM_PLANE ? SOURCE_HEIGHT * SOURCE_PITCH : 0);

    size_t pixels = (size_t)height * width;
    Region region = {(int)blockIdx.y * ROWS - HALO, (int)blockIdx.x * COLUMNS - HALO, height, width};
    const char* layers = packed + (FROM_PLANE ? 32 * CHANNELS : 0);
    const uint4* last = reinterpret_cast<const uint4*>(layers + LAYERS * WEIGHTS);
    char* picture = result + blockIdx.z * pixels * STORED;
    middle += KEPT ? blockIdx.z * pixels * STORED : 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (given.plane[i]) given.plane[i] += blockIdx.z * pixels;
        if (added.plane[i]) added.plane[i] += blockIdx.z * pixels;
    }

    if (LAYERS > 0) fetch_bytes(weights, layers, WEIGHTS);
    if (FROM_PLANE) {
        for (int i = threadIdx.x; i < SOURCE_HEIGHT * SOURCE_PITCH; i += blockDim.x) {
            int y = region.top - 1 + i / SOURCE_PITCH, x = region.left - 1 + i % SOURCE_PITCH;
            bool inside = y >= 0 && y < height && x >= 0 && x < width;
            source[i] = inside ? sum_of(given, (size_t)y * width + x) : 0;
        }
        __syncthreads();
        embed(tile, source, reinterpret_cast<const uint4*>(packed), biases, picture, sums, region);
        biases += CHANNELS;
        if (POOLED) {
            __syncthreads();
            int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
            for (int c = threadIdx.x; c < CHANNELS; c += blockDim.x) {
                float sum = 0;
                for (int warp = 0; warp < WARPS; warp++) sum += sums[warp * CHANNELS + c];
                pooled[(size_t)block * CHANNELS + c] = sum;
            }
        }
    } else {
        fetch_tile<HEIGHT, PITCH, PITCH>(tile, features + blockIdx.z * pixels * STORED, region.top, region.left, height, width);
    }
    end_of_copies();
    await_copies<0>();
    __syncthreads();

    uint4 projection[STEPS];
#pragma unroll
    for (int step = 0; step < STEPS; step++)
        projection[step] = TO_PLANE ? last[step * 32 + threadIdx.x % 32] : uint4{};
    if constexpr (LAYERS >= 1) layer<1>(tile, other, tile, weights, biases, projection, sums, picture, middle, region);
    if constexpr (LAYERS >= 2) {
        __syncthreads();
        fetch_bytes(weights, layers + WEIGHTS, WEIGHTS);
        end_of_copies();
        await_copies<0>();
        __syncthreads();
        layer<2>(other, tile, tile, weights, biases + CHANNELS, projection, sums, picture, middle, region);
    }
    if (!TO_PLANE) return;
    if (LAYERS == 0) {
        int lane = threadIdx.x % 32;
        for (int pixel = threadIdx.x / 32 * 16; pixel < HEIGHT * PITCH; pixel += WARPS * 16) {
            u32 a[STEPS][4];
#pragma unroll
            for (int step = 0; step < STEPS; step++)
                load_matrices(a[step], tile + place(min(pixel + lane % 16, HEIGHT * PITCH - 1), 2 * step + lane / 16));
            project(sums, a, projection, pixel, HEIGHT * PITCH, region);
        }
    }
    __syncthreads();
    float shift = biases[LAYERS * CHANNELS];
    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += blockDim.x) {
        int pixel = (HALO + i / COLUMNS) * PITCH + HALO + i % COLUMNS;
        if (!region.holds(pixel)) continue;
        float sum = shift;
#pragma unroll
        for (int tap = 0; tap < 9; tap++) sum += sums[tap * SUMS + pixel + (tap / 3 - 1) * PITCH + tap % 3 - 1];
        size_t here = region.index(pixel);
        plane[blockIdx.z * pixels + here] = sum + sum_of(added, here);
    }
}
