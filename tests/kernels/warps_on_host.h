// A block of a CUDA kernel on a CPU: a fiber for each thread, which take turns where they wait for one another.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <vector>

#define INSTRUCTIONS  // those of this file instead
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __expf expf
typedef unsigned int u32;
struct Triple { int x, y, z; };
struct alignas(16) uint4 { u32 x, y, z, w; };
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
using std::max;
using std::min;
static Triple threadIdx, blockIdx, blockDim, gridDim;
alignas(1024) static char whole_memory[232448];
#define SHARED_MEMORY(name) char* const name = whole_memory

struct Meeting {  // of `size` threads; they go on when all are there
    int size, there = 0, round = 0;
};
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
};
static std::vector<std::unique_ptr<Fiber>> fibers;
static std::vector<Meeting> warps;
static Meeting block;
static ucontext_t scheduler;
static std::function<void()> body;
static u32 swapped[64][32][8];  // what lanes show one another
static const char* shown[64][32];

static void meet(Meeting& meeting) {
    int round = meeting.round;
    if (++meeting.there == meeting.size) {
        meeting.there = 0;
        meeting.round++;
        return;
    }
    while (meeting.round == round) swapcontext(&fibers[threadIdx.x]->context, &scheduler);
}
static void __syncthreads() { meet(block); }
static Meeting& warp() { return warps[threadIdx.x / 32]; }

static void enter() {
    body();
    fibers[threadIdx.x]->done = true;
}

static void run_block(int threads, std::function<void()> kernel) {
    body = kernel;
    block = {threads};
    warps.assign(threads / 32, {32});
    fibers.clear();
    memset(whole_memory, 0xff, sizeof whole_memory);  // NaN, as what nobody has written
    for (int i = 0; i < threads; i++) {
        fibers.push_back(std::make_unique<Fiber>());
        Fiber& fiber = *fibers.back();
        fiber.stack.resize(65536);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, enter, 0);
    }
    for (bool going = true; going;) {
        going = false;
        for (int i = 0; i < threads; i++) {
            if (fibers[i]->done) continue;
            going = true;
            threadIdx.x = i;
            swapcontext(&scheduler, &fibers[i]->context);
        }
    }
}

inline float real_of(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
#if FLOAT16
inline u32 rounded(float x) {
    _Float16 half = x;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}
inline float widened(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, 2);
    return half;
}
inline float low(u32 pair) { return widened(pair); }
inline float high(u32 pair) { return widened(pair >> 16); }
#else
inline u32 rounded(float x) {  // to bfloat16, to even
    u32 bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline float low(u32 pair) { return real_of(pair << 16); }
inline float high(u32 pair) { return real_of(pair & 0xffff0000u); }
#endif
inline u32 pack(float low, float high) { return rounded(low) | rounded(high) << 16; }
inline float rectified(float x) { return x < 0 ? 0 : x; }
inline float tanh_fast(float x) { return tanhf(x); }
inline void copy_ahead(char* to, const void* from, bool wanted) {
    if (wanted) memcpy(to, from, 16);
    else memset(to, 0, 16);
}
inline void end_of_copies() {}
template <int PENDING>
inline void await_copies() {}

template <typename T>
T __shfl_xor_sync(u32, T value, int distance) {
    int w = threadIdx.x / 32, lane = threadIdx.x % 32;
    memcpy(swapped[w][lane], &value, 4);
    meet(warp());
    T other;
    memcpy(&other, swapped[w][lane ^ distance], 4);
    meet(warp());
    return other;
}

inline void load_matrices(u32 (&a)[4], const char* row) {
    int w = threadIdx.x / 32, lane = threadIdx.x % 32;
    shown[w][lane] = row;
    meet(warp());
    for (int i = 0; i < 4; i++) memcpy(&a[i], shown[w][8 * i + lane / 4] + lane % 4 * 4, 4);
    meet(warp());
}

inline void load_transposed(u32 (&a)[4], const char* row) {
    int w = threadIdx.x / 32, lane = threadIdx.x % 32;
    shown[w][lane] = row;
    meet(warp());
    for (int i = 0; i < 4; i++) {
        unsigned short pair[2];
        for (int k = 0; k < 2; k++) memcpy(&pair[k], shown[w][8 * i + lane % 4 * 2 + k] + lane / 4 * 2, 2);
        memcpy(&a[i], pair, 4);
    }
    meet(warp());
}

// As PTX's section on mma.m16n8k16 lays the three matrices out.
inline void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    int w = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(swapped[w][lane], mine, sizeof mine);
    meet(warp());
    for (int i = 0; i < 4; i++) {
        int row = lane / 4, column = 2 * (lane % 4) + i % 2;
        for (int k = 0; k < 16; k++) {
            u32 left = swapped[w][4 * row + k % 8 / 2][i / 2 + 2 * (k / 8)];
            u32 right = swapped[w][4 * column + k % 8 / 2][4 + k / 8];
            c[i] += (k % 2 ? high(left) : low(left)) * (k % 2 ? high(right) : low(right));
        }
    }
    meet(warp());
}
