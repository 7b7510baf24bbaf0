/* The C interface, from C: the header is C, and the library does what it says. A layer of one pixel
 * with other values in every field shows that the fields arrive where they belong. */
#include "tdc/c_api.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void check(int passed, const char* what, int line) {
    if (passed) return;
    ++failures;
    fprintf(stderr, "c_api_test.c:%d: %s\n", line, what);
}
#define CHECK(condition) check(condition, #condition, __LINE__)

enum { C = 8, R_IN = 16, R_OUT = 8, M = 24, MAX_TACTICS = 1024 };

static const tdc_device kAmpere = {80, 163 * 1024, 108};
static uint16_t x[C], residual[M], y[M];
static uint16_t first[R_IN * C], first_bias[R_IN], core[R_OUT * R_IN], core_bias[R_OUT];
static uint16_t last[M * R_OUT], bias[M];

/* fp16 bits. */
static const uint16_t kMinusOne = 0xBC00, kOne = 0x3C00, kTwo = 0x4000, kFour = 0x4400;
static const uint16_t kEight = 0x4800, kMinus12 = 0xCA00, kMinus13 = 0xCA80, kNan = 0x7FFF;

static void fill(uint16_t* values, size_t bytes, uint16_t value) {
    for (size_t i = 0; i < bytes / sizeof *values; ++i) values[i] = value;
}

/* X is -1, the weights are 1, the biases 1, 2, 4, the slopes 1/2, 1/4, 1/8, the residual 8, so
 *   T1 = (-8 + 1) / 2 = -3.5,  T2 = (16 * -3.5 + 2) / 4 = -13.5,  Y = (8 * -13.5 + 4 [+ 8]) / 8 =
 * -13 [-12] */
static tdc_params layer(void) {
    fill(x, sizeof x, kMinusOne), fill(residual, sizeof residual, kEight), fill(y, sizeof y, kNan);
    fill(first, sizeof first, kOne), fill(first_bias, sizeof first_bias, kOne);
    fill(core, sizeof core, kOne), fill(core_bias, sizeof core_bias, kTwo);
    fill(last, sizeof last, kOne), fill(bias, sizeof bias, kFour);
    tdc_params p;
    memset(&p, 0, sizeof p);
    p.x = x, p.residual = residual, p.y = y;
    p.first = first, p.first_bias = first_bias, p.core = core, p.core_bias = core_bias;
    p.last = last, p.bias = bias;
    p.n = p.h = p.w = p.h_out = p.w_out = 1;
    p.c = C, p.r_in = R_IN, p.r_out = R_OUT, p.m = M;
    p.kernel_h = p.kernel_w = p.stride_h = p.stride_w = p.dilation_h = p.dilation_w = 1;
    p.first_slope = 0.5F, p.core_slope = 0.25F, p.slope = 0.125F;
    return p;
}

/* The first tactic that is legal for the layer, or 0. */
static int a_legal_tactic(const tdc_params* p) {
    int numbers[MAX_TACTICS];
    const int count = tdc_tactics(numbers, MAX_TACTICS);
    for (int i = 0; i < count && i < MAX_TACTICS; ++i) {
        int legal = -1;
        CHECK(tdc_is_legal(numbers[i], p, &kAmpere, &legal) == TDC_OK);
        CHECK(legal == 0 || legal == 1);
        if (legal) return numbers[i];
    }
    return 0;
}

static void test_list(void) {
    int numbers[MAX_TACTICS] = {0}, few[2] = {0};
    const int count = tdc_tactics(numbers, MAX_TACTICS);
    CHECK(count == tdc_tactic_count());
    CHECK(0 < count && count <= MAX_TACTICS);
    CHECK(tdc_tactics(few, 1) == count);
    CHECK(few[0] == numbers[0] && few[1] == 0);
    CHECK(tdc_tactics(NULL, 1) == TDC_ERROR_ARGUMENT);
}

