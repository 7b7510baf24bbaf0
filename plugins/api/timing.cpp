// Times a tactic on a GPU: a CUDA graph of one launch behind a flush of the L2 cache, replayed.
#include <cuda_runtime_api.h>

#include "api/convert.h"
#include "tdc/c_api.h"
#include "tdc/tactics.h"

// Returns the error of a CUDA call from the function around it.
#define TDC_TRY(...) \
    if (const cudaError_t tdc_error = (__VA_ARGS__); tdc_error != cudaSuccess) return tdc_error

namespace {

// A CUDA handle that is destroyed with its owner.
template <class Handle, cudaError_t (*destroy)(Handle)>
class Owned {
  public:
    Owned() = default;
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() {
        if (handle_) destroy(handle_);
    }
    Handle* out() { return &handle_; }
    operator Handle() const { return handle_; }

  private:
    Handle handle_ = nullptr;
};

class ColdTimer {
  public:
    // Allocates everything, and captures what `launch(stream)` puts on its stream.
    template <class Launch>
    cudaError_t prepare(std::size_t flush_bytes, Launch launch) {
        TDC_TRY(choose_flush(flush_bytes));
        TDC_TRY(cudaMalloc(scratch_.out(), flush_bytes_));
        TDC_TRY(cudaStreamCreateWithFlags(stream_.out(), cudaStreamNonBlocking));
        TDC_TRY(cudaEventCreate(before_.out()));
        TDC_TRY(cudaEventCreate(after_.out()));
        // Once outside the graph: kernels are loaded, which a capture may forbid, and failures
        // show.
        TDC_TRY(cudaDeviceSynchronize());
        TDC_TRY(launch(stream_));
        TDC_TRY(cudaStreamSynchronize(stream_));

        TDC_TRY(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
        const cudaError_t error = record(launch);
        const cudaError_t ended = cudaStreamEndCapture(stream_, graph_.out());
        TDC_TRY(error);
        TDC_TRY(ended);
        return cudaGraphInstantiateWithFlags(executable_.out(), graph_, 0);
    }

    // Replays once; the microseconds between the events.
    cudaError_t replay(float& microseconds) {
        TDC_TRY(cudaGraphLaunch(executable_, stream_));
        TDC_TRY(cudaStreamSynchronize(stream_));
        float milliseconds = 0;
        TDC_TRY(cudaEventElapsedTime(&milliseconds, before_, after_));
        microseconds = 1000 * milliseconds;
        return cudaSuccess;
    }

  private:
    cudaError_t choose_flush(std::size_t asked) {
        int device = 0, cache = 0;
        TDC_TRY(cudaGetDevice(&device));
        TDC_TRY(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
        flush_bytes_ = asked ? asked : 2 * static_cast<std::size_t>(cache);
        return cudaSuccess;
    }

    // External events become nodes of the graph, which record again at each replay.
    template <class Launch>
    cudaError_t record(Launch launch) {
        TDC_TRY(cudaMemsetAsync(scratch_, 0, flush_bytes_, stream_));
        TDC_TRY(cudaEventRecordWithFlags(before_, stream_, cudaEventRecordExternal));
        TDC_TRY(launch(stream_));
        return cudaEventRecordWithFlags(after_, stream_, cudaEventRecordExternal);
    }

    std::size_t flush_bytes_ = 0;
    Owned<void*, cudaFree> scratch_;
    Owned<cudaStream_t, cudaStreamDestroy> stream_;
    Owned<cudaEvent_t, cudaEventDestroy> before_, after_;
    Owned<cudaGraph_t, cudaGraphDestroy> graph_;
    Owned<cudaGraphExec_t, cudaGraphExecDestroy> executable_;
};

bool is_valid(const tdc_timing* timing, const float* microseconds) {
    return timing && microseconds && timing->warmup >= 0 && timing->samples > 0;
}

template <class Launch>
cudaError_t run(const tdc_timing& timing, float* microseconds, Launch launch) {
    ColdTimer timer;
    TDC_TRY(timer.prepare(timing.flush_bytes, launch));
    float ignored = 0;
    for (int i = 0; i < timing.warmup; ++i) TDC_TRY(timer.replay(ignored));
    for (int i = 0; i < timing.samples; ++i) TDC_TRY(timer.replay(microseconds[i]));
    return cudaSuccess;
}

}  // namespace

extern "C" {

int tdc_time(int number, const tdc_params* params, const tdc_timing* timing, float* microseconds) {
    if (!params || !is_valid(timing, microseconds)) return TDC_ERROR_ARGUMENT;
    tdc_tactic tactic{};
    if (const int error = tdc_decode(number, &tactic)) return error;
    int legal = 0;
    if (const int error = tdc_is_legal(number, params, nullptr, &legal)) return error;
    if (!legal) return TDC_ERROR_NOT_LEGAL;
    const tdc::TuckerConvParams layer = tdc::api::converted(*params);
    return run(*timing, microseconds,
               [&](cudaStream_t stream) { return tdc::launch(number, layer, stream); });
}

int tdc_core_time(int config, const tdc_core_params* params, const tdc_timing* timing,
                  float* microseconds) {
    if (!params || !is_valid(timing, microseconds)) return TDC_ERROR_ARGUMENT;
    if (config < 0 || config >= tdc_core_count()) return TDC_ERROR_NO_TACTIC;
    const tdc::CoreParams core = tdc::api::converted(*params);
    return run(*timing, microseconds,
               [&](cudaStream_t stream) { return tdc::tdc_core_launch(config, core, stream); });
}

int tdc_time_nothing(const tdc_timing* timing, float* microseconds) {
    if (!is_valid(timing, microseconds)) return TDC_ERROR_ARGUMENT;
    return run(*timing, microseconds, [](cudaStream_t) { return cudaSuccess; });
}

}  // extern "C"
