/* The kernels as plain C, for ctypes and other languages: what tactics.h offers, how a build was
 * made, and a timer. Nothing here throws, and nothing but tdc_time allocates device memory or
 * waits.
 *
 * A function that returns an int error gives 0 (TDC_OK), one of the negative TDC_ERROR_*, or CUDA's
 * own positive cudaError_t; tdc_error_string knows them all. A null pointer where one is needed
 * gives TDC_ERROR_ARGUMENT. */
#ifndef TDC_C_API_H
#define TDC_C_API_H

#include <stddef.h>

#if defined(_WIN32)
#define TDC_API
#else
#define TDC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a struct or a function changes its meaning. */
#define TDC_API_VERSION 1

enum {
    TDC_OK = 0,
    TDC_ERROR_ARGUMENT = -1,
    TDC_ERROR_NO_TACTIC = -2, /* the number is none of tdc_tactics */
    TDC_ERROR_NOT_LEGAL = -3, /* the tactic does not compute this layer on this device */
    TDC_ERROR_NEEDS_GPU = -4, /* the kernels were built for the emulator */
    TDC_ERROR_INTERNAL = -5
};

/* tdc::TuckerConvParams (tdc/tucker_conv.h documents the fields), all device memory. */
typedef struct {
    const void* x;
    const void* residual;
    void* y;
    const void* first;
    const void* first_bias;
    const void* core;
    const void* core_bias;
    const void* last;
    const void* bias;
    void* workspace;
    unsigned* counters;
    int n, h, w, c;
    int h_out, w_out, m;
    int r_in, r_out;
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;
    int dilation_h, dilation_w;
    float first_slope, core_slope, slope;
} tdc_params;

/* tdc::Device. */
typedef struct {
    int compute_capability; /* 10 * major + minor */
    size_t shared_bytes;    /* dynamic shared memory that one block may take */
    int multiprocessors;
} tdc_device;

/* tdc::Tactic; the numbers of family, arithmetic and split are those of the enums in tdc/tactics.h.
 */
typedef struct {
    int family, arithmetic, config, split, parts;
} tdc_tactic;

/* A caller that knows the structs by other means than this header compares before it passes any. */
TDC_API int tdc_api_version(void);
TDC_API size_t tdc_params_size(void);

/* The error in words; never null. */
TDC_API const char* tdc_error_string(int error);

/* A JSON object: "version", "kernel_revision", "emulated" and, unless emulated, "cuda_runtime"
 * (such as 13000) and "architectures" (such as "80,90"). */
TDC_API const char* tdc_build_info(void);

/* How many tactics there are, and the first `capacity` numbers of them, in tactics.h's order;
 * returns how many there are, or a negative error. */
TDC_API int tdc_tactic_count(void);
TDC_API int tdc_tactics(int* numbers, int capacity);
TDC_API int tdc_decode(int number, tdc_tactic* tactic);

/* Writes the tactic's description, cut to capacity - 1 characters and ended by NUL; returns its
 * whole length without the NUL, as snprintf does. */
TDC_API int tdc_describe(int number, char* text, size_t capacity);

TDC_API int tdc_current_device(tdc_device* device);

/* *legal becomes 1 or 0. A null device means the current one. A number that is no tactic is not
 * legal. */
TDC_API int tdc_is_legal(int number, const tdc_params* params, const tdc_device* device,
                         int* legal);

/* 0 for a number that is no tactic. */
TDC_API size_t tdc_workspace_bytes(int number, const tdc_params* params);
TDC_API size_t tdc_counter_count(int number, const tdc_params* params);

/* Runs the layer on a cudaStream_t; does not wait. */
TDC_API int tdc_launch(int number, const tdc_params* params, void* stream);

typedef struct {
    int warmup;         /* replays before the first sample */
    int samples;        /* replays that are timed */
    size_t flush_bytes; /* written before each launch; 0: twice the L2 cache */
} tdc_timing;

/* Times one tactic with a cold L2 cache: captures [write flush_bytes of scratch; event; launch;
 * event] in a CUDA graph and replays it. microseconds[i], i < samples, is what lay between the two
 * events of sample i; CUDA documents a resolution of half a microsecond. The events are not free:
 * tdc_time_nothing times them alone, in the same way. params' counters must be zero. Waits for the
 * device first, so that the inputs are there; nothing else should run on it meanwhile. */
TDC_API int tdc_time(int number, const tdc_params* params, const tdc_timing* timing,
                     float* microseconds);
TDC_API int tdc_time_nothing(const tdc_timing* timing, float* microseconds);

/* tdc::CoreParams (kernels/channel_first.h documents the fields): a convolution alone, fp32,
 * channel first, with TDC's core kernel. */
typedef struct {
    const float* x;
    const float* weights;
    float* y;
    int n, h, w, c;
    int h_out, w_out, m;
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;
    int dilation_h, dilation_w;
} tdc_core_params;

/* Configurations 0 to tdc_core_count() - 1. tdc_core_launch adds to y and does not wait;
 * tdc_core_time is to it as tdc_time is to tdc_launch, and times neither the zeroing of y nor
 * anything else. */
TDC_API int tdc_core_count(void);
TDC_API int tdc_core_launch(int config, const tdc_core_params* params, void* stream);
TDC_API int tdc_core_time(int config, const tdc_core_params* params, const tdc_timing* timing,
                          float* microseconds);

#ifdef __cplusplus
}
#endif

#endif