static void test_description(void) {
    int number = 0;
    tdc_tactics(&number, 1);
    char text[128], cut[6];
    const int length = tdc_describe(number, text, sizeof text);
    CHECK((size_t)length == strlen(text) && length > 5);
    CHECK(tdc_describe(number, cut, sizeof cut) == length);
    CHECK(strncmp(cut, text, 5) == 0 && cut[5] == '\0');
    CHECK(tdc_describe(number, NULL, 0) == length);
    CHECK(tdc_describe(number, NULL, 9) == TDC_ERROR_ARGUMENT);

    tdc_tactic tactic;
    CHECK(tdc_decode(number, &tactic) == TDC_OK);
    CHECK(tactic.family == 1 && tactic.arithmetic == 1 && tactic.config == 0);
    CHECK(tactic.split == 0 && tactic.parts == 1);
    CHECK(tdc_decode(-5, &tactic) == TDC_ERROR_NO_TACTIC);
    CHECK(tdc_decode(number, NULL) == TDC_ERROR_ARGUMENT);
}

static void test_launch(int with_residual) {
    tdc_params p = layer();
    if (!with_residual) p.residual = NULL;
    const int tactic = a_legal_tactic(&p);
    CHECK(tactic != 0);
    CHECK(tdc_workspace_bytes(tactic, &p) == 0 && tdc_counter_count(tactic, &p) == 0);
    CHECK(tdc_launch(tactic, &p, NULL) == TDC_OK);
    for (int i = 0; i < M; ++i) CHECK(y[i] == (with_residual ? kMinus12 : kMinus13));

    CHECK(tdc_launch(-5, &p, NULL) == TDC_ERROR_NO_TACTIC);
    CHECK(tdc_launch(tactic, NULL, NULL) == TDC_ERROR_ARGUMENT);
}

static void test_legality(void) {
    tdc_params p = layer();
    const int tactic = a_legal_tactic(&p);
    int legal = -1;
    CHECK(tdc_is_legal(tactic, &p, NULL, &legal) == TDC_OK && legal == 1);
    const tdc_device turing = {75, 64 * 1024, 40};
    CHECK(tdc_is_legal(tactic, &p, &turing, &legal) == TDC_OK && legal == 0);
    CHECK(tdc_is_legal(-5, &p, &kAmpere, &legal) == TDC_OK && legal == 0);
    CHECK(tdc_is_legal(tactic, NULL, &kAmpere, &legal) == TDC_ERROR_ARGUMENT);
    CHECK(tdc_is_legal(tactic, &p, &kAmpere, NULL) == TDC_ERROR_ARGUMENT);
}

static void test_device_and_build(void) {
    tdc_device device = {0, 0, 0};
    CHECK(tdc_current_device(&device) == TDC_OK);
    CHECK(device.compute_capability == 90 && device.multiprocessors == 132);
    CHECK(device.shared_bytes == 227 * 1024);
    CHECK(tdc_current_device(NULL) == TDC_ERROR_ARGUMENT);
    CHECK(tdc_api_version() == TDC_API_VERSION);
    CHECK(tdc_params_size() == sizeof(tdc_params));
    CHECK(strstr(tdc_build_info(), "\"emulated\": true") != NULL);
    CHECK(strstr(tdc_build_info(), "\"version\": \"") != NULL);
}

static void test_timing_needs_a_gpu(void) {
    tdc_params p = layer();
    const tdc_timing timing = {1, 1, 0};
    float sample = -1;
    CHECK(tdc_time(a_legal_tactic(&p), &p, &timing, &sample) == TDC_ERROR_NEEDS_GPU);
    CHECK(tdc_time_nothing(&timing, &sample) == TDC_ERROR_NEEDS_GPU);
    CHECK(sample == -1);
    CHECK(strstr(tdc_error_string(TDC_ERROR_NEEDS_GPU), "GPU") != NULL);
}

static void test_error_strings(void) {
    for (int error = TDC_ERROR_INTERNAL; error < TDC_OK; ++error)
        CHECK(strcmp(tdc_error_string(error), "unrecognized error code") != 0);
    CHECK(strcmp(tdc_error_string(TDC_OK), "no error") == 0);
    CHECK(strcmp(tdc_error_string(1), "invalid argument") == 0);
    CHECK(tdc_error_string(123456) != NULL);
}

int main(void) {
    test_list();
    test_description();
    test_launch(0);
    test_launch(1);
    test_legality();
    test_device_and_build();
    test_timing_needs_a_gpu();
    test_error_strings();
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
