// The few things that the tests need of a framework.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#ifdef TDC_EMULATED
#include "emulator/runtime.h"
#endif

namespace tdc::test {

inline int failures = 0;

inline void check(bool passed, const char* what, const char* file, int line) {
    if (passed) return;
    if (++failures <= 10) std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
}

// A test's exit status.
inline int result() {
    if (failures) std::fprintf(stderr, "%d checks failed\n", failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

// What `run` prints to stderr, and whether it came to its end, in a child process.
struct Outcome {
    bool ended;
    std::string output;
};
template <class Run>
Outcome in_child(Run run) {
    int ends[2];
    if (pipe(ends)) std::abort();
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        run();
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    Outcome outcome{false, ""};
    char text[4096];
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;)
        outcome.output.append(text, static_cast<std::size_t>(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    outcome.ended = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
    return outcome;
}

// `run` must not come to its end, and must print `text`.
template <class Run>
void check_fails(const char* text, Run run, const char* file, int line) {
    const Outcome outcome = in_child(run);
    check(!outcome.ended, "ended, but should have failed", file, line);
    if (outcome.output.find(text) != std::string::npos) return;
    check(false, ("no \"" + std::string(text) + "\" in: " + outcome.output).c_str(), file, line);
}

#ifdef TDC_EMULATED
// Whether the race detector or AddressSanitizer watches: a kernel is then several times slower, and
// one run of it is enough.
inline bool is_watched() {
#ifdef __SANITIZE_ADDRESS__
    return true;
#else
    return emulator::watch != nullptr;
#endif
}

// Calls `run` under a schedule and a kind of cp.async (emulator::Options).
template <class Run>
void under(emulator::Options schedule, Run run) {
    const emulator::Options before = emulator::options();
    emulator::options() = schedule;
    run();
    emulator::options() = before;
}

// Calls `run` under each kind of schedule and of cp.async.
template <class Run>
void for_each_schedule(Run run) {
    for (bool eager : {false, true})
        for (uint64_t seed = 0; seed < 4; ++seed) under({seed, eager}, run);
}

// In order with late copies, and in an order drawn from the seed with early ones; one of them where
// the kernel is watched.
template <class Run>
void for_two_schedules(uint64_t seed, Run run) {
    if (!is_watched() || seed % 2) under({0, false}, run);
    if (!is_watched() || seed % 2 == 0) under({seed, true}, run);
}
#else  // a device has schedules of its own
inline bool is_watched() { return false; }

template <class Run>
void for_each_schedule(Run run) {
    run();
}
template <class Run>
void for_two_schedules(uint64_t, Run run) {
    run();
    run();
}
#endif

}  // namespace tdc::test

#define CHECK(condition) ::tdc::test::check(condition, #condition, __FILE__, __LINE__)
#define CHECK_FAILS(text, ...) ::tdc::test::check_fails(text, __VA_ARGS__, __FILE__, __LINE__)
