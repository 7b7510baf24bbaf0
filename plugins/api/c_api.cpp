// The C interface to tactics.h: converts the structs and lets no exception out.
#include "tdc/c_api.h"

#include <algorithm>
#include <string>

#include "api/convert.h"
#include "tdc/tactics.h"

namespace {

// What `run` returns, or an error where it throws.
template <class Run>
int guarded(Run run) noexcept {
    try {
        return run();
    } catch (...) {
        return TDC_ERROR_INTERNAL;
    }
}

}  // namespace

extern "C" {

int tdc_api_version() { return TDC_API_VERSION; }

size_t tdc_params_size() { return sizeof(tdc_params); }

const char* tdc_error_string(int error) {
    switch (error) {
        case TDC_ERROR_ARGUMENT:
            return "an argument is null or out of range";
        case TDC_ERROR_NO_TACTIC:
            return "no tactic has this number";
        case TDC_ERROR_NOT_LEGAL:
            return "the tactic does not compute this layer on this device";
        case TDC_ERROR_NEEDS_GPU:
            return "this build runs kernels in an emulator; timing needs a build for a GPU";
        case TDC_ERROR_INTERNAL:
            return "internal error";
        default:
            return cudaGetErrorString(static_cast<cudaError_t>(error));
    }
}

int tdc_tactic_count() {
    return guarded([] { return static_cast<int>(tdc::all_tactics().size()); });
}

int tdc_tactics(int* numbers, int capacity) {
    if (!numbers || capacity < 0) return TDC_ERROR_ARGUMENT;
    return guarded([=] {
        const auto& all = tdc::all_tactics();
        const auto count = static_cast<int>(all.size());
        std::copy_n(all.begin(), std::min(count, capacity), numbers);
        return count;
    });
}

int tdc_decode(int number, tdc_tactic* tactic) {
    if (!tactic) return TDC_ERROR_ARGUMENT;
    tdc::Tactic found{};
    if (!tdc::decode(number, found)) return TDC_ERROR_NO_TACTIC;
    *tactic = {static_cast<int>(found.family), static_cast<int>(found.arithmetic), found.config,
               static_cast<int>(found.split), found.parts};
    return TDC_OK;
}

int tdc_describe(int number, char* text, size_t capacity) {
    if (!text && capacity) return TDC_ERROR_ARGUMENT;
    return guarded([=] {
        const std::string description = tdc::describe(number);
        if (capacity) text[description.copy(text, capacity - 1)] = '\0';
        return static_cast<int>(description.size());
    });
}

int tdc_current_device(tdc_device* device) {
    if (!device) return TDC_ERROR_ARGUMENT;
    tdc::Device found{};
    const cudaError_t error = tdc::current_device(found);
    if (error != cudaSuccess) return error;
    *device = {found.compute_capability, found.shared_bytes, found.multiprocessors};
    return TDC_OK;
}

int tdc_is_legal(int number, const tdc_params* params, const tdc_device* device, int* legal) {
    if (!params || !legal) return TDC_ERROR_ARGUMENT;
    tdc_device current{};
    if (!device) {
        if (const int error = tdc_current_device(&current)) return error;
        device = &current;
    }
    return guarded([=] {
        *legal = tdc::is_legal(
            number, tdc::api::converted(*params),
            {device->compute_capability, device->shared_bytes, device->multiprocessors});
        return TDC_OK;
    });
}

size_t tdc_workspace_bytes(int number, const tdc_params* params) {
    return params ? tdc::workspace_bytes(number, tdc::api::converted(*params)) : 0;
}

size_t tdc_counter_count(int number, const tdc_params* params) {
    return params ? tdc::counter_count(number, tdc::api::converted(*params)) : 0;
}

int tdc_launch(int number, const tdc_params* params, void* stream) {
    if (!params) return TDC_ERROR_ARGUMENT;
    return guarded([=] {
        tdc::Tactic tactic{};
        if (!tdc::decode(number, tactic)) return static_cast<int>(TDC_ERROR_NO_TACTIC);
        return static_cast<int>(
            tdc::launch(number, tdc::api::converted(*params), static_cast<cudaStream_t>(stream)));
    });
}

}  // extern "C"
